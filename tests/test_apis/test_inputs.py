import cv2
import numpy as np
import pytest
from PIL import Image

from mmfishnet.apis.inputs import find_inputs, load_inputs, to_rgb
from mmfishnet.picture_file import doubts

GREY = np.full((32, 48, 3), 120, np.uint8)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), GREY)
    return str(path)


def test_links_are_followed_and_drawings_are_not_input(tmp_path):
    pics, far = tmp_path / 'pics', tmp_path / 'far'
    wanted = [picture(pics / 'a.png'), str(pics / 'day/b.png'),
              str(pics / 'gone.png')]
    picture(far / 'b.png')
    (pics / 'day').symlink_to(far)
    (far / 'back').symlink_to(pics)  # a circle
    (pics / 'gone.png').symlink_to(far / 'nothing.png')
    picture(pics / '._a.png')
    picture(pics / '.thumbnails/a.png')
    # Results of two earlier runs, one of which is being repeated.
    for name, written in (('one', 'predictions.json'), ('two', 'areas.csv')):
        picture(pics / name / 'pictures/a.jpg')
        picture(pics / name / 'maps/a.png')
        (pics / name / written).touch()
    picture(pics / 'out/pictures/a.jpg')
    assert find_inputs(pics, str(pics / 'out')) == wanted
    # A folder of this name may be somebody's own.
    assert len(find_inputs(pics)) == 4
    assert find_inputs([pics / 'one', pics / 'a.png'], pics / 'one'
                       ) == wanted[:1]
    with pytest.raises(FileNotFoundError, match='that predicting left'):
        find_inputs(pics / 'one', pics / 'one')


def test_what_of_a_file_is_not_read(tmp_path):
    """Judged by what was read of it: another loader may read more."""
    def said(name, image, read=GREY):
        path = tmp_path / name
        cv2.imwrite(str(path), image)
        return doubts(str(path), read)

    light = GREY.astype(np.float32) / 255
    for image, read in ((light, GREY), (light[..., 0], None)):
        with pytest.raises(ValueError, match='float values'):
            said('float.tif', image, read)
    assert said('float.tif', light, light) is None
    for name in ('twelve.png', 'twelve.tif'):
        twelve = GREY.astype(np.uint16) * 16
        assert '11 of 16 bits in use' in said(name, twelve)
        assert said(name, twelve, twelve) is None
        assert said(name, twelve * 16) is None
        assert said(name, GREY) is None
    pages = [Image.fromarray(GREY)] * 3
    pages[0].save(tmp_path / 'pages.tif', save_all=True,
                  append_images=pages[1:])
    assert doubts(str(tmp_path / 'pages.tif'), GREY) == (
        '3 pages, of which the first is read')
    for content, words in ((b'', 'is empty'), (b'x', 'is not a picture')):
        (tmp_path / 'no.png').write_bytes(content)
        with pytest.raises(ValueError, match=words):
            doubts(str(tmp_path / 'no.png'), None)


@pytest.mark.parametrize('image', [
    np.full((4, 6), 500, np.uint16), np.full((4, 6, 1), 0.5, np.float32),
    np.zeros((4, 6, 8), np.uint8), GREY.astype(np.float32)])
def test_any_image_can_be_looked_at(image):
    shown = to_rgb(image)
    assert shown.dtype == np.uint8 and shown.shape == (*image.shape[:2], 3)
    assert shown.max() == (0 if not image.any() else
                           120 if image.shape == GREY.shape else 255)


def test_videos_that_end_too_early(tmp_path):
    paths = [str(tmp_path / name) for name in ('cut.avi', 'no.mp4')]
    video = cv2.VideoWriter(paths[0], cv2.VideoWriter_fourcc(*'MJPG'), 10,
                            (128, 96))
    rng = np.random.default_rng(0)
    for _ in range(20):
        video.write(rng.integers(0, 255, (96, 128, 3), np.uint8))
    video.release()
    content = open(paths[0], 'rb').read()
    open(paths[0], 'wb').write(content[:len(content) // 2])
    open(paths[1], 'wb').write(content[:100])
    skipped, notes = [], []
    frames = list(load_inputs(paths, skipped, notes))
    assert 5 <= len(frames) < 15
    assert f'ends after {len(frames)} of 20 frames' in notes[0][1]
    assert skipped[0][0] == 'no.mp4'

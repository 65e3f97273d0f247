"""What a user can put right is said in a line."""
import signal

import pytest
import torch

from mmfishnet.engine import errors
from mmfishnet.engine.errors import RunStopped, short_errors
from mmfishnet.engine.exact.resume import tells_how_to_go_on


def test_errors_of_users_are_short(capsys):
    for error in (ValueError('no'), FileNotFoundError('no'), RunStopped('no')):
        with pytest.raises(SystemExit, match='1'), short_errors():
            raise error
        assert capsys.readouterr().err == 'error: no\n'
    with pytest.raises(SystemExit), short_errors():
        open('/not/here')
    assert capsys.readouterr().err == (
        'error: /not/here: No such file or directory.\n')
    with pytest.raises(SystemExit, match='143'), short_errors(OSError):
        raise RunStopped('told to', 143)
    with pytest.raises(ValueError), short_errors(OSError):
        raise ValueError('a fault of the program')


def test_others_speak_after_the_first(monkeypatch, capsys):
    """If they are still there: the error may be theirs alone."""
    waited = []
    monkeypatch.setenv('LOCAL_RANK', '1')
    monkeypatch.setattr(errors.time, 'sleep', waited.append)
    with pytest.raises(SystemExit, match='1'), errors.short_errors():
        raise ValueError('mine')
    assert waited == [errors.PAUSE]
    assert capsys.readouterr().err == 'error: mine\n'


def test_ctrl_c_is_short(tmp_path, capsys):
    """Of a training it names the checkpoint."""
    with pytest.raises(SystemExit, match='130'), short_errors(OSError), \
            tells_how_to_go_on(str(tmp_path)):
        signal.default_int_handler(signal.SIGINT, None)
    torch.save(dict(state_dict={}), tmp_path / 'epoch_1.pth')
    (tmp_path / 'epoch_2.pth').touch()  # damaged: --resume passes it by
    with pytest.raises(SystemExit, match='130'), short_errors(OSError), \
            tells_how_to_go_on(str(tmp_path)):
        raise KeyboardInterrupt
    said = 'error: interrupted by Ctrl-C; '
    assert capsys.readouterr().err == (
        f'{said}no checkpoint was written yet.\n'
        f'{said}--resume goes on from {tmp_path}/epoch_1.pth.\n')

# Copyright (c) mmfishnet authors. All rights reserved.
import os

import pytest

from mmfishnet.whole_file import whole_file


def test_appears_when_it_is_on_the_disk(tmp_path, monkeypatch):
    """Whoever is killed before the last line leaves the old file."""
    path, done = tmp_path / 'new/file', []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda descriptor: (
        done.append(os.fstat(descriptor).st_ino), fsync(descriptor)))
    monkeypatch.setattr(os, 'replace', lambda a, b: (
        done.append('rename'), replace(a, b)))
    for content in ('old', 'new'):
        with whole_file(path) as part:
            with open(part, 'w') as file:
                file.write(content)
            inode = os.stat(part).st_ino
            assert content == 'old' or path.read_text() == 'old'
        assert path.read_text() == content
    assert [*path.parent.iterdir()] == [path]
    assert done[3:] == [inode, 'rename', os.stat(path.parent).st_ino]


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / 'file'
    path.write_text('old')
    with pytest.raises(error), whole_file(path) as part:
        with open(part, 'w') as file:
            file.write('half')
        raise error
    assert [*tmp_path.iterdir()] == [path] and path.read_text() == 'old'

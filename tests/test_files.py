"""A file appears whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hetgraph import CheckpointError, HetgraphError
from hetgraph.files import write_atomically


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("data", [b"\x00\xff", "two\nlines, \u00e5", b"", ""])
def test_what_is_written_is_read_back_and_folders_are_made(tmp_path, data) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert os.listdir(path.parent) == ["file.bin"]


def test_an_existing_file_is_replaced_whole(tmp_path) -> None:
    path = tmp_path / "file"
    write_atomically(str(path), "a long first version")
    write_atomically(str(path), "short")
    assert path.read_text() == "short"


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_full_disk_at_any_step_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr(os, step, no_space)
    with pytest.raises(CheckpointError, match=r"could not write .*file: No space left on device"):
        write_atomically(path, "new", CheckpointError)
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_text() == "old"


FULL_DISK = """
import errno, resource, signal, sys
from pathlib import Path
from hetgraph import HetgraphError
from hetgraph.files import write_atomically

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
path = Path(sys.argv[1])
write_atomically(path, b"old")
try:
    write_atomically(path, bytes(1_000_000))
except HetgraphError as error:
    assert "could not write" in str(error) and "File too large" in str(error), error
else:
    sys.exit("no error")
assert path.read_bytes() == b"old"
assert [p.name for p in path.parent.iterdir()] == [path.name]
"""


def test_a_write_that_the_system_cuts_off_halfway_leaves_the_old_file(tmp_path) -> None:
    subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path / "file")], check=True, timeout=60)


def test_an_interruption_by_the_user_leaves_no_temporary_file(tmp_path, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "new")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_the_rename_comes_after_the_data_is_on_disk(tmp_path, monkeypatch) -> None:
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_size), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("renamed"), replace(a, b)))
    write_atomically(tmp_path / "file", b"12345")
    assert done == [5, "renamed"]


def test_a_folder_in_the_way_is_an_error_that_names_the_path(tmp_path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(HetgraphError, match=r"could not write .*file: "):
        write_atomically(tmp_path / "file", "data")
    assert os.listdir(tmp_path) == ["file"]
    (tmp_path / "plain").write_text("")
    with pytest.raises(HetgraphError, match=r"could not write .*inside: "):
        write_atomically(tmp_path / "plain" / "inside", "data")


MODES = """
import os, sys
os.umask(int(sys.argv[2], 8))
from hetgraph.files import write_atomically
write_atomically(sys.argv[1], "data")
"""


@pytest.mark.parametrize(("umask", "mode"), [("077", 0o600), ("002", 0o664)])
def test_files_obey_the_umask_of_the_user(tmp_path, umask, mode) -> None:
    path = tmp_path / "file"
    subprocess.run([sys.executable, "-c", MODES, str(path), umask], check=True, timeout=60)
    assert stat.S_IMODE(Path(path).stat().st_mode) == mode

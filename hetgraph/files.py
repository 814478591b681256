"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import HetgraphError


def _read_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# reading the umask means setting it, which is not safe beside other threads: once, at import
_UMASK = _read_umask()


@contextmanager
def written_atomically(path: str | Path, error: type[HetgraphError] = HetgraphError) -> Iterator[BinaryIO]:
    """A file to write, under a temporary name beside its place; at the end it is flushed to disk and renamed.

    Raises:
        HetgraphError: (or the given subclass) the file could not be written (disk full, no permission); what was
            there before is untouched and nothing half-written stays behind.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; what users save should obey their umask
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
        temporary = None
    except OSError as failure:
        raise error(f"could not write {path}: {failure.strerror or failure}") from failure
    finally:
        # also after Ctrl-C
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_atomically(path: str | Path, data: bytes | str, error: type[HetgraphError] = HetgraphError) -> None:
    """Write a whole file as :func:`written_atomically` does.

    Raises:
        HetgraphError: (or the given subclass) as there.
    """
    payload = data.encode() if isinstance(data, str) else data
    with written_atomically(path, error) as file:
        file.write(payload)

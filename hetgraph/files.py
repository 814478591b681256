"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import HetgraphError


def _read_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# reading the umask means setting it, which is not safe beside other threads: once, at import
_UMASK = _read_umask()


def write_atomically(path: str | Path, data: bytes | str, error: type[HetgraphError] = HetgraphError) -> None:
    """Write a file under a temporary name beside its place, flush it to disk, and rename it.

    Raises:
        HetgraphError: (or the given subclass) the file could not be written (disk full, no permission); what was
            there before is untouched and nothing half-written stays behind.
    """
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
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

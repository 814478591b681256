"""What every reader of raw media shares: named items, file bytes, arrays of any library, content hashes."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from hetgraph.errors import MediaError


@dataclass(frozen=True)
class Item:
    """One picture, text, sound, video or table as the caller gave it, and what error messages call it."""

    value: Any
    name: str

    def error(self, fault: str) -> MediaError:
        return MediaError(f"{self.name}: {fault}")


def open_file(path: Path, item: Item) -> BinaryIO:
    """A regular file, open for reading bytes; the caller closes it.

    Raises:
        MediaError: nothing there, a folder, a device or pipe, or not readable.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise item.error("expected a file, got a folder")
        if not stat.S_ISREG(kind):
            raise item.error("expected a regular file, got a device, pipe or socket")
        return path.open("rb")
    except FileNotFoundError as error:
        raise item.error("no such file") from error
    except OSError as error:
        raise item.error(f"the file cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL character in the path; MediaError is a ValueError too
        raise error if isinstance(error, MediaError) else item.error(f"not a path: {error}") from error


def read_file(path: Path, item: Item) -> bytes:
    """The bytes of a regular file.

    Raises:
        MediaError: nothing there, a folder, a device or pipe, or not readable.
    """
    with open_file(path, item) as file:
        return read_block(file, item)


def read_block(file: BinaryIO, item: Item, size: int = -1) -> bytes:
    """So many bytes of an open file, or all that are left.

    Raises:
        MediaError: the disk or network fails.
    """
    try:
        return file.read(size)
    except OSError as error:
        raise item.error(f"the file cannot be read: {error.strerror or error}") from error


def is_bytes(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


def is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def to_numpy(value: Any, item: Item) -> np.ndarray:
    """A numeric array of any library (NumPy, torch, ``__array__``, ``__dlpack__``) as NumPy, on the CPU.

    Raises:
        MediaError: the object is not an array, or cannot be turned into one.
    """
    if not is_array(value):
        raise item.error(f"expected a path, bytes or an array, got {type(value).__name__}")
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().resolve_conj().resolve_neg()
            value = value.float() if value.dtype == torch.bfloat16 else value
            return value.numpy()
        return np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
    except Exception as error:  # foreign code: any library's conversion, any exception
        raise item.error(f"this {type(value).__name__} cannot be turned into an array: {error}") from error


def content_hash(item: Item, path: Path | None) -> str:
    """Sha256 of what the item holds; equal for a file and for its bytes.

    Args:
        item: a file, bytes, a string, an array, or an ``(array, rate)`` pair.
        path: the file that the item stands for, if it does.

    Raises:
        MediaError: the file cannot be read, or the item is none of the above.
    """
    value = item.value
    if path is not None:
        total = hashlib.sha256(b"bytes\0")
        with open_file(path, item) as file:
            while block := read_block(file, item, 1 << 20):  # a video may be larger than memory
                total.update(block)
        return total.hexdigest()
    if is_bytes(value):
        return hashlib.sha256(b"bytes\0" + bytes(value)).hexdigest()
    if isinstance(value, str):
        return hashlib.sha256(b"text\0" + value.encode("utf-8", "surrogatepass")).hexdigest()
    rate = ""
    if isinstance(value, tuple) and len(value) == 2:
        value, rate = value[0], repr(value[1])
    array = np.ascontiguousarray(to_numpy(value, item))
    if array.dtype.hasobject:
        raise item.error("expected numbers, got an array of Python objects")
    head = f"array\0{array.dtype.str}\0{array.shape}\0{rate}\0"
    return hashlib.sha256(head.encode() + array.tobytes()).hexdigest()


def file_stamp(path: Path | None) -> tuple[int, ...] | None:
    """Inode, size and time of change of a file: differs if the file was touched in between."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns)

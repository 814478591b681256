"""Reading a pickle from outside without running anything in it.

A pickle is a program: it may call any function that can be imported, and ask for any amount of memory. Data sets come
as pickles all the same. Here a file is first gone through without being run (every length must lie inside the file,
every place of the memo must be the next one, no instruction may make objects of other classes), and then only builtin
values and NumPy arrays and scalars are built, the latter by functions of this module: what the pickle names
``numpy.core.multiarray._reconstruct`` and the like is never NumPy's own, which would trust its shape and its bytes.
So memory stays within a small multiple of the size of the file.
"""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import HetgraphError
from .layout import present, shown

DEEPEST = 16
"""How deep lists, tuples and dictionaries may lie in each other."""

_PLAIN = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|[SUV]\d+|O8?|\?)")
_FORBIDDEN = frozenset(
    (
        "INST",
        "OBJ",
        "NEWOBJ",
        "NEWOBJ_EX",
        "PERSID",
        "BINPERSID",
        "EXT1",
        "EXT2",
        "EXT4",
        "NEXT_BUFFER",
        "READONLY_BUFFER",
    )
)


def load(title: str, path: Path) -> Any:
    """What a pickle of builtin values and NumPy arrays holds, as plain lists, tuples, dictionaries and arrays.

    Pickles of Python 2 are read too (their strings as Latin-1, as NumPy wants them).

    Raises:
        HetgraphError: no file, it is damaged, or it holds or does anything else; nothing has been run then.
    """
    where = f"{title}: {present(title, path)}"
    if not path.stat().st_size:
        raise HetgraphError(f"{where} is empty")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _look_through(data)
            data.seek(0)
            value = _Unpickler(data, encoding="latin1").load()
        return _plain(value, {}, 0)
    except _Refused as refused:
        raise HetgraphError(f"{where} is refused: {refused}") from None
    except (
        *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError),
        *(OverflowError, MemoryError, RecursionError, AssertionError),
    ) as error:
        raise HetgraphError(f"{where} is no whole pickle of arrays: {error or type(error).__name__}") from error


class _Refused(Exception):
    """What a pickle must not hold or do."""


def _look_through(data: mmap.mmap) -> None:
    memo = 0
    # genops reads an argument before it gives it; a map gives no more than there is
    argument: Any
    for instruction, argument, where in pickletools.genops(data):  # type: ignore[arg-type]
        name, place = instruction.name, where or 0
        if name in _FORBIDDEN:
            raise _Refused(f"instruction {name} at byte {place}")
        if name in ("GLOBAL", "INST"):
            _maker(*argument.split(" ", 1))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            # the memo is a table that grows to the highest place
            if argument > memo:
                raise _Refused(f"place {argument} of the memo at byte {place}, expected at most {memo}")
            memo = max(memo, argument + 1)
        elif name == "MEMOIZE":
            memo += 1
        elif name == "FRAME" and argument > len(data) - place:
            raise _Refused(f"a frame of {argument} bytes at byte {place} of {len(data)}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _maker(module, name)


class _Maker:
    """A function that a pickle may call. Nothing can be changed about it: a pickle may set attributes, too."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _Refused("it changes a function")


def _maker(module: str, name: str) -> _Maker:
    # NumPy 2 moved numpy.core to numpy._core
    found = _MAKERS.get((module.replace("numpy._core.", "numpy.core."), name))
    if found is None:
        raise _Refused(f"it asks for {shown(f'{module}.{name}')}, but only NumPy arrays and builtin values are read")
    return found


class _Type:
    """A dtype that a pickle describes: a plain one, whatever state the pickle gives it."""

    __slots__ = ("real",)

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(text, str) or not _PLAIN.fullmatch(text):
            raise _Refused(f"arrays of type {shown(code)}")
        self.real = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        # version, byte order, subarray, names, fields, size, alignment, flags
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise _Refused(f"arrays of a type with parts: {shown(state)}")
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order == ">":
            self.real = self.real.newbyteorder(">")
        elif order not in ("<", "=", "|"):
            raise _Refused(f"arrays with bytes in the order {shown(order)}")


class _Array(np.ndarray):
    """An array that looks at its state before it takes it over."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused(f"an array with the state {shown(state)}")
        _, shape, kind, columns_first, content = state
        if isinstance(content, str):
            content = content.encode("latin1")
        real: Any = _fitting(kind, shape, content).real
        super().__setstate__((1, shape, real, bool(columns_first), content))  # type: ignore[arg-type]


def _fitting(kind: Any, shape: Any, content: Any) -> _Type:
    """The type, if an array of this shape has exactly this content."""
    if not isinstance(kind, _Type):
        raise _Refused(f"an array of type {shown(kind)}")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        raise _Refused(f"an array of shape {shown(shape)}")
    count, loose = math.prod(shape), kind.real.hasobject
    if not isinstance(content, list if loose else (bytes, bytearray)):
        raise _Refused(f"an array of {kind.real} made of {type(content).__name__}")
    size = count if loose else count * kind.real.itemsize
    if size != len(content) or (size == 0 and count):
        raise _Refused(
            f"an array of {kind.real} {list(shape)} needs {size} {'items' if loose else 'bytes'}, "
            f"there are {len(content)}"
        )
    return kind


def _empty(kind: Any, shape: Any, code: Any) -> _Array:
    if shape != (0,):
        raise _Refused(f"an array of shape {shown(shape)} without content")
    return np.ndarray.__new__(_Array, (0,), dtype="b")


def _buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    if order not in ("C", "F"):
        raise _Refused(f"an array in the order {shown(order)}")
    flat = np.frombuffer(content, _fitting(kind, shape, content).real)
    return flat.reshape(shape, order=order).view(_Array)


def _scalar(kind: Any, content: Any = b"") -> Any:
    if isinstance(content, str):
        content = content.encode("latin1")
    return np.frombuffer(content, _fitting(kind, (1,), content).real)[0]


def _latin(text: Any, encoding: Any) -> bytes:
    """Bytes as Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"bytes encoded as {shown(encoding)}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _set(items: Any = ()) -> set[Any]:
    if not isinstance(items, (list, tuple)):
        raise _Refused(f"a set of {type(items).__name__}")
    return set(items)


_MAKERS = {
    ("numpy.core.multiarray", "_reconstruct"): _Maker(_empty),
    ("numpy.core.multiarray", "scalar"): _Maker(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Maker(_buffer),
    ("numpy", "dtype"): _Maker(_Type),
    # an argument of _reconstruct, which does not look at it
    ("numpy", "ndarray"): _Maker(_no_bytes),
    ("_codecs", "encode"): _Maker(_latin),
    **{(module, "bytes"): _Maker(_no_bytes) for module in ("builtins", "__builtin__")},
    **{(module, "set"): _Maker(_set) for module in ("builtins", "__builtin__")},
}


def _plain(value: Any, done: dict[int, Any], depth: int) -> Any:
    """The value without the types of this module. What is there several times is turned once."""
    if depth > DEEPEST:
        raise _Refused(f"lists in lists, more than {DEEPEST} deep")
    if id(value) in done:
        return done[id(value)]
    out: Any = value
    if isinstance(value, _Array):
        out = value.view(np.ndarray)
        if out.dtype.hasobject:
            items = [_plain(item, done, depth + 1) for item in out.ravel().tolist()]
            out = np.empty(out.size, dtype=object)
            out[:] = items
            out = out.reshape(value.shape)
    elif isinstance(value, dict):
        out = {_plain(key, done, depth + 1): _plain(item, done, depth + 1) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        out = type(value)(_plain(item, done, depth + 1) for item in value)
    elif isinstance(value, (_Maker, _Type)):
        raise _Refused("a function or a type among its values")
    done[id(value)] = out
    return out

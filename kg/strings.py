"""Many strings in two arrays, sorted, so that they can be mapped from a file and looked up without a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from .errors import KnowledgeError


class Strings(Sequence[str]):
    """n distinct strings in the order of their code points, which is the order of their bytes in UTF-8.

    Args:
        text: uint8 ``[bytes]``, all of them in UTF-8, one after the other.
        offsets: int64 ``[n + 1]``, string i is ``text[offsets[i]:offsets[i + 1]]``.
    """

    __slots__ = ("offsets", "text")

    def __init__(self, text: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.text, self.offsets = text, offsets

    @classmethod
    def of(cls, strings: Sequence[str]) -> Strings:
        """Pack strings that are sorted and distinct."""
        lengths = np.fromiter((len(s) if s.isascii() else len(s.encode()) for s in strings), np.int64, len(strings))
        offsets = np.zeros(len(strings) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        text = np.empty(offsets[-1], np.uint8)
        # in pieces: neither all bytes nor all strings twice
        for first in range(0, len(strings), 4096):
            piece = "".join(strings[first : first + 4096]).encode()
            text[offsets[first] : offsets[first] + len(piece)] = np.frombuffer(piece, np.uint8)
        return cls(_frozen(text), _frozen(offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self._at(j) for j in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(f"string {i} of {len(self)}")
        return self._at(i % len(self))

    def _at(self, i: int) -> str:
        return self._bytes(i).decode()

    def _bytes(self, i: int) -> bytes:
        return self.text[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def __iter__(self) -> Iterator[str]:
        return map(self._at, range(len(self)))

    def find(self, string: str) -> int:
        """Its place, or -1."""
        try:
            wanted = string.encode()
        except UnicodeEncodeError:  # a lone surrogate is in no file
            return -1
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._bytes(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self._bytes(low) == wanted else -1

    def __contains__(self, string: object) -> bool:
        return isinstance(string, str) and self.find(string) >= 0

    def index(self, string: object, start: int = 0, stop: int | None = None) -> int:
        """Its place.

        Raises:
            KnowledgeError: there is no such string.
        """
        found = self.find(string) if isinstance(string, str) else -1
        if found < start or (stop is not None and found >= stop):
            raise KnowledgeError(f"{string!r} is not one of the {len(self)} names")
        return found

    def check(self, name: str) -> None:
        """Raises KnowledgeError: the offsets do not fit the text."""
        if (
            len(self.offsets) < 1
            or self.offsets[0] != 0
            or self.offsets[-1] != len(self.text)
            or (np.diff(self.offsets) < 0).any()
        ):
            raise KnowledgeError(f"{name}: offsets do not fit a text of {len(self.text)} bytes")


class Numbering:
    """Strings numbered as they appear, and from there to numbers that do not depend on the order of appearance."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self.ids: dict[str, int] = {}
        for string in strings:
            self(string)

    def __call__(self, string: str) -> int:
        return self.ids.setdefault(string, len(self.ids))

    def finish(self) -> tuple[Strings, NDArray[np.int64]]:
        """The sorted strings, and for every number given out ``[n]`` the place of its string among them."""
        names = sorted(self.ids)
        order = np.fromiter(map(self.ids.__getitem__, names), np.int64, len(names))
        place = np.empty(len(names), np.int64)
        place[order] = np.arange(len(names))
        return Strings.of(names), place


def _frozen(array: NDArray) -> NDArray:
    array.flags.writeable = False
    return array

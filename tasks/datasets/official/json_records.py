"""The records of a large JSON file one by one, without holding the file: half a gigabyte is usual for annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, NoReturn, TextIO

from ....errors import HetgraphError
from .layout import present

CHUNK = 1 << 20
LONGEST = 1 << 26
"""Characters of one record. A file that breaks off inside a string would be read to its end otherwise."""


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_DECODER = JSONDecoder(parse_constant=_refuse)


def records(title: str, path: Path) -> Iterator[tuple[str | None, int, Any]]:
    """The records of a file that is one list, or one object.

    Of a list ``[a, b]`` they are ``(None, 1, a), (None, 2, b)``. Of an object ``{"x": [a, b], "y": c}`` they are
    ``("x", 1, a), ("x", 2, b), ("y", 1, c)``: lists are taken apart, anything else is one record, and so an object of
    objects gives a record per key. An empty list gives none. A key that is there twice gives its records twice.

    Raises:
        HetgraphError: no file, no UTF-8, not JSON (with the key and number of the record), NaN or infinite numbers,
            or more after the end.
    """
    with present(title, path).open(encoding="utf-8-sig") as file:
        text = _Text(file, f"{title}: {path}")
        start = text.next()
        if start == "[":
            yield from text.elements(None)
        elif start == "{":
            text.step("{")
            while text.next() != "}":
                key = text.value("a name")
                if not isinstance(key, str):
                    text.fail(f"expected a name, got {key!r}")
                text.step(":")
                if text.next() == "[":
                    yield from text.elements(key)
                else:
                    yield key, 1, text.value(f"record {key!r}")
                text.comma("}")
            text.step("}")
        else:
            text.fail(f"expected a list or an object, got {start!r}")
        if text.next():
            text.fail(f"expected the end, got {text.next()!r}")


class _Text:
    """What a file holds from a place on, read as far as it is needed."""

    def __init__(self, file: TextIO, where: str) -> None:
        self.file, self.where = file, where
        self.buffer, self.at, self.before, self.ended = "", 0, 0, False

    def fail(self, what: str) -> NoReturn:
        raise HetgraphError(f"{self.where}: {what} at character {self.before + self.at}")

    def more(self) -> None:
        """Read as much again as is held, so that a record of any length is tried a few times only."""
        self.before += self.at
        self.buffer, self.at = self.buffer[self.at :], 0
        try:
            read = self.file.read(max(CHUNK, len(self.buffer)))
        except UnicodeDecodeError as error:
            raise HetgraphError(f"{self.where} cannot be read: {error}") from error
        self.buffer += read
        self.ended = not read

    def next(self) -> str:
        """The next character that is no white space, which is not consumed; empty at the end."""
        while True:
            while self.at < len(self.buffer):
                if self.buffer[self.at] not in " \t\n\r":
                    return self.buffer[self.at]
                self.at += 1
            if self.ended:
                return ""
            self.more()

    def step(self, expected: str) -> None:
        found = self.next()
        if found != expected:
            self.fail(
                f"expected {expected!r}, got {found!r}" if found else f"breaks off where {expected!r} is expected"
            )
        self.at += 1

    def comma(self, end: str) -> None:
        """Consume a comma, or see ``end``."""
        if self.next() == end:
            return
        self.step(",")
        if self.next() == end:
            self.fail(f"a comma before {end!r}")

    def value(self, what: str) -> Any:
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.at)
            except (JSONDecodeError, RecursionError, ValueError) as error:
                if self.ended or len(self.buffer) - self.at > LONGEST:
                    message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                    self.fail(f"{what} is damaged: {message}")
            else:
                # a number may go on in what is not read yet, also if "e+" or a point is left of it
                if len(self.buffer) - end > 2 or self.ended:
                    self.at = end
                    return value
            self.more()

    def elements(self, key: str | None) -> Iterator[tuple[str | None, int, Any]]:
        self.step("[")
        number = 0
        while self.next() != "]":
            number += 1
            yield key, number, self.value(f"record {number}" + (f" of {key!r}" if key is not None else ""))
            self.comma("]")
        self.step("]")

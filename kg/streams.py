"""Bytes on their way to a parser: opened, unpacked, counted, and watched for what would harm it.

pyoxigraph expands the entities of RDF/XML without limit, and its parsers of RDF 1.2 and JSON-LD recurse: nested deep
enough they end the interpreter. So both are looked for in the bytes, before the parser sees them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any

from .errors import KnowledgeError, UnsafeInputError

MARK = b"\xef\xbb\xbf"
_JSON = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True)
class Limits:
    """What a source may hold at most; everything is counted in bytes of UTF-8 but ``depth``.

    Args:
        literal: one literal.
        unpacked: what a gzip file unpacks to.
        document: a JSON-LD document, which is not streamed but held whole.
        depth: nesting of JSON-LD, and of statements about statements.
    """

    literal: int = 1 << 20
    unpacked: int = 1 << 32
    document: int = 1 << 28
    depth: int = 128

    def __post_init__(self) -> None:
        for name in ("literal", "unpacked", "document", "depth"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise KnowledgeError(f"Limits.{name} must be a positive integer, got {value!r}")
        # past a few hundred the parsers' own recursion ends the interpreter
        if self.depth > 500:
            raise KnowledgeError(f"Limits.depth may be at most 500, got {self.depth}")


class Bounded:
    """A binary stream without its byte order mark, that ends in an error after ``limit`` bytes."""

    def __init__(self, stream: IO[bytes], limit: float) -> None:
        self._stream, self._limit, self._read, self._started = stream, limit, 0, False

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if not isinstance(data, bytes):
            raise KnowledgeError(f"needs a file opened in binary mode, this one gave {type(data).__name__}")
        self._read += len(data)
        if self._read > self._limit:
            raise KnowledgeError(f"unpacks to more than {self._limit} bytes")
        if not self._started and data:
            self._started = True
            while len(data) < 3 and MARK.startswith(data) and (more := self._stream.read(1)):
                data += more
            # What is left of a file that is only a mark is nothing, which is also how a file ends.
            data = data.removeprefix(MARK) or self.read(size)
        return data


class _Watched:
    """A binary stream whose pieces are looked at; what lies across two pieces is seen too."""

    overlap = 0

    def __init__(self, stream: Any) -> None:
        self._stream, self._tail = stream, b""

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        seen = self._tail + data
        self.look(seen)
        self._tail = seen[max(0, len(seen) - self.overlap) :] if self.overlap else b""
        return data

    def look(self, seen: bytes) -> None:
        raise NotImplementedError


class WithoutDoctype(_Watched):
    """RDF/XML without a document type definition, which is where entities are defined.

    The word is refused wherever it stands, because a parser that is more lenient than the check would be a way
    around it; text has to write its ``<`` as ``&lt;`` anyway. The same goes for encodings that hide it.
    """

    overlap = len(b"<!doctype")

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._first = True

    def look(self, seen: bytes) -> None:
        if self._first and seen:
            self._first = False
            if seen.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in seen[:4]:
                raise UnsafeInputError("RDF/XML must be UTF-8, this is UTF-16 or UTF-32")
        if b"<!" in seen and b"<!doctype" in seen.lower():
            raise UnsafeInputError(
                "RDF/XML with a DOCTYPE is not read, because entities can expand without end; convert it to Turtle, "
                "or expand its entities with a tool you trust"
            )


class ShallowStatements(_Watched):
    """N-Triples, N-Quads, Turtle or TriG whose statements about statements do not nest deep.

    With ``lines`` the openings ``<<(`` are counted in each line, else in the whole file: such statements are
    refused by the caller anyway, so this only has to keep the parser alive until then.
    """

    overlap = 2

    def __init__(self, stream: Any, depth: int, lines: bool) -> None:
        super().__init__(stream)
        self._depth, self._lines, self._count = depth, lines, 0

    def look(self, seen: bytes) -> None:
        if b"<<(" in seen:
            rows = seen.split(b"\n") if self._lines else [seen]
            for i, row in enumerate(rows):
                self._count = row.count(b"<<(") + (0 if i else self._count)
                if self._count > self._depth:
                    raise UnsafeInputError(f"statements about statements are nested more than {self._depth} deep")
        elif self._lines and b"\n" in seen:
            self._count = 0


@contextmanager
def opened(source: Any) -> Iterator[Any]:
    """A path, bytes or a binary file as a binary file; what was open stays open."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as stream:
            yield stream
    elif isinstance(source, bytes):
        yield BytesIO(source)
    else:
        yield source


def nesting(data: bytes, most: int) -> None:
    """Check how deep the brackets of a JSON text are nested, without recursion.

    Raises:
        UnsafeInputError: deeper than ``most``.
    """
    depth = 0
    for match in _JSON.finditer(data):
        sign = match[0]
        if sign in (b"{", b"["):
            depth += 1
            if depth > most:
                line = data.count(b"\n", 0, match.start()) + 1
                raise UnsafeInputError(f"JSON is nested more than {most} deep (line {line})")
        elif sign in (b"}", b"]"):
            depth -= 1

"""From a path, bytes or a file to statements: which format, which guards, which error.

The parser is pyoxigraph's. Every way in goes through :func:`statements`, so that the graph and the store read alike.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyoxigraph as ox

from ..errors import HetgraphError
from .errors import KnowledgeError, LiteralTooLarge, ParseError, UnsafeInputError
from .jsonld import NO_BASE, prepare
from .streams import Bounded, Limits, ShallowStatements, WithoutDoctype, opened

Source = str | os.PathLike[str] | bytes | IO[bytes]
Skip = Callable[[str], None]
"""Is told of every statement that is left out."""

TABLES = {"csv": ",", "tsv": "\t"}
FORMATS = {
    **dict.fromkeys(("nt", "ntriples", "n-triples"), ox.RdfFormat.N_TRIPLES),
    **dict.fromkeys(("nq", "nquads", "n-quads"), ox.RdfFormat.N_QUADS),
    **dict.fromkeys(("ttl", "turtle"), ox.RdfFormat.TURTLE),
    **dict.fromkeys(("trig",), ox.RdfFormat.TRIG),
    **dict.fromkeys(("rdf", "xml", "owl", "rdf/xml", "rdfxml"), ox.RdfFormat.RDF_XML),
    **dict.fromkeys(("jsonld", "json-ld", "json"), ox.RdfFormat.JSON_LD),
}
BY_LINE = (ox.RdfFormat.N_TRIPLES, ox.RdfFormat.N_QUADS)
HEADERS = {
    ("head", "relation", "tail"),
    ("subject", "predicate", "object"),
    ("source", "relation", "target"),
    ("h", "r", "t"),
    ("s", "p", "o"),
}
# tabs part the columns whatever stands between them
_QUOTES: dict[str, Any] = {"csv": {"strict": True}, "tsv": {"quoting": csv.QUOTE_NONE}}
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def named(source: Source) -> str:
    """What to call a source in messages."""
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) else "triples"


def format_of(source: Source, given: str | None) -> ox.RdfFormat | str:
    """The format by its name, or by the name of the file; "csv" and "tsv" for tables.

    Raises:
        KnowledgeError: neither names a format that is read.
    """
    suffix = Path(named(source).removesuffix(".gz")).suffix.removeprefix(".")
    asked = (suffix if given is None else given).lower().removesuffix(".gz")
    if asked in TABLES:
        return asked
    if asked not in FORMATS:
        known = ", ".join(["nt", "nq", "ttl", "trig", "rdf", "jsonld", *TABLES])
        raise KnowledgeError(f"{named(source)}: unknown format {asked!r}; format= takes {known}")
    return FORMATS[asked]


@contextmanager
def plain(source: Source, limits: Limits) -> Iterator[Any]:
    """A source as a stream of unpacked bytes.

    Raises:
        KnowledgeError: it is an address (nothing is fetched) or no source at all.
    """
    if not isinstance(source, (str, os.PathLike, bytes)) and not hasattr(source, "read"):
        raise KnowledgeError(f"triples come from a path, bytes or a binary file, not {type(source).__name__}")
    name = named(source)
    if isinstance(source, str) and _REMOTE.match(source):
        raise KnowledgeError(f"{name}: nothing is fetched; download it and give the path")
    packed = source[:2] == b"\x1f\x8b" if isinstance(source, bytes) else name.endswith(".gz")
    with opened(source) as stream:
        unpacked: Any = gzip.GzipFile(fileobj=stream) if packed else stream
        yield Bounded(unpacked, limits.unpacked if packed else float("inf"))


@contextmanager
def errors_of(name: str, limits: Limits) -> Iterator[None]:
    """Whatever goes wrong while reading, as an error of this package that names the source."""
    try:
        yield
    except HetgraphError as error:
        if str(error).startswith(f"{name}: "):
            raise
        kind = type(error)
        raise (
            ParseError(f"{name}: {error}", error.line, error.column)
            if isinstance(error, ParseError)
            else kind(f"{name}: {error}")
        ) from error
    except SyntaxError as error:
        raise ParseError(f"{name}: {error.msg}", error.lineno, error.offset) from error
    except MemoryError as error:
        raise LiteralTooLarge(f"{name}: a literal or IRI is far over {limits.literal} bytes ({error})") from error
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise KnowledgeError(f"{name}: {error}") from error


def statements(
    source: Source,
    *,
    format: str | None = None,
    base: str | None = None,
    limits: Limits | None = None,
    contexts: Mapping[str, Any] | None = None,
    skip: Skip | None = None,
) -> Iterator[Any]:
    """The quads of an RDF source, one after the other, checked.

    Args:
        source: a path, the bytes themselves, or a file opened in binary mode (left open); gzipped or not.
        format: ``None`` goes by the file's name.
        base: the IRI that relative ones are resolved against.
        limits: what it may hold.
        contexts: of JSON-LD, by address.
        skip: is told of malformed lines of N-Triples and N-Quads, which are then left out; ``None`` raises.

    Raises:
        ParseError: malformed, with line and column; UnsafeInputError; LiteralTooLarge; KnowledgeError: the rest.
    """
    limits = limits or Limits()
    rdf = format_of(source, format)
    if isinstance(rdf, str):
        raise KnowledgeError(f"{named(source)}: a table holds names, not RDF statements")
    with errors_of(named(source), limits), plain(source, limits) as stream:
        guarded: Any
        if rdf == ox.RdfFormat.JSON_LD:
            text = stream.read(limits.document + 1)
            if len(text) > limits.document:
                raise UnsafeInputError(f"JSON-LD of more than {limits.document} bytes is not read")
            # an empty file is no JSON, but all formats agree on what it means
            guarded = io.BytesIO(prepare(text, contexts, limits)) if text.strip() else io.BytesIO(b"[]")
        elif rdf == ox.RdfFormat.RDF_XML:
            guarded = WithoutDoctype(stream)
        else:
            guarded = ShallowStatements(stream, limits.depth, lines=rdf in BY_LINE)
        used = NO_BASE if base is None and rdf == ox.RdfFormat.JSON_LD else base
        quads = _checked(ox.parse(input=guarded, format=rdf, base_iri=used), limits, skip)
        yield from _without_base(quads) if used == NO_BASE else quads


def _checked(quads: Iterator[Any], limits: Limits, skip: Skip | None) -> Iterator[Any]:
    """Quads without those that are refused: their statements about statements, and literals that are too long."""
    literal, triple, quarter = ox.Literal, ox.Triple, limits.literal // 4
    while True:
        try:
            for quad in quads:
                value = quad.object
                kind = type(value)
                if kind is literal:
                    text = value.value
                    if len(text) > quarter and len(text.encode()) > limits.literal:
                        raise LiteralTooLarge(f"a literal of {quad.subject} has over {limits.literal} bytes")
                elif kind is triple:
                    raise ParseError(f"a statement about a statement is not supported: {str(quad)[:80]}")
                yield quad
            return
        except (SyntaxError, LiteralTooLarge, ParseError) as error:
            if skip is None:
                raise
            skip(error.msg if isinstance(error, SyntaxError) else str(error))


def _without_base(quads: Iterator[Any]) -> Iterator[Any]:
    for quad in quads:
        for term in (quad.subject, quad.predicate, quad.object, quad.graph_name):
            if isinstance(term, ox.NamedNode) and term.value.startswith(NO_BASE):
                raise ParseError(f"the IRI {term.value.removeprefix(NO_BASE)[:80]!r} is relative and there is no base=")
        yield quad


def rows(
    source: Source,
    *,
    format: str,
    limits: Limits | None = None,
    skip: Skip | None = None,
) -> Iterator[tuple[str, str, str]]:
    """The triples of a table with the columns head, relation and tail; a first row that says so is left out.

    Raises:
        ParseError: not three columns, or an empty one, with the line; KnowledgeError: the rest.
    """
    limits = limits or Limits()
    with errors_of(named(source), limits), plain(source, limits) as stream:
        lines = lines_of(stream, limits)
        table = csv.reader(lines, delimiter=TABLES[format], **_QUOTES[format])
        first = True
        for row in table:
            header, first = first and tuple(cell.strip().lower() for cell in row) in HEADERS, False
            if header or not row:
                continue
            if len(row) == 3 and all(row):
                yield row[0], row[1], row[2]
                continue
            message = (
                f"expected head, relation and tail, got {len(row)} columns: {str(row)[:80]} (line {table.line_num})"
            )
            if skip is None:
                raise ParseError(message, table.line_num)
            skip(message)


def lines_of(stream: Any, limits: Limits) -> Iterator[str]:
    """The lines of a binary stream in UTF-8, none of them so long that it would fill the memory."""
    text = io.TextIOWrapper(io.BufferedReader(_Raw(stream)), encoding="utf-8", newline="")
    number = 0
    try:
        # a line that never ends must not fill the memory
        while line := text.readline(3 * limits.literal):
            number += 1
            if len(line) >= 3 * limits.literal:
                raise LiteralTooLarge(f"line {number} is longer than {3 * limits.literal} characters")
            yield line
    except UnicodeDecodeError as error:
        raise ParseError(f"not UTF-8 (after line {number})", number + 1) from error


class _Raw(io.RawIOBase):
    """Something with ``read`` as a raw stream."""

    def __init__(self, stream: Any) -> None:
        self._inner = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

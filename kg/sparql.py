"""What a SPARQL query holds, as far as it matters before an engine sees it: size, nesting, variables, the network.

A query is cut into the terminals of its grammar. What is left without strings, IRIs, comments, variables and local
names are keywords, prefixes and signs, and a keyword cannot hide there, even where an engine wants no space behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyoxigraph as ox

from .errors import QueryError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 100

_LOCAL = r"(?:[\w:]|%[0-9A-Fa-f]{2}|\\[_~.\-!$&'()*+,;=/?#@%])"
_TERMINAL = re.compile(
    rf"""
      (?P<string>'''(?:[^'\\]|\\.|'(?!''))*+'''|\"\"\"(?:[^"\\]|\\.|"(?!""))*+\"\"\"
        |'(?:[^'\\\n\r]|\\.)*+'|"(?:[^"\\\n\r]|\\.)*+")
    | (?P<iri><[^\x00-\x20<>"{{}}|^`\\]*>)
    | (?P<comment>\#[^\n\r]*)
    | (?P<variable>[?$]\w+)
    | (?P<tag>@[A-Za-z][A-Za-z0-9-]*)
    | (?P<name>:{_LOCAL}(?:(?:{_LOCAL}|[.-])*{_LOCAL})?)
    | (?P<open>[{{(\[])
    | (?P<close>[}})\]])
    | (?P<word>\w+)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_NETWORK = re.compile(r"service|load|from", re.IGNORECASE)


def terminals(query: str) -> Iterator[tuple[str, str, int]]:
    """Kind, text and place of each terminal."""
    for match in _TERMINAL.finditer(query):
        yield str(match.lastgroup), match[0], match.start()


def check(query: str, *, local: bool = True) -> set[str]:
    """The names of the variables of a query that is safe to hand on.

    Args:
        query: SPARQL.
        local: refuse what makes an engine reach for the network.

    Raises:
        QueryError: too long, nested too deep, an escape outside of strings, or (``local``) SERVICE, LOAD or FROM.
    """
    if not isinstance(query, str):
        raise QueryError(f"a query is a string, got {type(query).__name__}")
    if (size := len(query.encode(errors="replace"))) > MAX_BYTES:
        raise QueryError(f"a query may have {MAX_BYTES} bytes, this one has {size}")
    variables, depth = set(), 0
    for kind, text, at in terminals(query):
        if kind == "variable":
            variables.add(text[1:])
        elif kind == "open":
            depth += 1
            if depth > MAX_DEPTH:
                raise QueryError(f"a query may be nested {MAX_DEPTH} deep, this one is deeper")
        elif kind == "close":
            depth -= 1
        elif kind == "sign" and text == "\\":
            raise QueryError(f"a backslash outside of a string (character {at})")
        elif local and kind == "word" and (found := _NETWORK.search(text)):
            raise QueryError(
                f"{found[0].upper()} is not allowed in a query, nor a prefix of that name (character {at})"
            )
    return variables


def terms(bindings: Mapping[str, Any], variables: set[str]) -> dict[str, Any]:
    """Values of variables as RDF terms.

    Raises:
        QueryError: the query has no such variable, or the value is no term.
    """
    found = {}
    for name, value in bindings.items():
        if name.lstrip("?$") not in variables:
            raise QueryError(f"bindings: the query has no variable {name!r}; it has {sorted(variables)}")
        found[name.lstrip("?$")] = term(value)
    return found


def term(value: Any) -> Any:
    """A string as an IRI, a number or truth value as a literal, a pyoxigraph term as it is.

    Raises:
        QueryError: anything else, or a string that is no IRI.
    """
    if isinstance(value, (ox.NamedNode, ox.Literal)):
        return value
    if isinstance(value, (bool, int, float)):
        return ox.Literal(value)
    if not isinstance(value, str):
        raise QueryError(f"bindings: expected an IRI, a number or a pyoxigraph term, got {type(value).__name__}")
    try:
        return ox.NamedNode(value)
    except ValueError as error:
        raise QueryError(f"bindings: {value[:80]!r} is not an IRI ({error}); a text is a pyoxigraph.Literal") from error


def values(names: list[str], rows: list[list[Any]]) -> str:
    """A VALUES block; terms are written by the library, never pasted."""
    variables = " ".join(f"?{name}" for name in names)
    lines = " ".join(f"({' '.join(map(str, row))})" for row in rows)
    return f"VALUES ({variables}) {{ {lines} }}"


def bound(query: str, found: Mapping[str, Any]) -> str:
    """A query whose outermost group begins with values for some variables.

    Raises:
        QueryError: it has no group, as ``DESCRIBE <iri>``.
    """
    if not found:
        return query
    depth, template, before = 0, False, ""
    for kind, text, at in terminals(query):
        if kind == "open":
            if not depth and text == "{":
                template = before.upper() == "CONSTRUCT"
                if not template:
                    return f"{query[: at + 1]} {values(list(found), [list(found.values())])} {query[at + 1 :]}"
            depth += 1
        elif kind == "close":
            depth -= 1
        if kind not in ("comment", "sign"):
            before = text
    raise QueryError("bindings need a query with a group in braces")

"""JSON-LD made safe for the parser: shallow, with every context at hand, with names that are not dropped in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import ParseError, UnsafeInputError
from .streams import Limits, nesting

NO_BASE = "x-no-base:/"
"""Stands for the base that is missing, so that relative names can be told; without it the parser drops them."""

_NOT_IN_NAMES = re.compile(r'[\x00-\x20<>"{}|\\^`]')


def prepare(data: bytes, contexts: Mapping[str, Any] | None, limits: Limits) -> bytes:
    """The document with its remote contexts replaced by the given ones.

    Args:
        data: UTF-8.
        contexts: address -> the context itself, or a document with the key ``@context``.
        limits: the depth is checked before and after.

    Raises:
        UnsafeInputError: nested too deep, or a remote context that is not given.
        ParseError: no JSON, or a name with a space or another sign that names do not have.
    """
    nesting(data, limits.depth)
    try:
        document = json.loads(data.decode(), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ParseError(f"{error.msg} (line {error.lineno})", error.lineno, error.colno) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ParseError(f"not UTF-8 (line {line})", line) from error
    except ValueError as error:  # a number of thousands of digits
        raise ParseError(f"{str(error).split(';')[0]}") from error
    changed = _replace(document, {address: _whole(address, given) for address, given in (contexts or {}).items()})
    terms = {"@id", *_names(document)}
    for key, value in _entries(document):
        for name in value if isinstance(value, list) else [value]:
            if key in terms and isinstance(name, str) and _NOT_IN_NAMES.search(name):
                raise ParseError(f"{name[:80]!r} under {key!r} is not an IRI")
    if not changed:
        return data
    ready = json.dumps(document, ensure_ascii=False).encode()
    nesting(ready, limits.depth)
    return ready


def _no_constant(name: str) -> None:
    raise ParseError(f"{name} is not JSON")


def _whole(address: str, given: Any) -> list[Any]:
    """A given context as a list of its parts, none of which is an address.

    Raises:
        UnsafeInputError: it names another remote context.
    """
    context = given["@context"] if isinstance(given, Mapping) and "@context" in given else given
    parts: list[Any] = json.loads(json.dumps(context if isinstance(context, list) else [context]))
    inner = [value for key, value in _entries(parts) if key in ("@context", "@import")]
    if any(isinstance(part, str) for part in parts) or any(isinstance(value, (str, list)) for value in inner):
        raise UnsafeInputError(f"contexts[{address[:200]!r}] names another context; give it whole")
    return parts


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at every depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _replace(value: Any, given: Mapping[str, list[Any]]) -> bool:
    """Put the given contexts in place of their addresses, everywhere in a document; whether it changed."""
    changed = False
    if isinstance(value, dict):
        if "@import" in value:
            raise UnsafeInputError(f"@import of {str(value['@import'])[:200]!r} is not followed")
        context = value.get("@context")
        parts = context if isinstance(context, list) else [context]
        if any(isinstance(part, str) for part in parts):
            missing = [part for part in parts if isinstance(part, str) and part not in given]
            if missing:
                raise UnsafeInputError(f"the remote context {missing[0][:200]!r} is not fetched; contexts= takes it")
            value["@context"] = [x for part in parts for x in (given[part] if isinstance(part, str) else [part])]
            changed = True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    # a list, because all have to be visited
    return any([changed, *(_replace(each, given) for each in inner)])


def _names(document: Any) -> Iterator[str]:
    """Keys whose values are names, as far as the contexts of the document say."""
    for key, context in _entries(document):
        if key == "@context":
            for term, meaning in _entries(context):
                inner = meaning if isinstance(meaning, dict) else {"@id": meaning}
                if inner.get("@id") == "@id" or inner.get("@type") == "@id":
                    yield term

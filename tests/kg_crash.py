"""Input that ends an interpreter whose parser sees it: run by a process of its own, which has to come back."""

from __future__ import annotations

import sys

from hetgraph.kg import KnowledgeError, TripleStore, load_kg


def document(kind: str, depth: int) -> tuple[bytes, str]:
    """A source nested so deep, and its format."""
    if kind == "json":
        return b'{"@id":"u:a","u:p":' * depth + b'"x"' + b"}" * depth, "jsonld"
    if kind == "context":
        return b'{"@context":' + b'{"p":{"@id":"u:p","@context":' * depth + b"{}" + b"}}" * depth + b"}", "jsonld"
    nested = b"<u:a> <u:p> " + b"<<( <u:a> <u:p> " * depth + b"<u:o>" + b" )>>" * depth + b" .\n"
    return nested, {"lines": "nt", "turtle": "ttl"}[kind]


def outcome(kind: str) -> str:
    """What comes of one kind of input."""
    try:
        if kind == "nested query":
            TripleStore().query("ASK " + "{" * 3000 + "}" * 3000)
        elif kind == "long query":
            # no nesting to be seen: only the child process ends
            answer = TripleStore().query("ASK {" + "OPTIONAL{?a ?b ?c}" * 3000 + "}", timeout=5)
            return f"answered {answer}"
        else:
            data, form = document(kind, 50_000)
            load_kg(data, format=form)
    except KnowledgeError as error:
        return type(error).__name__
    return "read"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, outcome(name), sep=": ", flush=True)

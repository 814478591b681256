"""What goes wrong with knowledge graphs, one class for each thing a caller may want to tell apart."""

from __future__ import annotations

from ..errors import HetgraphError


class KnowledgeError(HetgraphError):
    """Anything wrong with a knowledge graph, its files, a query or an endpoint."""


class ParseError(KnowledgeError):
    """A file does not follow its format.

    Attributes:
        line, column: where, counted from 1; ``None`` if the format has none.
    """

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line, self.column = line, column


class UnsafeInputError(KnowledgeError):
    """Input that could crash the interpreter, blow up memory or reach for the network: refused unread."""


class LiteralTooLarge(KnowledgeError):
    """A literal is longer than ``Limits.literal`` allows."""


class QueryError(KnowledgeError):
    """A query is malformed, too large, not allowed, or broke the engine."""


class QueryTimeout(QueryError):
    """A query took longer than allowed and was ended."""


class EndpointError(KnowledgeError):
    """Anything wrong between here and a SPARQL endpoint."""


class EndpointUnavailable(EndpointError):
    """Nobody answers, or the server says that it cannot now (429, 502, 503, 504); also after all retries."""


class EndpointTimeout(EndpointError):
    """The answer was not complete in time."""


class EndpointQueryError(EndpointError):
    """The server refused or failed at the query.

    Attributes:
        status: of HTTP.
        body: the beginning of what the server said.
    """

    def __init__(self, message: str, status: int, body: str) -> None:
        super().__init__(message)
        self.status, self.body = status, body


class ResponseTooLarge(EndpointError):
    """The answer has more bytes than allowed."""


class EmptyGraphWarning(UserWarning):
    """A source was read without fault and holds no statement."""

"""A SPARQL endpoint that the caller names: timeouts that hold, retries, bounded answers, clear errors."""

from __future__ import annotations

import http.client
import random
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import pyoxigraph as ox

from .csr import KnowledgeGraph
from .errors import (
    EndpointError,
    EndpointQueryError,
    EndpointTimeout,
    EndpointUnavailable,
    KnowledgeError,
    QueryError,
    ResponseTooLarge,
    UnsafeInputError,
)
from .load import Collected
from .parsing import statements
from .sparql import bound, check, term, terms, values
from .store import Table, read_result
from .streams import nesting

_RESULTS, _TRIPLES = "application/sparql-results+json", "application/n-triples"
_BUSY = (429, 502, 503, 504)
_PIECE = 1 << 16


class SparqlEndpoint:
    """Asks one server; reaches for no other address, not even if that server says so.

    Args:
        url: http or https.
        timeout: seconds for a whole answer, with all retries.
        retries: how often to ask again when nobody answers or the server is busy; the pauses double.
        pause: seconds before the first retry.
        max_bytes: of an answer.
        headers: to send along, for example an authorization.

    Raises:
        EndpointError: no such kind of address.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        retries: int = 2,
        pause: float = 0.25,
        max_bytes: int = 1 << 26,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EndpointError(f"an endpoint is an http or https address, got {url!r}")
        if not timeout > 0 or retries < 0 or pause < 0 or max_bytes < 1:
            raise EndpointError(
                f"timeout and max_bytes must be positive, retries and pause not negative; got {timeout}, {max_bytes}, "
                f"{retries}, {pause}"
            )
        self.url, self.timeout, self.retries, self.pause, self.max_bytes = url, timeout, retries, pause, max_bytes
        self._headers = {"User-Agent": "hetgraph", **(headers or {})}
        self._opener = urllib.request.build_opener(_Stay)

    def query(
        self, query: str, *, bindings: Mapping[str, Any] | None = None, max_rows: int = 10_000
    ) -> Table | bool | list[Any]:
        """Ask. Bindings become values at the beginning of the outermost group; the rest is as for ``TripleStore``.

        Raises:
            EndpointUnavailable, EndpointTimeout, EndpointQueryError, ResponseTooLarge: what their names say.
            EndpointError: an answer that is none.
            QueryError: the query is refused here.
        """
        given = terms(bindings or {}, check(query, local=False))
        return self._ask(bound(query, given), max_rows)

    def neighbours(
        self,
        entities: Iterable[str],
        *,
        direction: str = "both",
        relations: Sequence[str] | None = None,
        batch: int = 100,
        max_rows: int = 10_000,
    ) -> list[tuple[Any, Any, Any]]:
        """The statements that entities have part in, asked for in batches.

        Args:
            entities: IRIs.
            direction: "out" (they are the subject), "in" (the object) or "both".
            relations: only these.
            batch: entities of one request.
            max_rows: of one request.

        Returns:
            Subject, predicate and object as RDF terms, each statement once, in the order of the answers.

        Raises:
            EndpointError: as :meth:`query`, and for an answer that was cut off at ``max_rows``.
        """
        if direction not in ("out", "in", "both") or batch < 1:
            raise QueryError(f"direction must be out, in or both and batch positive, got {direction!r} and {batch}")
        nodes = [term(entity) for entity in dict.fromkeys(entities)]
        kinds = "" if relations is None else values(["p"], [[term(relation)] for relation in relations])
        found: dict[tuple[Any, Any, Any], None] = {}
        for first in range(0, len(nodes), batch):
            rows = [[node] for node in nodes[first : first + batch]]
            for end in ("s", "o") if direction == "both" else ("s",) if direction == "out" else ("o",):
                text = f"SELECT ?s ?p ?o {{ {values([end], rows)} {kinds} ?s ?p ?o }}"
                answer = self._ask(text, max_rows)
                if not isinstance(answer, Table) or set(answer.variables) != {"s", "p", "o"}:
                    raise EndpointError(f"{self.url}: expected rows of s, p and o")
                if answer.truncated:
                    raise ResponseTooLarge(f"{self.url}: over {max_rows} neighbours of {len(rows)} entities")
                found |= dict.fromkeys((row["s"], row["p"], row["o"]) for row in answer)
        return list(found)

    def graph(self, seeds: Iterable[str], hops: int = 1, **options: Any) -> KnowledgeGraph:
        """The statements within some hops of the seeds as a graph; options as for :meth:`neighbours`."""
        ring, known = list(dict.fromkeys(seeds)), set[str]()
        collected = Collected()
        for _ in range(hops):
            known |= set(ring)
            triples = self.neighbours(ring, **options)
            collected.add(ox.Quad(*triple) for triple in triples)
            ends = (end for s, _, o in triples for end in (s, o) if isinstance(end, ox.NamedNode))
            ring = [name for name in dict.fromkeys(end.value for end in ends) if name not in known]
            if not ring:
                break
        return collected.finish()

    def _ask(self, query: str, max_rows: int) -> Table | bool | list[Any]:
        body = self._fetch(query)
        try:
            if body.lstrip()[:1] == b"{":
                # the parser of results recurses as others do
                nesting(body, 32)
                return read_result(ox.parse_query_results(body, format=ox.QueryResultsFormat.JSON), max_rows)
            quads = statements(body, format="nt")
            return [quad.triple for quad, _ in zip(quads, range(max_rows), strict=False)]
        except (SyntaxError, ValueError, UnsafeInputError, KnowledgeError) as error:
            raise EndpointError(f"{self.url}: the answer is neither results in JSON nor N-Triples ({error})") from error

    def _fetch(self, query: str) -> bytes:
        end = time.monotonic() + self.timeout
        for attempt in range(self.retries + 1):
            try:
                return self._post(query, end)
            except EndpointUnavailable as error:
                # apart from each other, or all clients come back at the same moment
                wait = self.pause * 2**attempt * (1 + random.random() / 4)
                if attempt == self.retries:
                    raise EndpointUnavailable(f"{error} (asked {attempt + 1} times)") from error
                if time.monotonic() + wait >= end:
                    raise EndpointTimeout(f"{error}; no time is left to ask again") from error
                time.sleep(wait)
        raise AssertionError("the last attempt answers or raises")

    def _post(self, query: str, end: float) -> bytes:
        data = urlencode({"query": query}).encode()
        accept = {"Accept": f"{_RESULTS}, {_TRIPLES};q=0.9", "Content-Type": "application/x-www-form-urlencoded"}
        request = urllib.request.Request(self.url, data, {**self._headers, **accept})
        try:
            with self._opener.open(request, timeout=self._left(end)) as response:
                return b"".join(self._pieces(response, end))
        except urllib.error.HTTPError as error:
            with error:
                body = error.read(2000).decode(errors="replace").strip()
            if error.code in _BUSY:
                raise EndpointUnavailable(f"{self.url}: HTTP {error.code} {body[:200]}") from error
            raise EndpointQueryError(f"{self.url}: HTTP {error.code} {body[:500]}", error.code, body) from error
        except TimeoutError as error:
            raise EndpointTimeout(f"{self.url}: no answer within {self.timeout:g} s") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise EndpointTimeout(f"{self.url}: no answer within {self.timeout:g} s") from error
            raise EndpointUnavailable(f"{self.url}: {error.reason}") from error
        except (http.client.HTTPException, OSError) as error:
            raise EndpointUnavailable(
                f"{self.url}: the connection broke off ({error or type(error).__name__})"
            ) from error

    def _left(self, end: float) -> float:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _pieces(self, response: Any, end: float) -> Iterator[bytes]:
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > self.max_bytes:
            raise ResponseTooLarge(f"{self.url}: {length} bytes, {self.max_bytes} are allowed")
        total = 0
        # a server that sends a byte now and then keeps every single wait short
        while piece := response.read1(_PIECE):
            total += len(piece)
            if total > self.max_bytes:
                raise ResponseTooLarge(f"{self.url}: over {self.max_bytes} bytes")
            yield piece
            _wait_at_most(response, self._left(end))
        if length.isdigit() and total < int(length):
            raise EndpointUnavailable(f"{self.url}: the connection broke off after {total} of {length} bytes")


def _wait_at_most(response: Any, seconds: float) -> None:
    """Shorten the socket's own timeout; a response that is complete has no socket any more."""
    raw = getattr(getattr(response, "fp", None), "raw", None)
    if isinstance(inner := getattr(raw, "_sock", None), socket.socket):
        inner.settimeout(seconds)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it would send the query, and the headers, to an address that nobody named."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        raise EndpointError(f"{req.full_url}: redirects to {newurl}; name that address if you trust it")

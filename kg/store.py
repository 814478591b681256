"""A store to ask with SPARQL, in memory or in a folder: pyoxigraph, kept on a leash.

A query runs in a child process that can be ended: the engine has no timeout of its own, some queries of a few
kilobytes keep it busy for hours and others end the interpreter. The child is a copy of this process (``fork``), so it
sees the store as it is and costs a few milliseconds.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyoxigraph as ox

from .csr import KnowledgeGraph
from .errors import KnowledgeError, QueryError, QueryTimeout
from .load import Collected
from .parsing import Source, named, statements
from .sparql import bound, check, terms
from .streams import Limits

Term = Any
"""``pyoxigraph.NamedNode``, ``BlankNode`` or ``Literal``."""
BEGUN = 1.0
"""Seconds that a child has for its first look at the store; the next one has twice as many."""


@dataclass(frozen=True)
class Table:
    """What a SELECT query found.

    Attributes:
        variables: the columns.
        rows: a term or ``None`` for each column.
        truncated: there would have been more rows.
    """

    variables: tuple[str, ...]
    rows: list[tuple[Term | None, ...]]
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Term | None]]:
        """Each row as a dictionary."""
        return (dict(zip(self.variables, row, strict=True)) for row in self.rows)


class TripleStore:
    """RDF statements that can be asked with SPARQL.

    Args:
        folder: where they are kept; ``None`` keeps them in memory.
        read_only: open a folder that another process may have open too.

    Raises:
        KnowledgeError: the folder cannot be opened, for example because another process writes to it.
    """

    def __init__(self, folder: str | Path | None = None, *, read_only: bool = False) -> None:
        if read_only and folder is None:
            raise KnowledgeError("a store that is only read needs a folder")
        self._lock = threading.Lock()
        try:
            if read_only:
                self._store = ox.Store.read_only(str(folder))
            else:
                self._store = ox.Store() if folder is None else ox.Store(str(folder))
        except OSError as error:
            raise KnowledgeError(f"{folder}: {error}") from error

    def __len__(self) -> int:
        return len(self._store)

    def __reduce__(self) -> Any:
        raise KnowledgeError("a store cannot be pickled; give processes the arrays of store.graph() instead")

    def load(
        self,
        source: Source,
        *,
        format: str | None = None,
        base: str | None = None,
        limits: Limits | None = None,
        contexts: Mapping[str, Any] | None = None,
    ) -> int:
        """Add the statements of a source, all or none; how many are new. Arguments as for ``load_kg``.

        Raises:
            KnowledgeError: as ``load_kg``; the store is as it was before.
        """
        quads = statements(source, format=format, base=base, limits=limits, contexts=contexts)
        with self._lock:
            before = len(self._store)
            try:
                self._store.extend(_renamed(quads))
            except (OSError, RuntimeError) as error:  # a full disk, or a store that is only read
                raise KnowledgeError(f"{named(source)}: {error}") from error
            return len(self._store) - before

    def graph(self) -> KnowledgeGraph:
        """All statements as arrays; named graphs are merged."""
        collected = Collected()
        collected.add(self._store)
        return collected.finish()

    def query(
        self,
        query: str,
        *,
        bindings: Mapping[str, Any] | None = None,
        timeout: float | None = 30.0,
        max_rows: int = 10_000,
        memory: int = 1 << 31,
    ) -> Table | bool | list[Any]:
        """Ask; patterns outside of GRAPH see the statements of all graphs.

        Args:
            query: SPARQL 1.1 without SERVICE, LOAD and FROM.
            bindings: variable -> value, the only safe way for values from outside: a string is an IRI, numbers are
                literals, texts are ``pyoxigraph.Literal``. They become values at the beginning of the outermost group.
            timeout: seconds until the query is ended. ``None`` runs it in this very process, where nothing can
                end it and some queries end the interpreter: only for queries that you wrote.
            max_rows: of the answer, at most.
            memory: bytes that the query may take on top (Linux).

        Returns:
            A :class:`Table` for SELECT, a truth value for ASK, a list of triples for CONSTRUCT and DESCRIBE.

        Raises:
            QueryTimeout: it took too long.
            QueryError: malformed, not allowed, or too much for the engine.
        """
        given = terms(bindings or {}, check(query))
        if max_rows < 0 or (timeout is not None and not timeout > 0):
            raise QueryError(f"max_rows must be >= 0 and timeout > 0, got {max_rows} and {timeout}")
        text = bound(query, given)
        if timeout is None:
            return _answer(self._store, text, max_rows)
        if "fork" not in multiprocessing.get_all_start_methods():
            raise QueryError("a timeout needs a system with fork; timeout=None runs the query without")
        if multiprocessing.current_process().daemon:
            raise QueryError("a timeout needs a child, which workers may not have; timeout=None runs the query without")
        return self._ask_child(text, timeout, max_rows, memory)

    def _ask_child(self, query: str, timeout: float, max_rows: int, memory: int) -> Any:
        end = time.monotonic() + timeout
        patience = BEGUN
        # threads of the engine that tidy up a folder may hold a lock while the process is copied, which in the copy
        # nobody gives back: a child that does not get as far as reading one statement is ended, and another is made
        while (left := end - time.monotonic()) > 0:
            child, here = self._fork(query, max_rows, memory)
            try:
                if not here.poll(min(patience, left)):
                    patience *= 2
                    continue
                here.recv()
                if not here.poll(max(0.0, end - time.monotonic())):
                    break
                kind, value = here.recv()
            except EOFError:
                child.join()
                raise QueryError(
                    f"the query was too much for the engine (exit code {child.exitcode}): too much memory or nesting"
                ) from None
            finally:
                here.close()
                child.kill()
                child.join()
            if kind == "error":
                raise QueryError(value)
            return value
        raise QueryTimeout(f"the query took more than {timeout:g} s and was ended")

    def _fork(self, query: str, max_rows: int, memory: int) -> tuple[Any, Any]:
        """A child that answers, and this end of the pipe that it first says into that it has begun."""
        context = multiprocessing.get_context("fork")
        # nobody writes while the process is copied, and no other child gets hold of this one's end of the pipe
        with self._lock:
            here, there = context.Pipe(duplex=False)
            arguments = (self._store, query, max_rows, memory, there, here)
            child = context.Process(target=_child, args=arguments, daemon=True)
            try:
                child.start()
            except OSError as error:
                here.close()
                raise QueryError(f"no process for the query: {error}") from error
            finally:
                there.close()
        return child, here

    def optimize(self) -> None:
        """Compact the files of a folder."""
        with self._lock:
            self._store.optimize()


def _child(store: Any, query: str, max_rows: int, memory: int, there: Any, here: Any) -> None:
    here.close()
    # an engine that dies says so itself; what it would print helps nobody
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # where a copied lock is held this hangs, and nothing is said
    next(store.quads_for_pattern(None, None, None, None), None)
    there.send("begun")
    _limit_memory(memory)
    answer: tuple[str, Any]
    try:
        answer = ("answer", _answer(store, query, max_rows))
    except QueryError as error:
        answer = ("error", str(error))
    except MemoryError:
        return
    there.send(answer)


def _limit_memory(memory: int) -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):  # no limit where the system has none
        return
    most = pages * resource.getpagesize() + memory
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(store: Any, query: str, max_rows: int) -> Table | bool | list[Any]:
    try:
        result = store.query(query, use_default_graph_as_union=True)
        return read_result(result, max_rows)
    except (SyntaxError, ValueError, OSError, RuntimeError) as error:
        raise QueryError(f"{getattr(error, 'msg', None) or error}") from error


def read_result(result: Any, max_rows: int) -> Table | bool | list[Any]:
    """What pyoxigraph gives as an answer, as far as ``max_rows``."""
    if isinstance(result, ox.QueryBoolean):
        return bool(result)
    if not isinstance(result, ox.QuerySolutions):
        return [triple for triple, _ in zip(result, range(max_rows), strict=False)]
    variables = tuple(variable.value for variable in result.variables)
    rows: list[tuple[Any, ...]] = []
    for row in result:
        if len(rows) == max_rows:
            return Table(variables, rows, truncated=True)
        rows.append(tuple(row))
    return Table(variables, rows)


def _renamed(quads: Iterator[Any]) -> Iterator[Any]:
    """Quads with new blank nodes: a name in one file means another node than the same name in another."""
    fresh: dict[str, Any] = {}

    def other(node: Any) -> Any:
        return fresh.setdefault(node.value, ox.BlankNode()) if isinstance(node, ox.BlankNode) else node

    for quad in quads:
        subject, value, graph = other(quad.subject), other(quad.object), other(quad.graph_name)
        yield ox.Quad(subject, quad.predicate, value, graph)

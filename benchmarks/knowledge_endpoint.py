"""The part of ``benchmarks.knowledge_graph`` that needs a server: neighbours of many entities in one call."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hetgraph.errors import HetgraphError
from hetgraph.kg import SparqlEndpoint

from .common import Setting
from .standard import alternate, summary

TOGETHER, ALONE = "hetgraph, one call", "one by one"
ASKED = 100
START_SECONDS = 60.0


@contextmanager
def server(triples: Path) -> Iterator[SparqlEndpoint]:
    """An Oxigraph server on the loopback interface with the triples of a file in it.

    Raises:
        HetgraphError: the program ``oxigraph`` is not installed, or the server does not start.
    """
    beside = Path(sys.executable).with_name("oxigraph")
    program = str(beside) if beside.exists() else shutil.which("oxigraph")
    if program is None:
        raise HetgraphError("the oxigraph server is not installed: pip install 'hetgraph[test]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = subprocess.DEVNULL
    running = subprocess.Popen([program, "serve", "--bind", f"127.0.0.1:{port}"], stdout=quiet, stderr=quiet)
    try:
        content = {"Content-Type": "application/n-triples"}
        url = f"http://127.0.0.1:{port}/store?default"
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                request = urllib.request.Request(url, triples.read_bytes(), content, method="POST")
                urllib.request.urlopen(request, timeout=START_SECONDS).close()
                break
            except urllib.error.HTTPError:
                raise
            except OSError as error:
                if time.monotonic() > end or running.poll() is not None:
                    raise HetgraphError(f"the oxigraph server did not start: {error}") from error
                time.sleep(0.05)
        yield SparqlEndpoint(f"http://127.0.0.1:{port}/query", timeout=60)
    finally:
        running.kill()
        running.wait()


def looking_up(triples: Path, lines: int, rounds: int) -> Setting:
    """Milliseconds to get the neighbours of 100 entities."""
    names = [f"http://example.org/entity/{i}" for i in range(ASKED)]
    with server(triples) as endpoint:

        def alone() -> list[object]:
            return [triple for name in names for triple in endpoint.neighbours([name])]

        # a statement between two of the entities is a neighbour of both
        if set(map(str, alone())) != set(map(str, endpoint.neighbours(names))):
            raise AssertionError("one call finds other neighbours than many")
        measured = alternate({ALONE: alone, TOGETHER: lambda: endpoint.neighbours(names)}, rounds)
    sizes = {"lines": lines, "entities asked for": ASKED}
    values = {"neighbours": {name: summary(found) for name, found in measured.items()}}
    return Setting("endpoint on loopback", "ms", sizes, TOGETHER, {ALONE: ALONE}, values)

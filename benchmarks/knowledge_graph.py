"""How long does loading a knowledge graph take, cutting out what lies around five seeds, and linking a text?

Loading: a file of N-Triples with 150,000 entities and 50 relations, by rdflib and by ``load_kg``; seconds in this
process, and in fresh processes how far resident memory rises (see :mod:`benchmarks.memory`).

Cutting: a graph with heads drawn evenly and tails drawn so that some are in ten thousand arcs. Two hops in both
directions, with the arcs between what was found: PyG's ``k_hop_subgraph`` takes all, ours at most 200 entities.
Personalised PageRank, best 200: SciPy's sparse product in ten power iterations, ours by push. Every round has
other seeds.

Linking: 100,000 names of one to four made-up words, and texts of twelve words, a third of them with a word that has an
accent. The peer is a plain dictionary in which every run of words is looked up, the longest first.

Asking: an Oxigraph server on this machine for the neighbours of 100 entities, in one call and one by one.

Before anything is timed: both libraries read the same triples; without a limit ours cuts out exactly what PyG does; the
scores of push are below those of 200 power iterations by at most eps times the degree; numba and numpy agree in
every bit; of every text the names that are found are those of the longest matches by brute force.

    python -m benchmarks.knowledge_graph --json FILE [--quick]
"""

from __future__ import annotations

import random
import re
import string
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hetgraph.kg import AliasLinker, KHopRetriever, KnowledgeGraph, PPRRetriever, load_kg

from .common import Setting, arguments, finish
from .knowledge_endpoint import looking_up
from .memory import in_fresh_process, peak_bytes
from .standard import alternate, summary

OURS, NUMPY, RDFLIB, PYG, SCIPY = "hetgraph", "hetgraph, numpy", "rdflib", "PyG", "SciPy"
SEEDS, MOST, RELATIONS = 5, 200, 50
ALPHA, EPS = 0.15, 1e-4
PLAIN = "plain dictionary"
TEXT_WORDS, LONGEST = 12, 4
Mention = tuple[int, int, int]


def write_triples(path: Path, entities: int, lines: int) -> None:
    """A file of random N-Triples, a few of them twice."""
    generator = np.random.default_rng(0)
    columns = (generator.integers(0, n, lines).tolist() for n in (entities, RELATIONS, entities))
    with path.open("w") as file:
        file.writelines(
            f"<http://example.org/entity/{h}> <http://example.org/relation/{r}> <http://example.org/entity/{t}> .\n"
            for h, r, t in zip(*columns, strict=True)
        )


def read(library: str, path: str) -> Any:
    """A file as a graph of a library."""
    if library == OURS:
        return load_kg(path)
    import rdflib

    return rdflib.Graph().parse(path, format="nt")


def peak(library: str, path: str, warm: str) -> int:
    """Bytes that reading takes; called in a process of its own, which has read a small file before."""
    read(library, warm)
    kept = []
    return peak_bytes(lambda: kept.append(read(library, path)))


def check_loaded(path: Path) -> None:
    """Raises AssertionError: the libraries read other triples."""
    ours, theirs = read(OURS, str(path)), read(RDFLIB, str(path))
    found, expected = set(ours.arcs()), {tuple(map(str, triple)) for triple in theirs}
    if found != expected or len(ours) != len(expected):
        raise AssertionError(f"{len(ours)} arcs, rdflib has {len(expected)}")


def loading(entities: int, lines: int, rounds: int, folder: Path) -> list[Setting]:
    """Seconds and megabytes of reading a file."""
    small, large = folder / "small.nt", folder / "large.nt"
    write_triples(small, 1_000, 5_000)
    write_triples(large, entities, lines)
    check_loaded(small)
    names = (RDFLIB, OURS)
    sizes: dict[str, int] = {}

    def timed(name: str) -> Callable[[], None]:
        def run() -> None:
            sizes[name] = len(read(name, str(large)))

        return run

    seconds = alternate({name: timed(name) for name in names}, rounds, warmup=0)
    if len(set(sizes.values())) != 1:
        raise AssertionError(f"different numbers of triples: {sizes}")
    bytes_of = {n: float(in_fresh_process("benchmarks.knowledge_graph:peak", n, str(large), str(small))) for n in names}
    took = {name: summary(found, 1.0) for name, found in seconds.items()}
    held = {name: summary([found], 1e-6) for name, found in bytes_of.items()}
    measured, peers = {"lines": lines, "entities": entities, "relations": RELATIONS}, {RDFLIB: RDFLIB}
    return [
        Setting("loading N-Triples", "s", measured, OURS, peers, {"time": took}),
        Setting("loading N-Triples", "MB", measured, OURS, peers, {"memory": held}),
    ]


def random_graph(entities: int, arcs: int) -> KnowledgeGraph:
    """Heads drawn evenly, tails by the square of an even number."""
    generator = np.random.default_rng(1)
    heads = generator.integers(0, entities, arcs)
    tails = (entities * generator.random(arcs) ** 2).astype(np.int64)
    names = [f"http://example.org/entity/{i:08}" for i in range(entities)]
    kinds = [f"http://example.org/relation/{i:02}" for i in range(RELATIONS)]
    return KnowledgeGraph.from_arcs(heads, generator.integers(0, RELATIONS, arcs), tails, names, kinds)


def both_ways(graph: KnowledgeGraph) -> np.ndarray:
    """Every arc in both directions, int64 ``[2, 2E]``."""
    ends = np.stack([graph.heads, graph.out.nodes]).astype(np.int64)
    return np.concatenate([ends, ends[::-1]], axis=1)


def seed_sets(entities: int, count: int) -> list[list[int]]:
    generator = np.random.default_rng(2)
    return [generator.choice(entities, SEEDS, replace=False).tolist() for _ in range(count)]


def same(one: Any, other: Any) -> bool:
    return all(
        np.array_equal(getattr(one, k), getattr(other, k)) for k in ("nodes", "edge_index", "edge_type", "score")
    )


def hops(graph: KnowledgeGraph, sets: list[list[int]], rounds: int) -> Setting:
    """Milliseconds of two hops around the seeds."""
    from torch_geometric.utils import k_hop_subgraph

    edges = torch.from_numpy(both_ways(graph))
    ours = KHopRetriever(hops=2, max_nodes=MOST)

    def theirs(seeds: list[int]) -> Any:
        return k_hop_subgraph(seeds, 2, edges, relabel_nodes=True, num_nodes=graph.num_entities)

    for seeds in sets[:2]:
        nodes, inner, *_ = theirs(seeds)
        whole = replace(ours, max_nodes=graph.num_entities, hub=None)(graph, seeds)
        capped = ours(graph, seeds)
        # theirs has every arc twice
        if set(whole.nodes.tolist()) != set(nodes.tolist()) or 2 * len(whole.edge_type) != inner.shape[1]:
            raise AssertionError(
                f"{len(whole)} entities and {len(whole.edge_type)} arcs, PyG has {len(nodes)}, {inner.shape}"
            )
        if len(capped) != min(MOST, len(nodes)) or not set(capped.nodes.tolist()) <= set(nodes.tolist()):
            raise AssertionError(f"{len(capped)} entities, of which PyG does not find all")
        if not same(capped, replace(ours, backend="numpy")(graph, seeds)):
            raise AssertionError("numba and numpy differ")
    candidates = {PYG: theirs, OURS: lambda s: ours(graph, s), NUMPY: _bind(replace(ours, backend="numpy"), graph)}
    return _setting("two hops", graph, candidates, {PYG: PYG}, sets, rounds)


def pagerank(graph: KnowledgeGraph, sets: list[list[int]], rounds: int) -> Setting:
    """Milliseconds of the best entities by personalised PageRank."""
    from scipy.sparse import csr_array

    n = graph.num_entities
    degree = graph.degree()
    sources, targets = both_ways(graph)
    walk = csr_array((1.0 / degree[sources], (targets, sources)), shape=(n, n))
    alone = np.flatnonzero(degree == 0)
    ours = PPRRetriever(alpha=ALPHA, eps=EPS, max_nodes=MOST, hub=None)

    def scores(seeds: list[int], iterations: int) -> np.ndarray:
        start = np.zeros(n)
        start[seeds] = 1 / len(seeds)
        found = start
        for _ in range(iterations):
            stays = found[alone]
            found = ALPHA * start + (1 - ALPHA) * (walk @ found)
            found[alone] += (1 - ALPHA) * stays
        return found

    def theirs(seeds: list[int]) -> np.ndarray:
        found = scores(seeds, 10)
        best = np.argpartition(-found, MOST)[:MOST]
        return best[np.argsort(-found[best])]

    for seeds in sets[:2]:
        nodes, found = ours.scores(graph, seeds)
        exact = scores(seeds, 200)
        approximate = np.zeros(n)
        approximate[nodes] = found
        # what 200 iterations leave open is below 1e-14
        if not ((approximate <= exact + 1e-12) & (exact - approximate <= EPS * degree + 1e-12)).all():
            raise AssertionError(f"scores differ by up to {np.abs(exact - approximate).max():.2e}")
        if not same(ours(graph, seeds), replace(ours, backend="numpy")(graph, seeds)):
            raise AssertionError("numba and numpy differ")
    candidates = {SCIPY: theirs, OURS: lambda s: ours(graph, s), NUMPY: _bind(replace(ours, backend="numpy"), graph)}
    return _setting("personalised PageRank", graph, candidates, {SCIPY: SCIPY}, sets, rounds)


def names_and_texts(names: int, texts: int) -> tuple[list[str], list[str]]:
    """Names, and texts like the glosses of a dictionary: words by Zipf's law, every fifth place a name."""
    generator = random.Random(3)
    vocabulary = ["".join(generator.choices(string.ascii_lowercase, k=generator.randint(3, 10))) for _ in range(names)]
    frequent = list(accumulate(1 / (i + 10) for i in range(len(vocabulary))))
    distinct: dict[str, None] = {}
    while len(distinct) < names:
        length = generator.choices(range(1, LONGEST + 1), [50, 38, 9, 3])[0]
        weights = None if length == 1 else frequent
        distinct[" ".join(generator.choices(vocabulary, cum_weights=weights, k=length))] = None
    known = list(distinct)
    made = []
    for i in range(texts):
        words: list[str] = []
        while len(words) < TEXT_WORDS:
            some = generator.choice(known).split() if generator.random() < 0.2 else []
            words += some or generator.choices(vocabulary, cum_weights=frequent)
        words[TEXT_WORDS // 2] += "é" if i % 3 == 0 else ""
        made.append(" ".join(words[:TEXT_WORDS]).capitalize() + ".")
    return known, made


def longest_matches(known: dict[tuple[str, ...], int], text: str) -> list[Mention]:
    """By brute force, in words: every run from the longest to the shortest, at every word."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    found, at = [], 0
    while at < len(words):
        for length in range(min(LONGEST, len(words) - at), 0, -1):
            entity = known.get(tuple(words[at : at + length]))
            if entity is not None:
                found.append((at, at + length, entity))
                at += length
                break
        else:
            at += 1
    return found


def linking(names: int, texts: int, rounds: int) -> Setting:
    """Microseconds to link a text, on one core."""
    given, made = names_and_texts(names, texts)
    known = {tuple(name.split()): i for i, name in enumerate(given)}
    linker = AliasLinker((name, i) for i, name in enumerate(given))
    hits = 0
    for text in made:
        found = [(*link.nodes, link.entity) for link in linker.link(text)]
        expected = longest_matches(known, text)
        if found != expected:
            raise AssertionError(f"{text!r}: {found}, by brute force {expected}")
        hits += len(found)
    measured = alternate(
        {
            PLAIN: lambda: [longest_matches(known, text) for text in made],
            OURS: lambda: [linker.link(text) for text in made],
        },
        rounds,
    )
    sizes = {"names": names, "texts": texts, "words of a text": TEXT_WORDS, "links": hits}
    values = {"a text": {name: summary(found, 1e6 / texts) for name, found in measured.items()}}
    return Setting("linking", "µs", sizes, OURS, {PLAIN: PLAIN}, values)


def _bind(retriever: Any, graph: KnowledgeGraph) -> Callable[[list[int]], Any]:
    return lambda seeds: retriever(graph, seeds)


def _setting(
    label: str,
    graph: KnowledgeGraph,
    candidates: dict[str, Callable[[list[int]], Any]],
    peers: dict[str, str],
    sets: list[list[int]],
    rounds: int,
) -> Setting:
    def turn(run: Callable[[list[int]], Any]) -> Callable[[], object]:
        each = cycle(sets)
        return lambda: run(next(each))

    measured = alternate({name: turn(run) for name, run in candidates.items()}, rounds)
    sizes = {"entities": graph.num_entities, "arcs": len(graph), "seeds": SEEDS, "entities at most": MOST}
    values = {"subgraph": {name: summary(found) for name, found in measured.items()}}
    return Setting(label, "ms", sizes, OURS, peers, values)


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=20)
    entities, lines, nodes, arcs = (1_000, 5_000, 2_000, 20_000) if found.quick else (150_000, 10**6, 10**6, 10**7)
    settings: list[Setting] = []
    with tempfile.TemporaryDirectory() as folder:
        # a file is read for half a minute: a few rounds are enough
        settings += loading(entities, lines, min(found.rounds, 3), Path(folder))
        asked = Path(folder) / "asked.nt"
        write_triples(asked, entities, min(lines, 100_000))
        settings.append(looking_up(asked, min(lines, 100_000), min(found.rounds, 10)))
    graph = random_graph(nodes, arcs)
    sets = seed_sets(nodes, found.rounds + 1)
    settings += [hops(graph, sets, found.rounds), pagerank(graph, sets, found.rounds)]
    del graph
    names, texts = (1_000, 200) if found.quick else (100_000, 20_000)
    settings.append(linking(names, texts, min(found.rounds, 10)))
    finish("knowledge_graph", "Knowledge graphs", found, settings, [])


if __name__ == "__main__":
    main()

"""Index, mask, count and multiplicity agree for every primary form, and with brute force."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetgraph import rules
from hetgraph.edges import Counts, Edges

ragged = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5)
square = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)).map(lambda t: [t[1:]] * t[0])
sizes = st.one_of(ragged, square)
structures = st.sampled_from(
    [
        rules.all_pairs,
        rules.following,
        rules.window(1),
        rules.window(2, loops=False),
        rules.window(before=-1, after=3),
        rules.window(before=2, after=-2),
        rules.window(before=100, after=100),
        rules.window(0, loops=False),
    ]
)


def counts(sizes: list[tuple[int, int]], side: int) -> Counts:
    return Counts.of(torch.tensor([pair[side] for pair in sizes], dtype=torch.long))


def offsets(sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out, first = [], (0, 0)
    for s, d in sizes:
        out.append(first)
        first = first[0] + s, first[1] + d
    return out


def places(index: torch.Tensor, sizes: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(sample, source, destination) of every edge of an index, by search."""
    out = []
    for i, j in index.T.tolist():
        for b, ((s, d), (p, q)) in enumerate(zip(sizes, offsets(sizes), strict=True)):
            if p <= i < p + s:
                assert q <= j < q + d, "an edge crosses samples"
                out.append((b, i - p, j - q))
    return out


def agree(edges: Edges, sizes: list[tuple[int, int]], expected: list[tuple[int, int, int]]) -> None:
    """All forms say the expected edges, with repetition."""
    assert len(edges) == len(expected)
    assert edges.index.shape == (2, len(expected))
    assert edges.index.dtype == torch.int64
    assert sorted(places(edges.index, sizes)) == sorted(expected)
    shape = (len(sizes), max(s for s, _ in sizes), max(d for _, d in sizes))
    assert tuple(edges.mask.shape) == shape
    assert [tuple(cell) for cell in edges.mask.nonzero().tolist()] == sorted(set(expected))
    times = Counter(expected)
    if max(times.values(), default=0) > 1:
        assert edges.multiplicity is not None
        assert tuple(edges.multiplicity.shape) == shape
        assert {tuple(c): edges.multiplicity[tuple(c)].item() for c in edges.multiplicity.nonzero().tolist()} == times
    else:
        assert edges.multiplicity is None
    assert [
        (c // (shape[1] * shape[2]), c // shape[2] % shape[1], c % shape[2]) for c in edges.cell.tolist()
    ] == places(edges.index, sizes)
    for b in range(len(sizes)):
        inside, index = edges.of_sample(b)
        assert inside.tolist() == [e for e, place in enumerate(places(edges.index, sizes)) if place[0] == b]
        assert index.T.tolist() == [[i, j] for c, i, j in places(edges.index, sizes) if c == b]


@given(sizes, structures)
def test_structured_edges_agree_in_all_forms(sizes, structure) -> None:
    edges = Edges(counts(sizes, 0), counts(sizes, 1), structure=structure)
    expected = [
        (b, i, j)
        for b, (s, d) in enumerate(sizes)
        for i in range(s)
        for j in range(d)
        if bool(structure.connects(torch.tensor(i), torch.tensor(j)))
    ]
    agree(edges, sizes, expected)
    assert not edges.listed
    assert edges.features == {}
    assert edges.feature_matrix() is None


@given(sizes, st.integers(0, 2**31))
def test_masked_edges_agree_in_all_forms_and_carry_their_features(sizes, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    src, dst = counts(sizes, 0), counts(sizes, 1)
    mask = torch.rand(len(sizes), src.longest, dst.longest, generator=generator) < 0.5
    mask &= src.valid[:, :, None] & dst.valid[:, None, :]
    far = torch.rand(*mask.shape, 2, generator=generator)
    edges = Edges(src, dst, mask=mask, features={"far": far, "one": far[..., :1]})
    agree(edges, sizes, [tuple(cell) for cell in mask.nonzero().tolist()])
    assert not edges.listed
    expected = [far[place].tolist() for place in places(edges.index, sizes)]
    assert edges.features["far"].tolist() == expected
    assert edges.feature_matrix().shape == (len(edges), 3)
    assert edges.feature_matrix().tolist() == [[*row, row[0]] for row in expected]


@given(sizes, st.integers(0, 2**31))
def test_listed_edges_agree_in_all_forms_and_may_repeat(sizes, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for (s, d), (p, q) in zip(sizes, offsets(sizes), strict=True):
        for _ in range(int(torch.randint(0, 8, (1,), generator=generator)) if s and d else 0):
            i, j = (int(torch.randint(0, n, (1,), generator=generator)) for n in (s, d))
            pairs.append((p + i, q + j))
    index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    features = {"f": torch.arange(2 * len(pairs)).float().view(-1, 2)}
    edges = Edges(counts(sizes, 0), counts(sizes, 1), index=index, features=features)
    agree(edges, sizes, places(index, sizes))
    assert edges.listed
    assert edges.index is index
    assert torch.equal(edges.features["f"], features["f"])


@given(sizes)
def test_counts_pad_and_unpad(sizes) -> None:
    nodes = counts(sizes, 0)
    per_sample = [s for s, _ in sizes]
    assert nodes.total == sum(per_sample)
    assert nodes.longest == max(per_sample)
    assert nodes.batch.tolist() == [b for b, s in enumerate(per_sample) for _ in range(s)]
    assert nodes.place.tolist() == [i for s in per_sample for i in range(s)]
    assert nodes.offset.tolist() == [p for p, _ in offsets(sizes)]
    assert nodes.valid.tolist() == [[i < s for i in range(nodes.longest)] for s in per_sample]
    assert nodes.uniform == (len(set(per_sample)) == 1)
    packed = torch.rand(nodes.total, 3, requires_grad=True)
    padded = nodes.pad(packed)
    assert padded.shape == (len(sizes), nodes.longest, 3)
    for b, (s, _) in enumerate(sizes):
        first = offsets(sizes)[b][0]
        assert torch.equal(padded[b, :s], packed[first : first + s])
        assert not padded[b, s:].any()
    assert torch.equal(nodes.unpad(padded), packed)
    padded.sum().backward()
    assert torch.equal(packed.grad, torch.ones_like(packed))


def test_a_user_made_structure_goes_by_what_it_connects() -> None:
    class Dilated(rules.Window):
        def connects(self, i, j):
            return super().connects(i, j) & ((i - j) % 2 == 0)

    class Even(rules.Structure):
        def connects(self, i, j):
            return (i % 2 == 0) & (j >= 0)

    sizes = [(5, 5), (2, 3)]
    for structure in (Dilated(2, 2), Even()):
        expected = [
            (b, i, j)
            for b, (s, d) in enumerate(sizes)
            for i in range(s)
            for j in range(d)
            if bool(structure.connects(torch.tensor(i), torch.tensor(j)))
        ]
        agree(Edges(counts(sizes, 0), counts(sizes, 1), structure=structure), sizes, expected)


def test_edges_have_exactly_one_primary_form() -> None:
    one = counts([(1, 1)], 0)
    for forms in ({}, {"structure": rules.all_pairs, "index": torch.zeros(2, 0, dtype=torch.long)}):
        with pytest.raises(TypeError, match="exactly one"):
            Edges(one, one, **forms)


def test_counting_lists_nothing() -> None:
    many = Counts.of(torch.tensor([10**6, 10**6]))
    for structure, count in ((rules.all_pairs, 2 * 10**12), (rules.window(3), 2 * (7 * 10**6 - 12))):
        edges = Edges(many, many, structure=structure)
        assert len(edges) == count
        assert set(edges._made) == {"count"}

"""Shards give back what was written, sample by sample, to whoever takes a sequence of samples."""

from __future__ import annotations

import json
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load
from strategies import assert_same_graph, batches, schemas

from hetgraph import EdgeType, GraphBuilder, NodeType, Sample, Schema, rules
from hetgraph.errors import HetgraphError
from hetgraph.fusion import Fusion
from hetgraph.loader import GraphLoader
from hetgraph.objectives import Classification
from hetgraph.predictor import Predictor
from hetgraph.shards import Shards, write_index, write_shard
from hetgraph.training import TrainingSettings, fit

FACT = ("token", "fact", "token")
SCHEMA = Schema(
    [NodeType("region", 3, optional={"box": 4}), NodeType("token", 2)],
    [EdgeType("region", "with", "token"), EdgeType(*FACT, rule=rules.given, relations=("is", "has"))],
)


def samples() -> list[Sample]:
    torch.manual_seed(0)
    fact = {"index": [[0, 1], [1, 0]], "relation": torch.tensor([1, 0])}
    return [
        Sample(id="a", target="cat", region={"x": torch.randn(2, 3), "box": torch.rand(2, 4)}, token=torch.randn(2, 2)),
        Sample(id="b", target=["x", "y"], token=torch.randn(3, 2), edges={FACT: fact}),
        Sample(id="c", target=2.5),
        Sample(id="d", region=torch.randn(1, 3), token=torch.randn(2, 2), edges={FACT: {"index": [[], []]}}),
        Sample(id="e", target=1, region={"x": torch.zeros(0, 3), "box": torch.zeros(0, 4)}, token=torch.randn(1, 2)),
    ]


def put(
    folder: Path,
    parts: list[list[Sample]],
    schema: Schema = SCHEMA,
    splits: list | None = None,
    form: str = "safetensors",
) -> Path:
    names = [(f"shard-{k:05d}-of-{len(parts):05d}", len(part)) for k, part in enumerate(parts)]
    for k, ((name, _), part) in enumerate(zip(names, parts, strict=True)):
        write_shard(folder, name, part, None if splits is None else splits[k], form)
    write_index(folder, names, schema, form)
    return folder


def same(a: Sample, b: Sample) -> bool:
    parts = [(a.nodes, b.nodes), (a.edges, b.edges)]
    return (a.id, a.target) == (b.id, b.target) and all(
        mine.keys() == theirs.keys()
        and all(
            fields.keys() == theirs[key].keys() and all(torch.equal(v, theirs[key][n]) for n, v in fields.items())
            for key, fields in mine.items()
        )
        for mine, theirs in parts
    )


@pytest.mark.parametrize("sizes", [[5], [2, 3], [1, 1, 1, 1, 1]])
def test_samples_come_back_as_they_were_whatever_they_lack(tmp_path, sizes) -> None:
    given = samples()
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    shards = Shards(put(tmp_path, [given[a : a + n] for a, n in zip(starts, sizes, strict=True)]), empty=True)
    assert len(shards) == 5
    assert shards.schema == SCHEMA
    assert all(same(shards[i], given[i]) for i in (3, 0, 4, 1, 2, -1, -5))
    assert [s.id for s in shards[1:4]] == list(shards.ids)[1:4] == ["b", "c", "d"]
    with pytest.raises(IndexError):
        shards[5]


@pytest.mark.parametrize("sizes", [[5], [2, 3]])
def test_tar_files_hold_the_same_samples_as_webdataset_has_them(tmp_path, sizes) -> None:
    given = samples()
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    parts = [given[a : a + n] for a, n in zip(starts, sizes, strict=True)]
    marks = ["train", "test", None, "test", "train"]
    splits = [marks[a : a + n] for a, n in zip(starts, sizes, strict=True)]
    folder = put(tmp_path / "tar", parts, splits=splits, form="webdataset")
    plain = put(tmp_path / "plain", parts, splits=splits)
    for options in ({"empty": True}, {}, {"split": "test"}, {"split": "train", "empty": True}):
        found, expected = Shards(folder, **options), Shards(plain, **options)
        assert list(found.ids) == list(expected.ids)
        assert len(found) == len(expected) > 0
        assert all(same(one, other) for one, other in zip(found, expected, strict=True))
    assert found.schema == SCHEMA
    # what webdataset makes of a tar file: files of one key are one sample
    grouped: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                grouped.setdefault(f"{path.name} {key}", {})[suffix] = tar.extractfile(member).read()
    assert [json.loads(files["json"])["ids"][0] for files in grouped.values()] == ["a", "b", "c", "d", "e"]
    first = next(iter(grouped.values()))
    assert torch.equal(load(first["safetensors"])["node/region/x"], given[0].nodes["region"]["x"])
    again = put(tmp_path / "again", parts, splits=splits, form="webdataset")
    for path in folder.glob("*.tar"):
        assert path.read_bytes() == (again / path.name).read_bytes()
    put(folder, parts, splits=splits)
    assert not list(folder.glob("*.tar")), "shards of the other format are removed"
    assert len(pickle.dumps(Shards(again))) < 4000


def test_damaged_tar_files_are_refused_by_name(tmp_path) -> None:
    path = put(tmp_path, [samples()], form="webdataset") / "shard-00000-of-00001.tar"
    whole = path.read_bytes()
    for data in (
        b"",
        whole[:700],
        whole[:1024] + bytes(1024),
        bytes(len(whole)),
        whole.replace(b"000000003", b"000000009"),
    ):
        path.write_bytes(data)
        with pytest.raises(HetgraphError, match=r"shard-00000-of-00001\.tar cannot be read"):
            Shards(tmp_path)
    with pytest.raises(HetgraphError, match="known: safetensors, webdataset"):
        write_shard(tmp_path, "x", samples(), format="zip")


@given(data=st.data())
def test_graphs_of_shards_are_those_of_the_samples(tmp_path_factory, data) -> None:
    schema = data.draw(schemas())
    batch = data.draw(batches(schema))
    named = []
    for i, one in enumerate(batch):
        sample = Sample(id=str(i), nodes=one.nodes)
        sample.edges = {k: v for k, v in one.edges.items() if all(torch.is_tensor(x) for x in v.values())}
        named.append(sample)
    cut = data.draw(st.integers(0, len(named)))
    parts = [part for part in (named[:cut], named[cut:]) if part]
    folder = tmp_path_factory.mktemp("shards")
    for k, part in enumerate(parts):
        write_shard(folder, f"shard-{k}", part)
    write_index(folder, [(f"shard-{k}", len(part)) for k, part in enumerate(parts)], Schema([NodeType("n", 1)]))
    shards = Shards(folder, empty=True)
    assert all(same(found, sample) for found, sample in zip(shards, named, strict=True))
    if any(sample.nodes for sample in named):
        full = [sample for sample in named if sample.nodes]
        build = GraphBuilder(schema)
        assert_same_graph(build(list(Shards(folder))), build(full))


def test_samples_of_a_split_and_with_nodes_are_chosen_without_reading_the_others(tmp_path) -> None:
    folder = put(tmp_path, [samples()[:2], samples()[2:]], splits=[["train", "test"], ["test", None, "test"]])
    assert list(Shards(folder).ids) == ["a", "b", "d", "e"]
    assert list(Shards(folder, split="test").ids) == ["b", "e"]
    assert list(Shards(folder, split="test", empty=True).ids) == ["b", "c", "e"]
    assert Shards(folder, target=str)[1].target == "['x', 'y']"


def test_tensors_are_views_of_the_files_and_writing_to_one_changes_no_file(tmp_path) -> None:
    folder = put(tmp_path, [samples()])
    shards = Shards(folder)
    data = (folder / "shard-00000-of-00001.safetensors").read_bytes()
    first = shards[0].nodes["region"]["x"]
    assert first.data_ptr() == shards[0].nodes["region"]["x"].data_ptr()
    first += 1
    assert (folder / "shard-00000-of-00001.safetensors").read_bytes() == data
    assert not torch.equal(Shards(folder)[0].nodes["region"]["x"], first)


def learnable() -> list[Sample]:
    torch.manual_seed(1)
    return [
        Sample(id=str(i), target=("a", "b")[i % 2], token=torch.randn(4, 2) + 3 * (i % 2), region=torch.randn(2, 3))
        for i in range(24)
    ]


def test_a_model_trained_from_shards_is_the_one_trained_from_memory(tmp_path) -> None:
    given = learnable()
    shards = Shards(put(tmp_path, [given[:10], given[10:]]))
    losses = []
    for source in (given, shards):
        torch.manual_seed(0)
        model = Predictor(Fusion(SCHEMA, 8, layers=1, heads=2), Classification(("a", "b")))
        losses.append(fit(model, source, settings=TrainingSettings(epochs=2, batch_size=8), progress=False).loss)
    assert losses[0] == losses[1]


def test_workers_open_the_files_themselves(tmp_path) -> None:
    given = learnable()
    shards = Shards(put(tmp_path, [given[:10], given[10:]]))
    shards[0], shards[20]
    assert len(pickle.dumps(shards)) < 4000
    graphs = list(GraphLoader(shards, GraphBuilder(SCHEMA), [[0, 11], [23, 4]], workers=1))
    assert [list(graph.ids) for graph in graphs] == [["0", "11"], ["23", "4"]]
    assert torch.equal(graphs[1].x["token"], torch.cat([given[23].nodes["token"]["x"], given[4].nodes["token"]["x"]]))


def test_shards_of_another_number_are_removed_with_the_new_index(tmp_path) -> None:
    put(tmp_path, [[s] for s in samples()])
    (tmp_path / "notes.txt").write_text("mine")
    put(tmp_path, [samples()[:2], samples()[2:]])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.json",
        "notes.txt",
        *(f"shard-0000{k}-of-00002.{suffix}" for k in (0, 1) for suffix in ("json", "safetensors")),
    ]
    assert len(Shards(tmp_path, empty=True)) == 5


def test_an_unfinished_or_damaged_folder_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(HetgraphError, match=r"index\.json cannot be read"):
        Shards(tmp_path)
    put(tmp_path, [samples()])
    for name, data in (
        ("shard-00000-of-00001.json", b'{"ids": ["a"]}'),
        ("shard-00000-of-00001.safetensors", b""),
        ("shard-00000-of-00001.safetensors", (10**6).to_bytes(8, "little") + b"{"),
        ("index.json", b"[]"),
        ("index.json", json.dumps({"shards": []}).encode()),
    ):
        put(tmp_path, [samples()])
        (tmp_path / name).write_bytes(data)
        with pytest.raises(HetgraphError, match=name.replace(".", r"\.")):
            Shards(tmp_path)


def test_a_target_that_json_cannot_hold_is_refused(tmp_path) -> None:
    for target in (torch.ones(2), float("nan")):
        with pytest.raises(HetgraphError, match="target cannot be kept"):
            write_shard(tmp_path, "x", [Sample(id="a", target=target, token=torch.ones(1, 2))])
    assert not list(tmp_path.iterdir())

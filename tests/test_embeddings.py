"""Representations in files, read back with the files' own libraries."""

from __future__ import annotations

import builtins
import json
import os

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from hetgraph.embeddings import write_embeddings
from hetgraph.errors import HetgraphError

IDS = ["a", "b", "ü c"]
Z = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
NODES = {"token": torch.arange(20.0).reshape(5, 4) / 7, "region": torch.zeros(0, 4), "audio:x": torch.ones(1, 4)}
OWNER = {
    "token": torch.tensor([0, 0, 2, 2, 2]),
    "region": torch.zeros(0, dtype=torch.long),
    "audio:x": torch.tensor([1]),
}


def test_safetensors_hold_z_every_node_its_sample_and_the_ids(tmp_path) -> None:
    path = tmp_path / "new" / "e.safetensors"
    write_embeddings(path, IDS, Z, NODES, OWNER)
    found = load_file(path)
    assert set(found) == {"z", *(f"nodes/{n}" for n in NODES), *(f"sample/{n}" for n in NODES)}
    assert torch.equal(found["z"], Z)
    for name in NODES:
        assert torch.equal(found[f"nodes/{name}"], NODES[name])
        assert torch.equal(found[f"sample/{name}"], OWNER[name])
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["ids"]) == IDS


def test_parquet_holds_a_row_per_sample_with_a_list_of_states_per_type(tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    write_embeddings(tmp_path / "e.parquet", IDS, Z, NODES, OWNER)
    rows = parquet.read_table(tmp_path / "e.parquet").to_pylist()
    assert [row["id"] for row in rows] == IDS
    assert torch.equal(torch.tensor([row["z"] for row in rows]), Z)
    for name, states in NODES.items():
        for i, row in enumerate(rows):
            assert row[name] == [s.tolist() for s, o in zip(states, OWNER[name].tolist(), strict=True) if o == i]


def test_both_files_take_tensors_made_for_inference_and_strided_ones(tmp_path) -> None:
    with torch.inference_mode():
        z = torch.randn(4, 3).T
    write_embeddings(tmp_path / "e.safetensors", IDS, z, {}, {})
    assert torch.equal(load_file(tmp_path / "e.safetensors")["z"], z)


@pytest.mark.parametrize(("name", "got"), [("e.csv", r"\.csv"), ("e", "no suffix"), ("e.parquet.gz", r"\.gz")])
def test_another_suffix_is_refused(tmp_path, name, got) -> None:
    with pytest.raises(HetgraphError, match=rf"expected \.safetensors or \.parquet, got {got}"):
        write_embeddings(tmp_path / name, IDS, Z, NODES, OWNER)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["id", "z"])
def test_a_node_type_called_like_a_column_of_parquet_is_refused_and_not_lost(tmp_path, name) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    with pytest.raises(HetgraphError, match=f"node type '{name}' is the name of another column"):
        write_embeddings(tmp_path / "e.parquet", IDS, Z, {name: NODES["token"]}, {name: OWNER["token"]})
    write_embeddings(tmp_path / "e.safetensors", IDS, Z, {name: NODES["token"]}, {name: OWNER["token"]})
    assert torch.equal(load_file(tmp_path / "e.safetensors")[f"nodes/{name}"], NODES["token"])


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch) -> None:
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(HetgraphError, match=r"pip install 'hetgraph\[parquet\]'"):
        write_embeddings(tmp_path / "e.parquet", IDS, Z, NODES, OWNER)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["e.safetensors", "e.parquet"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, name) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (tmp_path / name).write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HetgraphError, match=r"could not write .*: No space left on device"):
        write_embeddings(tmp_path / name, IDS, Z, NODES, OWNER)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "old"

"""Tux Paint stamps for retrieval: what a sample is made of; spelling is learnt from training captions alone."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from readers import write_table

from hetgraph import GraphBuilder
from hetgraph.encoders import HashWords, ImagePatches
from hetgraph.errors import HetgraphError
from hetgraph.tasks import retrieval
from hetgraph.tasks.datasets.letters import Letters
from hetgraph.tasks.datasets.tuxpaint_retrieval import LANGUAGES, items

THINGS = (("a lion", "un lion", "un león"), ("a train", "un train", "un tren"), ("a cat", "un chat", "un gato"))
ENCODERS = {"image": ImagePatches(2, 2), "text": HashWords(8)}


def put(folder: Path, count: int = 30, effects: bool = True) -> Path:
    """Stamps with captions and a recording; every tenth validates, every tenth tests, and one has no Spanish name."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(count):
        names = THINGS[i % 3]
        captions = {f"caption_{code}": f"{name} {i // 3}" for code, name in zip(("en", "fr", "es"), names, strict=True)}
        if i == 0:
            captions["caption_es"] = ""
        split = {0: "valid", 1: "test"}.get(i % 10, "train") if i else "train"
        rows.append({"id": str(i), "top_category": "ab"[i % 2], **captions, "split": split, "group": str(i)})
    for name in ("speech_fr", "effects"):
        (folder / name).mkdir(parents=True)
    write_table(folder / "stamps.csv", rows)
    np.savez(folder / "images_96.npz", images=generator.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8))
    for i in range(count):
        soundfile.write(folder / f"speech_fr/{i:04}.ogg", generator.normal(0, 0.1, 4000 + 400 * i), 16000)
        if effects and i % 2:
            soundfile.write(folder / f"effects/{i:04}.ogg", generator.normal(0, 0.1, 8000), 16000)
    return folder


def test_a_caption_is_words_and_letters(tmp_path) -> None:
    data = items(put(tmp_path), encoders=ENCODERS)
    with open(tmp_path / "stamps.csv", newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    every = [*data.train, *data.valid, *data.test]
    assert {s.id for s in every} == set(rows)
    for code in LANGUAGES.values():
        letters = Letters([r for s in data.train if (r := rows[str(s.id)][f"caption_{code}"])], 400)
        for sample in every:
            said = rows[str(sample.id)][f"caption_{code}"]
            assert (f"letters_{code}" in sample.nodes) == bool(said)
            if said:
                expected = torch.from_numpy(letters([said]))
                assert torch.allclose(torch.as_tensor(sample.nodes[f"letters_{code}"]["x"]), expected, atol=1e-5)
    graph = GraphBuilder(data.schema)(every)
    assert graph.counts["letters_es"].sum() == len(every) - 1
    assert ("speech", "with", "letters_en") in data.schema.edges
    assert data.kernels["english"] == len(data.train)
    assert data.kernels["spanish"] == len(data.train) - 1
    # the packaged encoder of sounds has mean and deviation, of which the means count
    assert data.pooled["speech"].first == 40


def test_a_model_is_trained_saved_and_scored(tmp_path) -> None:
    # of so few, none choose an epoch
    data = replace(items(put(tmp_path / "data"), encoders=ENCODERS), valid=None)
    settings = retrieval.suggested("tuxpaint", dims=4, epochs=1, width=8, layers=1, heads=2)
    model = retrieval.train(data, settings, progress=False)
    model.save_pretrained(tmp_path / "model")
    again = retrieval.RetrievalModel.from_pretrained(tmp_path / "model")
    sides = ["picture", "speech"]
    assert torch.equal(model.vectors(data.test, sides), again.vectors(data.test, sides))
    assert 0 <= retrieval.evaluate(model, data, data.train)["recall@1 french > spanish"] <= 1


def test_a_split_that_is_none_is_named(tmp_path) -> None:
    put(tmp_path)
    text = (tmp_path / "stamps.csv").read_text(encoding="utf-8").replace("valid", "held")
    (tmp_path / "stamps.csv").write_text(text, encoding="utf-8")
    with pytest.raises(HetgraphError, match=r"stamp 10: split is one of .* got 'held'"):
        items(tmp_path, encoders=ENCODERS)


def test_a_modality_that_training_does_not_have_is_named(tmp_path) -> None:
    data = items(put(tmp_path, effects=False), encoders=ENCODERS)
    with pytest.raises(HetgraphError, match="tuxpaint: no training sample has the modality 'effect'"):
        retrieval.train(data, retrieval.suggested("tuxpaint", method="linear", dims=4), progress=False)

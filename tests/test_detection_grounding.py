"""Phrase grounding, the benchmark over both tasks, and the page about them."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks import detection as benchmark
from hetgraph import Fusion, Sample
from hetgraph.errors import HetgraphError
from hetgraph.tasks import detection
from hetgraph.tasks.detection import crowded, grounding
from hetgraph.tasks.detection.pointing import Pointing, log_softmax

phrases_module = sys.modules["hetgraph.tasks.detection.phrases"]
scenes_module = sys.modules["hetgraph.tasks.detection.scenes"]
SMALL = grounding.suggested(epochs=1, width=16, layers=1, heads=2, average=0.0)


@pytest.fixture(autouse=True)
def _few_and_no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(phrases_module, "SIZES", {"train": 24, "valid": 12, "test": 12})
    monkeypatch.setattr(scenes_module, "SIZES", {"train": 12, "valid": 4, "test": 20})


def holds(relation: str, one: crowded.Shape, others: list[crowded.Shape], anchor: crowded.Shape) -> bool:
    """The relation in words of the page."""
    dx, dy = one.centre[0] - anchor.centre[0], one.centre[1] - anchor.centre[1]
    if relation in ("left", "right"):
        return abs(dx) >= abs(dy) and (dx < 0) == (relation == "left")
    if relation in ("above", "below"):
        return abs(dy) >= abs(dx) and (dy < 0) == (relation == "above")
    far = [float(np.hypot(s.centre[0] - anchor.centre[0], s.centre[1] - anchor.centre[1])) for s in (one, *others)]
    return far[0] == min(far)


def test_a_phrase_means_exactly_one_of_the_like_shapes() -> None:
    counts = []
    for i in range(60):
        made = phrases_module.phrase("test", i, 0)
        meant, *rest = made.shapes
        like = [s for s in rest if (s.kind, s.colour) == (meant.kind, meant.colour)]
        anchor = rest[len(like)]
        assert [s for s in made.shapes if (s.kind, s.colour) == (anchor.kind, anchor.colour)] == [anchor]
        assert holds(made.relation, meant, like, anchor)
        assert not any(
            holds(made.relation, other, [meant, *(s for s in like if s is not other)], anchor) for other in like
        )
        between = phrases_module.RELATIONS[made.relation]
        text = f"the {meant.colour} {meant.kind} {between} the {anchor.colour} {anchor.kind}"
        assert " ".join(made.words) == text
        assert made.meant.tolist() == pytest.approx((meant.box / crowded.SIZE).tolist())
        counts.append(len(like))
    assert set(counts) == {1, 2}


def test_regions_show_what_is_under_them() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32, 32:] = (255, 0, 0)
    x = phrases_module.crops(pixels, np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0, 1, 1]], np.float32))
    assert x.shape == (3, 192)
    assert (x[0] == 0).all()
    assert (x[1].reshape(-1, 3) == (1, 0, 0)).all()
    assert x[2].reshape(8, 8, 3)[..., 0].mean() == pytest.approx(0.25, abs=0.02)


def test_some_region_is_right_and_the_floors_count_them() -> None:
    data = grounding.phrases()
    samples = grounding.prepared(data.test, "region")
    right = [s.target[:, 1] >= 0.5 for s in samples]
    assert grounding.floors(data.test) == pytest.approx(
        {"random": fmean(int(r.sum()) / len(r) for r in right), "best": fmean(bool(r.any()) for r in right)}
    )
    assert grounding.floors(data.test)["best"] == 1
    with pytest.raises(HetgraphError, match="no phrases to score"):
        grounding.floors([])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 1000))
def test_pointing_is_the_cross_entropy_of_every_sample(sizes, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randn(n, 1, generator=generator) * 5 for n in sizes]
    over = [torch.rand(n, generator=generator) for n in sizes]
    target = torch.cat([torch.stack([torch.arange(len(o)) == 0, o], 1) for o in over])
    objective = Pointing()
    losses = objective.losses(torch.cat(scores), target).split(sizes)
    hits = 0
    for score, o, own in zip(scores, over, losses, strict=True):
        right = o >= 0.5 if bool((o >= 0.5).any()) else o == o.max()
        share = right / right.sum()
        expected = -(share * score[:, 0].log_softmax(0)).sum()
        assert float(own.sum()) / len(o) == pytest.approx(float(expected), rel=1e-4, abs=1e-5)
        hits += bool(o[score[:, 0].argmax()] >= 0.5)
    assert objective.metrics(torch.cat(scores), target)["accuracy"] == pytest.approx(hits / len(sizes))


def test_the_softmax_within_segments_holds_for_huge_scores() -> None:
    score = torch.tensor([1e4, -1e4, 3.0], requires_grad=True)
    out = log_softmax(score, torch.tensor([0, 0, 1]))
    assert out.tolist() == [0.0, -2e4, 0.0]
    out.sum().backward()
    assert score.grad.tolist() == pytest.approx([-1.0, 1.0, 0.0])


def test_a_model_that_points_is_trained_kept_and_loaded(tmp_path) -> None:
    data = grounding.phrases()
    model = grounding.train(data, SMALL, progress=False)
    found = grounding.predict(model, data)
    for one, sample in zip(found, data.test, strict=True):
        region = sample.nodes["region"]["box"]
        assert torch.equal(one.box, region[one.place])
        assert one.phrase.startswith("the ")
        assert torch.equal(one.target, sample.target.box[0])
        assert one.right == (one.overlap >= 0.5)
        assert json.loads(json.dumps(one.to_json()))["right"] == one.right
    scores = grounding.evaluate(model, data)
    assert scores["accuracy"] == pytest.approx(fmean(one.right for one in found))
    assert {k for k in scores if k != "accuracy"} == {f"accuracy_{k}" for k in phrases_module.RELATIONS}
    model.save_pretrained(tmp_path)
    loaded = detection.NodePredictor.from_pretrained(tmp_path)
    assert [one.score for one in grounding.predict(loaded, data)] == [one.score for one in found]


def test_what_cannot_be_grounded_is_refused() -> None:
    data = grounding.phrases()
    model = grounding.train(data, SMALL, progress=False)
    two = Sample(id="two", nodes=data.test[0].nodes, target=detection.Objects(torch.eye(4)[:0], ()))
    with pytest.raises(HetgraphError, match="'two': a phrase means one object, got 0"):
        grounding.train(replace(data, train=[two]), SMALL, progress=False)
    silent = Sample(id="silent", nodes=data.test[0].nodes)
    with pytest.raises(HetgraphError, match="'silent': what it means is not known"):
        grounding.evaluate(model, data, [silent])
    with pytest.raises(HetgraphError, match="no phrases to score"):
        grounding.score([])
    other = detection.NodePredictor(Fusion(data.schema, 8, heads=2, layers=0), detection.Detecting(("a",)))
    with pytest.raises(HetgraphError, match="points at regions, got one for Detecting"):
        grounding.predict(other, data)


def test_the_head_reads_z_where_it_is_joint() -> None:
    data = grounding.phrases()
    model = grounding.train(data, replace(SMALL, method="concat"), progress=False)
    one = data.test[0]
    words = dict(one.nodes["token"])
    words["x"] = words["x"].flip(0)
    other = Sample(id="o", nodes={**one.nodes, "token": words})
    # regions of the method concat hear no words, yet the answer depends on them
    assert grounding.predict(model, data, [one])[0].score != grounding.predict(model, data, [other])[0].score


def test_the_command_grounds(tmp_path, typed) -> None:
    small = ("--epochs", 1, "--width", 8, "--layers", 1, "--heads", 2, "--output", tmp_path)
    code, out, err = typed("task", "detection", "grounding", *small, "--json", tmp_path / "s.json")
    assert (code, err) == (0, "")
    assert "floor_random" in out
    lines = (tmp_path / "seed-0" / "answers.jsonl").read_text().splitlines()
    score = json.loads((tmp_path / "s.json").read_text())["runs"][0]["accuracy"]
    assert fmean(json.loads(line)["right"] for line in lines) == pytest.approx(score)
    code, _, err = typed("task", "detection", "grounding", "--picture", tmp_path / "p.png")
    assert code != 0
    assert "scenes alone" in err


def test_the_benchmark_keeps_its_runs_and_its_table_fits(tmp_path, monkeypatch) -> None:
    from rich.console import Console

    pytest.importorskip("pycocotools")
    small = {"epochs": 1, "width": 8, "layers": 1, "heads": 2}
    for name in benchmark.NAMES:
        path = tmp_path / f"{name}.json"
        result = benchmark.measure(name, ["graph", "concat"], ["all edges", "no edges"], range(2), path, small)
        conditions = [("graph", "all edges"), ("concat", "all edges"), ("graph", "no edges")]
        assert [(r["method"], r["edges"]) for r in result["runs"]] == conditions * 2
        values = benchmark.values(result, "graph", "no edges", benchmark.MAIN[name])
        assert set(values) == {"0", "1"}
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(benchmark.table(result))
        text = console.export_text()
        assert "graph, no edges" in text
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text
    monkeypatch.setattr(benchmark, "outcome", None)
    again = benchmark.measure(name, ["graph"], [], range(1), path, small)
    assert again["runs"] == result["runs"]


PAGE = (Path(__file__).parents[1] / "docs" / "tasks" / "detection.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_run_and_print_what_they_say(monkeypatch, capsys, tmp_path) -> None:
    pytest.importorskip("pycocotools")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(codes) == 2
    for code in codes:
        exec(compile(code, "docs/tasks/detection.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert 0 <= float(printed[0]) <= 1
    assert printed[-1:] == re.findall(r"print\(.*\) +# (.*)", codes[1])
    assert len(json.loads((tmp_path / "detections.json").read_text())) > 0


def test_the_picture_of_the_page_is_there_and_small() -> None:
    path = Path(__file__).parents[1] / "docs" / "images" / "detection_scenes.png"
    assert path.stat().st_size < 150_000
    with Image.open(path) as image:
        assert image.size[0] > 900

"""Detection: boxes and average precision against loops and pycocotools, matching against all matchings, the task."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from hetgraph import Fusion, NodeType, Sample, Schema
from hetgraph.errors import CheckpointError, HetgraphError
from hetgraph.rules import SPATIAL
from hetgraph.tasks import detection
from hetgraph.tasks.ablations import ablate
from hetgraph.tasks.datasets.scenes_media import COLOURS, SHAPES
from hetgraph.tasks.detection import crowded
from hetgraph.tasks.detection.average_precision import Found, average_precision, mean_precision
from hetgraph.tasks.detection.boxes import decode, encode, giou, iou, suppress
from hetgraph.tasks.detection.data import prepared
from hetgraph.tasks.detection.picture import RIGHT, WRONG, draw

pytest.importorskip("pycocotools", reason="pycocotools is not installed: pip install 'hetgraph[detection]'")
scenes_module = sys.modules["hetgraph.tasks.detection.scenes"]
SMALL = detection.suggested(epochs=2, width=16, layers=1, heads=2, average=0.0)


@pytest.fixture(autouse=True)
def _few_and_no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(scenes_module, "SIZES", {"train": 24, "valid": 8, "test": 8})


# boxes

corner = st.integers(0, 6)
boxes = st.tuples(corner, corner, st.integers(1, 5), st.integers(1, 5)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def cells(box) -> set[tuple[int, int]]:
    return set(itertools.product(range(box[0], box[2]), range(box[1], box[3])))


@given(boxes, boxes)
def test_overlaps_by_counting_unit_squares(a, b) -> None:
    both, either = cells(a) & cells(b), cells(a) | cells(b)
    hull = cells((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])))
    one, two = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert float(iou(one, two)) == pytest.approx(len(both) / len(either))
    expected = len(both) / len(either) - (len(hull) - len(either)) / len(hull)
    assert float(giou(one, two)) == pytest.approx(expected)


@given(boxes, boxes)
def test_offsets_lead_back_to_the_box(a, b) -> None:
    box, region = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    offset = encode(box, region)
    assert offset[0].tolist() == pytest.approx(
        [
            ((a[0] + a[2]) / 2 - (b[0] + b[2]) / 2) / (b[2] - b[0]),
            ((a[1] + a[3]) / 2 - (b[1] + b[3]) / 2) / (b[3] - b[1]),
            math.log((a[2] - a[0]) / (b[2] - b[0])),
            math.log((a[3] - a[1]) / (b[3] - b[1])),
        ]
    )
    assert torch.allclose(decode(offset, region), box)


@given(st.lists(st.tuples(boxes, st.integers(0, 2), st.integers(0, 9)), max_size=8), st.sampled_from([0.0, 0.3, 1.0]))
def test_suppression_by_a_loop(some, most) -> None:
    order = sorted(range(len(some)), key=lambda i: -some[i][2])
    kept: list[int] = []
    for i in order:
        near = (k for k in kept if some[k][1] == some[i][1])
        if all(
            len(cells(some[i][0]) & cells(some[k][0])) <= most * len(cells(some[i][0]) | cells(some[k][0]))
            for k in near
        ):
            kept.append(i)
    box = torch.tensor([s[0] for s in some], dtype=torch.float64).reshape(-1, 4)
    score, label = (torch.tensor([s[k] for s in some], dtype=torch.long) for k in (2, 1))
    assert suppress(box, score, label, most).tolist() == kept


# average precision


def detected(name: str, guesses, objects) -> detection.Detected:
    box = torch.tensor([g[0] for g in guesses], dtype=torch.float32).reshape(-1, 4)
    true = torch.tensor([o[0] for o in objects], dtype=torch.float32).reshape(-1, 4)
    target = detection.Objects(true, tuple("abc"[o[1]] for o in objects))
    score = torch.tensor([g[2] for g in guesses], dtype=torch.float32)
    return detection.Detected(name, box, tuple("abc"[g[1]] for g in guesses), score, target)


def by_hand(pictures, kind: int, least: float) -> float:
    """101-point average precision, written out as the definition says it."""
    guesses = [(g[2], i, g[0]) for i, (some, _) in enumerate(pictures) for g in some if g[1] == kind]
    left = {i: [o[0] for o in objects if o[1] == kind] for i, (_, objects) in enumerate(pictures)}
    total = sum(len(o) for o in left.values())
    hits = []
    for _, i, box in sorted(guesses, key=lambda g: -g[0]):
        over = [len(cells(box) & cells(o)) / len(cells(box) | cells(o)) for o in left[i]]
        hit = bool(over) and max(over) >= least
        if hit:
            left[i].pop(over.index(max(over)))
        hits.append(hit)
    points = [(sum(hits[: n + 1]) / total, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    return sum(max((p for r, p in points if r >= k / 100 - 1e-12), default=0.0) for k in range(101)) / 101


@st.composite
def pictured(draw):
    """Pictures with guesses, whose scores all differ, and objects."""
    pictures = draw(
        st.lists(
            st.tuples(
                st.lists(st.tuples(boxes, st.integers(0, 2)), max_size=6),
                st.lists(st.tuples(boxes, st.integers(0, 2)), max_size=4),
            ),
            min_size=1,
            max_size=4,
        )
    )
    count = sum(len(guesses) for guesses, _ in pictures)
    ranks = iter(draw(st.permutations(range(count))))
    return [
        ([(box, kind, (next(ranks) + 1) / (count + 1)) for box, kind in guesses], objects)
        for guesses, objects in pictures
    ]


@given(pictured())
def test_average_precision_is_that_of_the_definition_and_of_pycocotools(pictures) -> None:
    kinds = {o[1] for _, objects in pictures for o in objects}
    if not kinds:
        return
    some = [detected(str(i), *picture) for i, picture in enumerate(pictures)]
    label = {name: i for i, name in enumerate("abc")}

    def found(box, names, score=None) -> Found:
        return Found(box, torch.tensor([label[n] for n in names], dtype=torch.long), score)

    guesses = [found(one.box, one.label, one.score) for one in some]
    true = [found(one.target.box, one.target.label) for one in some]
    scores = detection.coco_scores(some, "abc")
    means = []
    for tenth in range(10):
        least = 0.5 + tenth / 20
        own = average_precision(guesses, true, 3, least)
        expected = [by_hand(pictures, kind, least) if kind in kinds else math.nan for kind in range(3)]
        assert own == pytest.approx(expected, nan_ok=True)
        means.append(mean_precision(own))
        if tenth == 0:
            told = {k: v for k, v in scores.items() if k.startswith("ap_50")}
            assert told == pytest.approx({f"ap_50_{'abc'[k]}": own[k] for k in kinds})
    assert scores["map_50"] == pytest.approx(means[0])
    assert scores["map_75"] == pytest.approx(means[5])
    assert scores["map"] == pytest.approx(sum(means) / 10)


def test_average_precision_by_hand() -> None:
    # two of one kind; a hit, a duplicate, a hit of the other: precision 1 up to recall 1/2, then 2/3
    objects = [((0, 0, 2, 2), 0), ((4, 0, 6, 2), 0)]
    guesses = [((0, 0, 2, 2), 0, 0.9), ((0, 0, 2, 2), 0, 0.8), ((4, 0, 6, 2), 0, 0.7)]
    scores = detection.coco_scores([detected("7", guesses, objects)], "abc")
    assert scores["map_50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert set(scores) == {"map", "map_50", "map_75", "ap_50_a"}
    assert detection.coco_scores([detected("x", [], objects)], "abc")["map_50"] == 0


def test_what_cannot_be_scored_is_refused(monkeypatch) -> None:
    one = detected("x", [], [((0, 0, 2, 2), 0)])
    with pytest.raises(HetgraphError, match="nothing to score"):
        detection.coco_scores([], "abc")
    with pytest.raises(HetgraphError, match="'x': its objects are not known"):
        detection.coco_scores([replace(one, target=None)], "abc")
    with pytest.raises(HetgraphError, match="the same id"):
        detection.coco_scores([one, one], "abc")
    with pytest.raises(HetgraphError, match="'x': class 'a' is not one of b, c"):
        detection.coco_scores([one], "bc")
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(HetgraphError, match=re.escape("pip install 'hetgraph[detection]'")):
        detection.coco_scores([one], "abc")


def test_result_files_are_read_as_they_were_written(tmp_path) -> None:
    guesses = [((1, 2, 4, 8), 2, 0.75), ((0, 0, 1, 1), 0, 0.5)]
    some = [detected("42", guesses, []), detected("x-1", guesses[:1], [])]
    rows = json.loads(detection.write_coco(tmp_path / "r.json", some, "abc").read_text())
    assert rows[0] == {"image_id": 42, "category_id": 3, "bbox": [1, 2, 3, 6], "score": 0.75}
    for one, other in zip(some, detection.read_coco(tmp_path / "r.json", "abc"), strict=True):
        assert (one.id, one.label) == (other.id, other.label)
        assert torch.equal(one.box, other.box)
        assert torch.equal(one.score, other.score)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a COCO result file"),
        ("{}", "expected a list"),
        ("[1]", "detection 0: expected an object, got int"),
        ('[{"image_id": 1, "category_id": 1, "score": 1}]', "detection 0: no 'bbox'"),
        (
            '[{"image_id": 1, "category_id": 4, "bbox": [0, 0, 1, 1], "score": 1}]',
            r"category_id must lie in 1 \.\. 3, got 4",
        ),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1], "score": 1}]', "bbox must be x, y, width, height"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, NaN], "score": 1}]', "bbox must be"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": "x"}]', "score must be a number"),
    ],
)
def test_damaged_result_files_are_refused(tmp_path, text, message) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(HetgraphError, match=message):
        detection.read_coco(tmp_path / "r.json", "abc")


# the objective


def toy(regions: int, objects, name: str = "s") -> Sample:
    low = torch.arange(regions, dtype=torch.float32)[:, None].repeat(1, 2) / 10
    target = detection.Objects(torch.tensor([o[0] for o in objects]).reshape(-1, 4), tuple(o[1] for o in objects))
    return Sample(id=name, region={"x": torch.ones(regions, 3), "box": torch.cat([low, low + 0.1], 1)}, target=target)


OBJECTS = [((0.0, 0.0, 0.3, 0.2), "a"), ((0.2, 0.3, 0.5, 0.4), "c"), ((0.1, 0.1, 0.2, 0.2), "a")]


@given(st.integers(0, 10_000))
def test_matching_is_the_best_of_all_and_the_loss_what_it_says(seed) -> None:
    objective = detection.Detecting(tuple("abc"))
    samples = [toy(4, OBJECTS[:2], "one"), toy(3, [], "two"), toy(2, OBJECTS, "three")]
    target = objective.encode([s.target for s in prepared(samples, "abc", "region")], ["one", "two", "three"])
    scores = torch.randn(9, objective.outputs, generator=torch.Generator().manual_seed(seed))
    label, expected = [], torch.zeros(9)
    start = 0
    for sample in samples:
        region, objects = sample.nodes["region"]["box"], sample.target
        own = slice(start, start + len(region))
        chance, box = scores[own, :-4].softmax(1), decode(scores[own, -4:], region)
        kinds = ["abc".index(n) for n in objects.label]

        def cost(i: int, j: int, chance=chance, box=box, region=region, objects=objects, kinds=kinds) -> float:
            size = (region[i, 2:] - region[i, :2]).repeat(2)
            l1 = float(((box[i] - objects.box[j]) / size).abs().mean())
            return 1 - float(chance[i, kinds[j]]) + 0.25 * l1 + 1 - float(giou(box[i], objects.box[j]))

        few = min(len(region), len(kinds))
        ways = [
            list(zip(at, of, strict=True))
            for of in itertools.combinations(range(len(kinds)), few)
            for at in itertools.permutations(range(len(region)), few)
        ]
        best = min(ways, key=lambda way: sum(cost(i, j) for i, j in way))
        labels = [3] * len(region)
        for i, j in best:
            labels[i] = kinds[j]
            away = functional.smooth_l1_loss(scores[start + i, -4:], encode(objects.box[j], region[i]), beta=0.5)
            expected[start + i] += away + 1 - giou(box[i], objects.box[j])
        for i, k in enumerate(labels):
            expected[start + i] += -float(chance[i, k].log()) * (0.3 if k == 3 else 1)
        label += labels
        start += len(region)
    logits, box = objective.split(scores, target[:, 1:5])
    assert objective.match(logits, box, target)[0].tolist() == label
    assert torch.allclose(objective.losses(scores, target), expected, atol=1e-4)


def test_samples_without_objects_can_be_learnt_from() -> None:
    objective = detection.Detecting(("a",))
    target = objective.encode([prepared([toy(3, [])], "a", "region")[0].target], ["s"])
    scores = torch.zeros(3, objective.outputs, requires_grad=True)
    loss = objective.losses(scores, target)
    assert loss.tolist() == pytest.approx([0.3 * math.log(2)] * 3)
    loss.sum().backward()
    assert bool(scores.grad.isfinite().all())
    assert objective.metrics(scores.detach(), target)["map_50"] == 0


def test_perfect_scores_are_worth_everything() -> None:
    objective = detection.Detecting(tuple("abc"))
    target = objective.encode([prepared([toy(4, OBJECTS)], "abc", "region")[0].target], ["s"])
    scores = torch.zeros(4, 8)
    for i, (box, name) in enumerate(OBJECTS):
        scores[i, "abc".index(name)] = 20.0
        scores[i, -4:] = encode(torch.tensor(box), target[i, 1:5])
    scores[3, 3] = 20.0
    found = objective.metrics(scores, target)
    assert found == {"map_50": pytest.approx(1), "loss": pytest.approx(0, abs=1e-5)}
    assert objective.decode(scores) == ["a", "c", "a", None]


# data


def test_shapes_fill_their_boxes_and_nothing_else() -> None:
    for i in range(8):
        shapes = crowded.crowd(np.random.default_rng(i), 4)
        blank = crowded.draw([], np.random.default_rng(i)).astype(float)
        pixels = crowded.draw(shapes, np.random.default_rng(i)).astype(float)
        y, x = np.nonzero(np.abs(pixels - np.median(blank, (0, 1))).max(-1) > 60)
        found = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        box = np.stack([s.box for s in shapes])
        whole = np.concatenate([box[:, :2].min(0), box[:, 2:].max(0)])
        assert np.abs(found - whole).max() <= 1.5
        assert 0 <= box.min() <= box.max() <= crowded.SIZE


def test_windows_are_the_picture() -> None:
    picture = crowded.pictures("test", 1, 0)[0]
    x, box = crowded.windows(picture.pixels)
    again = np.zeros_like(picture.pixels)
    for tile, (x1, y1, x2, y2) in zip(x, (box * crowded.SIZE).astype(int).tolist(), strict=True):
        again[y1:y2, x1:x2] = np.rint(tile.reshape(crowded.WINDOW, crowded.WINDOW, 3) * 255)
    assert (again == picture.pixels).all()


def test_pictures_are_the_same_for_a_seed_and_differ_between_parts_and_seeds() -> None:
    one, two = (crowded.pictures("train", 3, 5) for _ in range(2))
    assert all((a.pixels == b.pixels).all() for a, b in zip(one, two, strict=True))
    others = [crowded.pictures("test", 1, 5)[0], crowded.pictures("train", 1, 6)[0], one[1]]
    assert all((one[0].pixels != other.pixels).any() for other in others)
    assert {k for p in crowded.pictures("train", 30, 0) for k in p.kinds} == set(SHAPES)
    assert {c for p in crowded.pictures("train", 30, 0) for c in p.colours} == set(COLOURS)


def test_neighbours_on_a_grid_are_the_eight_around_by_their_direction() -> None:
    _, box = crowded.windows(np.zeros((64, 64, 3), np.uint8))
    edges = detection.neighbours(torch.from_numpy(box))
    assert set(edges) == {("region", name, "region") for name in SPATIAL}
    step = dict(zip(SPATIAL[3:], [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)], strict=True))
    inner = [(x, y) for x in range(1, 7) for y in range(1, 7)]
    for name in SPATIAL:
        pairs = {tuple(pair) for pair in edges["region", name, "region"].T.tolist()}
        expected = (
            {((y - step[name][1]) * 8 + x - step[name][0], y * 8 + x) for x, y in inner} if name in step else set()
        )
        assert {(a, b) for a, b in pairs if (b % 8, b // 8) in inner} == expected


def test_own_data_is_checked() -> None:
    schema = Schema([NodeType("region", 3, fields={"box": 4})])
    good = [toy(4, OBJECTS, f"s{i}") for i in range(4)]
    data = detection.DetectionData("own", schema, good, None, good, tuple("abc"))
    model = detection.train(data, detection.suggested(epochs=1, width=8, layers=0, heads=2), progress=False)
    assert 0 <= detection.evaluate(model, data)["map_50"] <= 1
    bare = Sample(id="bare", region={"x": torch.ones(2, 3), "box": torch.tensor([[0.0, 0, 1, 1], [0.5, 0.5, 0.5, 1]])})
    with pytest.raises(HetgraphError, match=r"'bare': 'region' field 'box': expected x1, y1, x2, y2"):
        detection.predict(model, data, [bare])
    for part, message in (
        ([bare], "'bare': expected Objects as target, got NoneType"),
        ([toy(2, [((0.0, 0.0, 1.0, 1.0), "z")])], "'s': class 'z' is not one of a, b, c"),
        ([], "no training samples"),
    ):
        with pytest.raises(HetgraphError, match=message):
            detection.train(replace(data, train=part), SMALL, progress=False)
    with pytest.raises(HetgraphError, match=r"needs its nodes; got 0\.5"):
        detection.train(data, detection.suggested(modality_dropout=0.5), progress=False)
    with pytest.raises(HetgraphError, match="modality_loss"):
        detection.train(data, detection.suggested(modality_loss=0.5), progress=False)
    with pytest.raises(HetgraphError, match="norm: it is Z that is normalised"):
        detection.train(data, detection.suggested(norm=True), progress=False)
    with pytest.raises(HetgraphError, match="direct: it reads means over nodes"):
        detection.train(data, detection.suggested(direct=8), progress=False)
    with pytest.raises(HetgraphError, match="expected the classes"):
        detection.train(data, SMALL, objective=detection.Detecting(("a", "b")), progress=False)
    with pytest.raises(HetgraphError, match="expected a node type 'region' with a field 'box'"):
        replace(data, schema=Schema([NodeType("region", 3)]))
    with pytest.raises(HetgraphError, match="names of classes, all different"):
        replace(data, classes=("a", "a"))
    with pytest.raises(HetgraphError, match="a label for each of 1 boxes, got 0"):
        detection.Objects(torch.tensor([[0.0, 0, 1, 1]]), ())
    with pytest.raises(HetgraphError, match="x2 > x1"):
        detection.Objects(torch.tensor([[1.0, 0, 0, 1]]), ("a",))


# the task


def test_a_detector_is_trained_kept_and_loaded(tmp_path) -> None:
    data = detection.scenes(seed=1)
    model = detection.train(data, SMALL, seed=3, progress=False)
    found = detection.predict(model, data)
    assert [one.id for one in found] == [s.id for s in data.test]
    for one, sample in zip(found, data.test, strict=True):
        assert one.target is sample.target
        assert len(one.box) <= 30
        assert one.score.tolist() == sorted(one.score.tolist(), reverse=True)
    model.save_pretrained(tmp_path)
    loaded = detection.NodePredictor.from_pretrained(tmp_path)
    for one, other in zip(found, detection.predict(loaded, data), strict=True):
        assert torch.equal(one.box, other.box)
        assert one.label == other.label
    scores = detection.evaluate(model, data)
    assert scores == detection.coco_scores(found, data.classes)
    single = detection.predict(model, data, data.test[:1])[0]
    assert torch.allclose(single.box, found[0].box, atol=1e-5)


def test_regions_without_edges_hear_nothing_and_with_edges_something() -> None:
    data = detection.scenes()
    for kind, hears in (("all edges", True), ("no edges", False)):
        own = ablate(data, kind)
        model = detection.train(own, replace(SMALL, training=replace(SMALL.training, epochs=1)), progress=False)
        sample = own.test[0]
        moved = Sample(id="m", nodes={"region": dict(sample.nodes["region"])}, edges=sample.edges)
        moved.nodes["region"]["x"] = moved.nodes["region"]["x"].clone()
        moved.nodes["region"]["x"][9] += 5
        from hetgraph.training import predict

        a, b = (predict(model, [s]).scores for s in (sample, moved))
        changed = (a - b).abs().amax(1) > 1e-6
        expected = {9, *((0, 1, 2, 8, 10, 16, 17, 18) if hears else ())}
        assert set(changed.nonzero().flatten().tolist()) == expected


def test_models_of_another_kind_are_refused(tmp_path) -> None:
    data = detection.scenes()
    pointing = detection.NodePredictor(Fusion(data.schema, 8, heads=2, layers=0), detection.grounding.Pointing())
    with pytest.raises(HetgraphError, match="expected a model that detects, got one for Pointing"):
        detection.predict(pointing, data)
    with pytest.raises(HetgraphError, match="no node type 'cell'"):
        detection.NodePredictor(Fusion(data.schema, 8, heads=2, layers=0), detection.Detecting(("a",)), "cell")
    pointing.fusion.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a Fusion"):
        detection.NodePredictor.from_pretrained(tmp_path)


def test_the_command_trains_scores_draws_and_keeps_what_it_finds(tmp_path, typed) -> None:
    small = ("--epochs", 1, "--width", 8, "--layers", 1, "--heads", 2, "--output", tmp_path / "out")
    code, out, err = typed(
        "task", "detection", "scenes", *small, "--json", tmp_path / "s.json", "--picture", tmp_path / "p.png"
    )
    assert (code, err) == (0, "")
    assert "scenes, graph, 1 seed" in out
    scores = json.loads((tmp_path / "s.json").read_text())["runs"][0]
    data = detection.scenes()
    kept = detection.read_coco(tmp_path / "out" / "seed-0" / "detections.json", data.classes)
    target = {s.id: s.target for s in data.test}
    again = detection.coco_scores([replace(one, target=target[one.id]) for one in kept], data.classes)
    assert again == pytest.approx(scores)
    with Image.open(tmp_path / "p.png") as image:
        assert image.size[0] > 900
    code, _, err = typed("task", "detection", "shapes")
    assert code != 0
    assert "nothing to detect in 'shapes'" in err


def test_right_boxes_are_blue_and_wrong_ones_orange(tmp_path) -> None:
    one = detected("x", [((1, 1, 4, 4), 0, 0.9)], [((1, 1, 4, 4), 0)])
    one = replace(one, box=one.box / 8, target=detection.Objects(one.target.box / 8, ("a",)))
    one = replace(one, picture=np.full((32, 32, 3), 255, np.uint8))

    def count(found: detection.Detected, colour: str) -> int:
        draw({"row": [found]}, tmp_path / "p.png")
        wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        with Image.open(tmp_path / "p.png") as image:
            return int((np.abs(np.asarray(image.convert("RGB")).astype(int) - wanted).max(-1) < 40).sum())

    wrong = replace(one, label=("b",))
    assert count(one, RIGHT) > 100 > count(one, WRONG)
    assert count(wrong, WRONG) > 100 > count(wrong, RIGHT)
    assert count(replace(one, score=torch.tensor([0.1])), RIGHT) == 0
    with pytest.raises(HetgraphError, match="'x': no picture"):
        draw({"row": [replace(one, picture=None)]}, tmp_path / "x.png")
    with pytest.raises(HetgraphError, match="nothing to draw"):
        draw({}, tmp_path / "x.png")

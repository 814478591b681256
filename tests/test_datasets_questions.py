"""Questions about pictures as samples: DAQUAR, VQA-RAD, SHAPES."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from readers import genuine, put
from test_datasets_common import check, equal

from hetgraph import GraphBuilder
from hetgraph.encoders import HashWords
from hetgraph.errors import HetgraphError
from hetgraph.objectives import Answering, objective_from_json
from hetgraph.tasks.datasets import daquar, load, shapes, vqa_rad
from hetgraph.tasks.datasets.facts import Facts
from hetgraph.tasks.datasets.official.parts import Question
from hetgraph.tasks.datasets.questions import Phrases, grid_boxes, held_out


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


# what they share


def test_phrases_are_the_words_and_pairs_that_occur_often_enough() -> None:
    phrases = Phrases(["Is it red ?", "is it, blue ?", "red it is"], least=2)
    assert set(phrases.index) == {"is", "it", "red", "?", "is it"}
    [row] = phrases.node("it is RED, is it ?").astype(int)
    assert {name for name, i in phrases.index.items() if row[i]} == {"it", "is", "red", "?", "is it"}
    assert row.sum() == len(phrases)
    assert not phrases.node("what now").any()
    with pytest.raises(HetgraphError, match="no word occurs 2 times"):
        Phrases(["a b", "c"])


def test_a_grid_of_boxes_covers_the_picture_once() -> None:
    boxes = grid_boxes(3, whole=True)
    assert boxes[-1].tolist() == [0, 0, 1, 1]
    sides = boxes[:-1, 2:] - boxes[:-1, :2]
    assert np.prod(sides, 1).sum() == pytest.approx(1)
    # row by row: the second lies right of the first
    assert boxes[1, :2].tolist() == pytest.approx([1 / 3, 0])


def test_what_has_one_key_is_held_out_together() -> None:
    items = [f"{key} {i}" for key in range(60) for i in range(3)]
    train, valid = held_out(items, lambda item: item.split()[0], 5)
    assert sorted(train + valid) == sorted(items)
    assert not {i.split()[0] for i in train} & {i.split()[0] for i in valid}
    assert 15 <= len(valid) <= 60
    with pytest.raises(HetgraphError, match="cannot be split for validation"):
        held_out(["a", "a"], str, 5)


def test_an_answer_that_training_does_not_have_is_wrong_and_teaches_nothing() -> None:
    objective = Answering(("no", "yes"))
    target = objective.encode(["yes", "perhaps", "no"], ["a", "b", "c"])
    assert target.tolist() == [1, 2, 0]
    for row in ([5.0, 0.0], [0.0, 5.0]):
        scores = torch.tensor([row] * 3, requires_grad=True)
        losses = objective.losses(scores, target)
        expected = torch.nn.functional.cross_entropy(scores[[0, 2]], target[[0, 2]], reduction="none")
        assert torch.equal(losses[[0, 2]], expected)
        assert losses[1] == 0
        losses.sum().backward()
        assert scores.grad is not None
        assert not scores.grad[1].any()
        assert objective.metrics(scores.detach(), target)["accuracy"] == pytest.approx(1 / 3)
    assert objective_from_json(objective.to_json()) == objective
    with pytest.raises(HetgraphError, match="'b': no target"):
        objective.encode(["yes", None], ["a", "b"])


def features(folder: Path, names: list[str], width: int = 4) -> Path:
    values = np.random.default_rng(0).normal(3, 2, (len(names), 10, width)).astype(np.float16)
    np.savez(folder / "effnet_lite0_regions_pca256.npz", image=np.array(names), regions=values)
    return folder


# DAQUAR

ROOMS = [f"image{i}" for i in range(40)]


def put_rooms(folder: Path, **arrays: np.ndarray) -> Path:
    rows = [
        {"question": f"what is on the {('table', 'desk')[i % 2]} ?", "answer": answer, "image": image}
        for i, image in enumerate(ROOMS[:30])
        for answer in ("lamp", ("cup", "cup, book")[i % 2])
    ]
    test = [{"question": "what is on the table ?", "answer": a, "image": ROOMS[35]} for a in ("lamp", "zebra", "a, b")]
    rng = np.random.default_rng(1)
    found = {
        "image": np.array(ROOMS),
        "boxes": rng.uniform(0, 1, (40, 5, 4)).astype(np.float32),
        "score": np.tile(np.float32([0.9, 0.5, 0.2, 0.1, 0.0]), (40, 1)),
        "cls": np.tile(np.int16([1, 1, 0, 2, 0]), (40, 1)),
    } | arrays
    np.savez(folder / daquar.DETECTIONS, **found)
    put(folder, {"train.json": rows, "test.json": test, daquar.CLASSES: "person\nlamp\ncup\n"})
    return features(folder, ROOMS)


def test_daquar_has_words_regions_objects_and_counts(tmp_path) -> None:
    data = daquar.single_word(put_rooms(tmp_path), encoder=HashWords(8))
    check(data)
    assert {name: node.dim for name, node in data.schema.nodes.items()} == {
        "question": len(Phrases(data.about[s.id]["question"] for s in data.train)),
        "token": 8,
        "region": 4,
        "object": 4,
        "count": 3,
    }
    assert [s.target for s in data.test] == ["lamp", "zebra"]
    assert data.objective == Answering(("cup", "lamp"), smoothing=0.1)
    sample = data.test[0]
    # two lamps with 0.9 and 0.5, a person with just enough; the rest is too uncertain
    [tokens] = HashWords(8)(["what is on the table ?"])
    expected = {
        "object": torch.tensor([[0, 1, 0, 0.9], [0, 1, 0, 0.5], [1, 0, 0, 0.2]]),
        "count": torch.tensor([[np.log(2), np.log(3), 0]]).float(),
        "token": tokens["x"],
    }
    for name, features in expected.items():
        # one scale for all of a type, so that those of training have a mean square of one
        scale = expected[name].norm() / sample.nodes[name]["x"].norm()
        assert torch.allclose(sample.nodes[name]["x"] * scale, features, atol=1e-5)
        every = torch.cat([s.nodes[name]["x"] for s in data.train if name in s.nodes])
        assert float(every.square().mean()) == pytest.approx(1, abs=1e-4)
    assert data.about[sample.id]["image"] == ROOMS[35]
    images = [{data.about[s.id]["image"] for s in part} for part in (data.train, data.valid, data.test)]
    assert not images[0] & images[1] | images[0] & images[2] | images[1] & images[2]
    shown = torch.cat([s.nodes["region"]["x"] for s in {data.about[s.id]["image"]: s for s in data.train}.values()])
    assert shown.mean(0).abs().max() < 0.02
    assert shown.std(0).sub(1).abs().max() < 0.03


def test_daquar_with_all_questions_takes_a_list_as_one_answer(tmp_path) -> None:
    data = daquar.all_questions(put_rooms(tmp_path), encoder=HashWords(8))
    check(data)
    assert set(data.objective.classes) == {"lamp", "cup", "cup, book"}
    assert [s.target for s in data.test] == ["lamp", "zebra", "a, b"]


def test_a_picture_without_objects_has_no_node_of_them(tmp_path) -> None:
    data = daquar.single_word(put_rooms(tmp_path, score=np.zeros((40, 5), np.float32)), encoder=HashWords(8))
    check(data)
    assert all("object" not in s.nodes for s in data.train)
    assert not data.test[0].nodes["count"]["x"].any()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"boxes": np.zeros((40, 4, 4), np.float32)}, r"expected boxes \[N, M, 4\].*got \[40, 4, 4\]"),
        ({"cls": np.full((40, 5), 3, np.int16)}, r"cls must lie in 0 .. 2"),
        ({"image": np.array(["x", *ROOMS[1:]])}, "no features of picture 'image0'"),
    ],
)
def test_wrong_detections_are_named(tmp_path, arrays, message) -> None:
    with pytest.raises(HetgraphError, match=f"DAQUAR: .*{message}"):
        daquar.single_word(put_rooms(tmp_path, **arrays), encoder=HashWords(8))


# VQA-RAD

SCANS = [f"synpic{i}.jpg" for i in range(40)]


def put_scans(folder: Path) -> Path:
    def row(i: int, image: str, **fields: Any) -> dict[str, Any]:
        return {
            "qid": i,
            "image_name": image,
            "image_organ": "HEAD",
            "answer": ("Yes", "no")[i % 2],
            "answer_type": ("CLOSED", "OPEN")[i % 3 == 0],
            "question_type": "PRES",
            "question": "is it big ?",
            "phrase_type": "freeform",
        } | fields

    train = [row(i, SCANS[i % 40], question_type=("PRES", "SIZE")[i // 40]) for i in range(80)]
    test = [row(100 + i, SCANS[i], answer=("YES", "left")[i % 2], phrase_type="test_para") for i in range(4)]
    put(folder, {"trainset.json": train, "testset.json": test})
    return features(folder, SCANS)


def test_vqa_rad_comes_in_both_splits(tmp_path) -> None:
    put_scans(tmp_path)
    one, other = (read(tmp_path, encoder=HashWords(8)) for read in (vqa_rad.official, vqa_rad.disjoint))
    for data in (one, other):
        check(data)
        assert data.modalities == ("question", "token", "region") + (("fact",) if data is one else ())
        assert data.objective.classes[:2] in (("left", "no"), ("no", "yes"))
    assert [s.id for s in one.test] == ["100", "101", "102", "103"]
    assert [s.target for s in one.test] == ["yes", "left", "yes", "left"]
    assert one.about["100"]["kind"] == "closed"
    # as of the official test part: its pictures are those of training
    pictures = [{one.about[s.id]["image"] for s in part} for part in (one.train, one.valid, one.test)]
    assert pictures[1] & pictures[0]
    assert pictures[2] & pictures[0]
    images = [{other.about[s.id]["image"] for s in part} for part in (other.train, other.valid, other.test)]
    assert not images[0] & images[1] | images[0] & images[2] | images[1] & images[2]


def test_facts_are_the_other_training_questions_about_the_picture(tmp_path) -> None:
    data = vqa_rad.official(put_scans(tmp_path), encoder=HashWords(8))
    asked = [(s.id, data.about[s.id]["image"], s.target) for s in data.train]
    answers = sorted({answer for _, _, answer in asked})
    for sample in (*data.train, *data.valid, *data.test):
        others = [a for name, image, a in asked if image == data.about[sample.id]["image"] and name != sample.id]
        if not others:
            assert "fact" not in sample.nodes
            continue
        said = sample.nodes["fact"]["x"][:, -len(answers) :]
        assert [answers[i] for i in said.argmax(1)] == others
        assert torch.allclose(said.square().mean(1), torch.ones(len(others)))
    some = [data.about[s.id]["image"] for s in data.test if "fact" in s.nodes]
    assert some
    # every question is the same here: words and tokens have nothing to tell apart
    assert all(s.nodes["fact"]["x"][:, : -len(answers)].isfinite().all() for s in data.train if "fact" in s.nodes)


def test_a_fact_says_what_its_question_says() -> None:
    questions = [
        Question(str(i), "one", text, ("yes",), "train") for i, text in enumerate(["is it red", "is it big", "is it"])
    ]
    tokens = {q.question: np.random.default_rng(i).normal(size=(i + 2, 3)) for i, q in enumerate(questions)}
    phrases = Phrases(q.question for q in questions)
    facts = Facts(questions, ["yes", "no", "yes"], phrases.node, tokens)
    found = facts.of(Question("new", "one", "is it", ("no",), "test"))
    assert found.shape == (3, facts.width) == (3, len(phrases) + 3 + 2)
    words, token, said = np.split(found, [len(phrases), len(phrases) + 3], 1)
    plain = np.concatenate([phrases.node(q.question) for q in questions])
    np.testing.assert_allclose(words, plain / np.sqrt((plain**2).mean()), rtol=1e-6)
    means = np.stack([tokens[q.question].mean(0) for q in questions])
    np.testing.assert_allclose(token, (means - means.mean(0)) / means.std(0), rtol=1e-5)
    np.testing.assert_allclose(said, np.array([[0, 1], [1, 0], [0, 1]]) * np.sqrt(2), rtol=1e-6)
    np.testing.assert_array_equal(facts.of(questions[1]), found[[0, 2]])
    assert facts.of(Question("new", "two", "is it", ("no",), "test")) is None


# SHAPES


def changed(change: shapes.Change, cells: np.ndarray) -> np.ndarray:
    """The picture that a change makes of cells ``[9, 10, 10, 3]``."""
    return cells[list(change.places)][..., list(change.colours)]


def right(cells: np.ndarray, question: str) -> bool:
    """The answer by the meaning of the words, for cells whose corner pixel says colour and shape."""
    colours, names = ("red", "green", "blue"), ("circle", "square", "triangle")
    grid = np.empty((3, 3), object)
    for i, cell in enumerate(cells):
        channel = int(cell[0, 0].argmax())
        value = int(cell[0, 0].max())
        grid[i // 3, i % 3] = (colours[channel], names[value - 1]) if value else ("", "")
    things = re.findall("red|green|blue|circle|square|triangle", question)
    there = [{(i, j) for i in range(3) for j in range(3) if thing in grid[i, j]} for thing in things]
    for side in reversed(re.findall("left|right|above|below", question)):
        step = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}[side]
        moved = {(i + step[0], j + step[1]) for i, j in there[1]}
        there[1] = {(i, j) for i, j in moved if 0 <= i < 3 and 0 <= j < 3}
    return bool(there[0] & there[1])


ASKED = [
    "is a red shape left of a circle",
    "is a green shape above right of a blue shape",
    "is a triangle below below a square",
    "is a circle a square",
    "is a square red",
    "is a blue shape left of above a red shape",
]


def test_changes_leave_the_answer() -> None:
    every = list(shapes.changes())
    assert len(every) == 96
    assert every[0].question(ASKED[1]) == ASKED[1]
    rng = np.random.default_rng(0)
    answers: Counter = Counter()
    for _ in range(40):
        cells = np.zeros((9, 10, 10, 3), np.uint8)
        for cell in cells:
            if rng.random() < 0.8:
                cell[..., rng.integers(3)] = rng.integers(1, 4)
        for question in ASKED:
            expected = right(cells, question)
            answers[expected] += 1
            for change in every:
                assert right(changed(change, cells), change.question(question)) == expected
    assert min(answers[True], answers[False]) > 20
    numbers = np.arange(9)[:, None, None, None].repeat(3, 3)
    seen = {tuple(changed(change, numbers)[..., 0].ravel()) for change in every[:8]}
    assert len(seen) == 8


def test_a_question_is_turned_round() -> None:
    assert shapes.reversed_question("is a red shape above right of a circle") == (
        "is a circle below left of a red shape"
    )
    assert shapes.reversed_question("is a circle red") == "is a red shape a circle"
    assert shapes.reversed_question("is a green shape red") == "is a red shape green"
    with pytest.raises(HetgraphError, match="expected a question like 'is a circle"):
        shapes.reversed_question("how many circles")


def put_shapes(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    parts = {"train_small": 6, "train_extra": 4, "train_tiny": 2, "val": 3, "test": 3}
    np.savez(
        folder / "images.npz",
        **{f"{part}_images": rng.integers(0, 256, (n, 30, 30, 3), dtype=np.uint8) for part, n in parts.items()},
    )
    files = {
        f"{part}.json": [
            {"image": i, "question": ASKED[i], "query": "(is)", "answer": ("true", "false")[i % 2]} for i in range(n)
        ]
        for part, n in parts.items()
    }
    return put(folder, files)


def test_shapes_are_cells_and_words_with_changed_copies(tmp_path) -> None:
    folder = put_shapes(tmp_path)
    data, plain, other = (
        shapes.yes_no(folder, copies=4),
        shapes.yes_no(folder, copies=1),
        shapes.yes_no(folder, copies=4, seed=1),
    )
    check(data)
    assert (len(data.train), len(plain.train), len(data.valid), len(data.test)) == (40, 10, 3, 3)
    assert equal(data.train[::4], plain.train)
    assert equal(data.test, other.test)
    assert not equal(data.train, other.train)
    assert {s.target for s in data.train} == {"yes", "no"}
    picture = data.about["test-1"]["picture"]
    cells = data.test[1].nodes["cell"]["x"].numpy().reshape(3, 3, shapes.FEATURES)
    shown = picture[10:20, 20:30].astype(float) / 255
    np.testing.assert_allclose(cells[1, 2, :3], [shown[..., c].sum() / shown.sum() for c in range(3)], atol=1e-6)
    assert not shapes.cell_features(np.zeros((9, 10, 10, 3))).any()
    assert data.test[1].nodes["word"]["x"].sum(1).tolist() == [1.0] * len(ASKED[1].split())
    with pytest.raises(HetgraphError, match=r"copies must lie in 1 \.\. 96"):
        shapes.yes_no(folder, copies=97)


def test_the_form_of_a_cell_depends_on_neither_place_nor_size() -> None:
    cells = np.zeros((9, 10, 10, 3))
    for cell, (place, size) in zip(cells, [((0, 0), 2), ((4, 4), 2), ((1, 3), 4)], strict=False):
        # the lower triangle of a square, in green
        for i in range(size):
            cell[place[0] + i, place[1] : place[1] + i + 1, 1] = 0.8
    found = shapes.cell_features(cells)
    assert np.array_equal(found[0], found[1])
    assert found[0, :3].tolist() == [0, 1, 0]
    assert found[[0, 2], 3:5].tolist() == [pytest.approx([0.2, 0.2]), pytest.approx([0.4, 0.4])]
    form = found[0, 5:].reshape(shapes.CROP, shapes.CROP)
    assert np.array_equal(form, np.kron([[1, 0], [1, 1]], np.ones((3, 3))))
    assert not found[3:].any()


def test_a_look_hears_a_word_and_a_cell_and_a_place_two_looks(tmp_path) -> None:
    data = shapes.yes_no(put_shapes(tmp_path), copies=1)
    graph = GraphBuilder(data.schema)(data.test[:1])
    assert data.about[data.test[0].id]["question"] == "is a red shape left of a circle"
    asked, shown, part = (
        {(int(i), int(j)) for i, j in graph.edge_index[key].T} for key in (shapes.ASKED, shapes.SHOWN, shapes.PART)
    )
    # "red" is the third word, "circle" the eighth
    assert asked == {(2, look) for look in range(9)} | {(7, look) for look in range(9, 18)}
    assert shown == {(cell, cell) for cell in range(9)} | {(cell, cell + 9) for cell in range(9)}
    heard = {frozenset(look for look, place in part if place == k) for k in range(6)}
    assert heard == {frozenset((3 * i + j - 1, 9 + 3 * i + j)) for i in range(3) for j in (1, 2)}
    assert len(part) == 12


@pytest.mark.parametrize("question", [*ASKED, "is a circle left of left of left of a square"])
def test_an_answer_is_yes_where_both_looks_of_a_place_find_their_thing(question) -> None:
    rng = np.random.default_rng(3)
    said, edges = question.split(), shapes.looks_and_places(shapes.parsed(question))
    word, cell = ({int(j): int(i) for i, j in edges[key].T} for key in (shapes.ASKED, shapes.SHOWN))
    for _ in range(60):
        cells = np.zeros((9, 10, 10, 3), np.uint8)
        for one in cells:
            if rng.random() < 0.8:
                one[..., rng.integers(3)] = rng.integers(1, 4)
        alone = [np.where(np.arange(9)[:, None, None, None] == c, cells, 0) for c in range(9)]
        found = [right(alone[cell[k]], f"is a {said[word[k]]} {said[word[k]]}") for k in range(18)]
        places: dict[int, list[bool]] = {}
        for look, place in edges[shapes.PART].T.tolist():
            places.setdefault(place, []).append(found[look])
        assert all(len(both) == 2 for both in places.values())
        assert any(map(all, places.values())) == right(cells, question)


def test_features_of_a_changed_picture_are_changed_features() -> None:
    cells = np.random.default_rng(1).random((9, 10, 10, 3))
    cells[4] = 0
    features = shapes.cell_features(cells)
    for change in shapes.changes():
        np.testing.assert_allclose(change.features(features), shapes.cell_features(changed(change, cells)), atol=1e-6)


# the real files


@pytest.mark.parametrize(
    ("name", "folder", "read", "sizes"),
    [
        ("daquar", "daquar", daquar.single_word, (5554, 595, 5076)),
        ("daquar_recall", "daquar", daquar.recall, (5554, 595, 5076)),
        ("vqa_rad", "vqa_rad", vqa_rad.official, (2667, 397, 451)),
        ("vqa_rad_disjoint", "vqa_rad", vqa_rad.disjoint, (2338, 504, 673)),
    ],
)
def test_the_genuine_questions_have_their_sizes(name, folder, read, sizes) -> None:
    data = read(genuine(folder), encoder=HashWords(4))
    check(data)
    assert data.name == name
    assert tuple(len(part) for part in (data.train, data.valid, data.test)) == sizes


def test_the_genuine_shapes_are_1552_training_pictures() -> None:
    data = shapes.yes_no(genuine("shapes_vqa"), copies=1)
    check(data)
    assert (len(data.train), len(data.valid), len(data.test)) == (1552, 1024, 1024)


def test_they_are_loaded_by_name(tmp_path) -> None:
    assert load("shapes", put_shapes(tmp_path)).name == "shapes"

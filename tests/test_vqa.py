"""Visual question answering: WUPS against NLTK's definition, scores, answers, the command, the picture."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_datasets_questions import put_shapes

from hetgraph import Fusion, Sample
from hetgraph.errors import HetgraphError
from hetgraph.objectives import Regression
from hetgraph.predictor import Predictor
from hetgraph.tasks import vqa
from hetgraph.tasks.datasets import load, scenes_fusion
from hetgraph.tasks.datasets.suggested import SUGGESTED
from hetgraph.tasks.vqa.picture import draw
from hetgraph.training import TrainingSettings


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


# WUPS

HYPERNYMS = {
    "dog": ("canine", "pet"),
    "canine": ("carnivore",),
    "cat": ("feline",),
    "feline": ("carnivore",),
    "carnivore": ("animal",),
    "pet": ("animal",),
    "chair": ("seat",),
    "seat": ("thing",),
    "animal": ("thing",),
}
SENSES = {"dog": ("dog",), "cat": ("cat",), "easy_chair": ("chair",), "chair": ("chair", "canine"), "rock": ("stone",)}
TAXONOMY = vqa.Taxonomy(HYPERNYMS, SENSES)


def paths(hypernyms: Mapping[str, Sequence[str]], sense: str) -> list[list[str]]:
    """All ways from a sense up to a root."""
    above = hypernyms.get(sense, ())
    return [[sense, *path] for up in above for path in paths(hypernyms, up)] if above else [[sense]]


def by_nltk(hypernyms: Mapping[str, Sequence[str]], a: str, b: str) -> float:
    """``wup_similarity`` of nltk.corpus.reader.wordnet (nouns of WordNet 3.0, which need no added root)."""
    every = {a, b, *hypernyms, *(up for above in hypernyms.values() for up in above)}
    ways = {sense: paths(hypernyms, sense) for sense in every}
    above = {sense: {up for way in ways[sense] for up in way} for sense in ways}
    common = above[a] & above[b]
    if not common:
        return 0.0
    deepest = max(min(map(len, ways[sense])) for sense in common)
    lowest = sorted(sense for sense in common if min(map(len, ways[sense])) == deepest)
    subsumer = a if a in lowest else lowest[0]
    depth = max(map(len, ways[subsumer]))

    def apart(x: str, y: str) -> int:
        return min(
            one.index(sense) + other.index(sense)
            for sense in above[x] & above[y]
            for one, other in product(ways[x], ways[y])
            if sense in one and sense in other
        )

    return 2 * depth / (apart(a, subsumer) + depth + apart(b, subsumer) + depth)


@st.composite
def taxonomies(draw) -> dict[str, tuple[str, ...]]:
    """Senses s0 .. s7, each below up to two with smaller numbers."""
    found = {}
    for i in range(1, 8):
        chosen = draw(st.lists(st.integers(0, i - 1), max_size=2, unique=True))
        if chosen:
            found[f"s{i}"] = tuple(f"s{j}" for j in chosen)
    return found


@given(taxonomies())
def test_similarity_is_that_of_nltk(hypernyms) -> None:
    taxonomy = vqa.Taxonomy(hypernyms, {})
    names = {"s0", *hypernyms, *(up for above in hypernyms.values() for up in above)}
    for a, b in product(sorted(names), repeat=2):
        assert taxonomy.similarity(a, b) == pytest.approx(by_nltk(hypernyms, a, b))


def test_similarity_by_hand() -> None:
    # carnivore is the third sense from the root; dog and cat are two steps below it
    assert TAXONOMY.similarity("dog", "cat") == pytest.approx(2 * 3 / (2 + 2 + 2 * 3))
    assert TAXONOMY.similarity("dog", "chair") == pytest.approx(2 * 1 / (3 + 2 + 2))
    assert TAXONOMY.similarity("dog", "stone") == 0
    # the best over the senses; "Chair" is looked up in lower case, "easy chair" with an underscore
    assert TAXONOMY.word_similarity("dog", "Chair") == pytest.approx(TAXONOMY.similarity("dog", "canine"))
    assert TAXONOMY.word_similarity("easy chair", "dog") == pytest.approx(TAXONOMY.similarity("chair", "dog"))
    assert TAXONOMY.word_similarity("7", "7") == 1
    assert TAXONOMY.word_similarity("7", "dog") == 0


def test_a_taxonomy_that_goes_round_is_refused() -> None:
    with pytest.raises(HetgraphError, match="lies above itself"):
        vqa.Taxonomy({"a": ("b",), "b": ("a",)}, {}).similarity("a", "b")


def test_wups_of_sets() -> None:
    m = TAXONOMY.word_similarity
    assert vqa.wups(["dog"], ["cat"], TAXONOMY, 0.0) == pytest.approx(m("dog", "cat"))
    assert vqa.wups(["dog"], ["cat"], TAXONOMY, 0.9) == pytest.approx(0.1 * m("dog", "cat"))
    assert vqa.wups(["dog", "cat"], ["cat", "dog"], TAXONOMY, 0.9) == 1
    # one word for two: the one that is missing counts with its nearest
    assert vqa.wups(["dog"], ["dog", "cat"], TAXONOMY, 0.0) == pytest.approx(m("dog", "cat"))
    assert vqa.wups(["dog", "cat"], ["dog"], TAXONOMY, 0.0) == pytest.approx(m("dog", "cat"))
    with pytest.raises(HetgraphError, match="needs words on both sides"):
        vqa.wups([], ["dog"], TAXONOMY, 0.0)


# scores


def answered(answer: str, target: str | None, kind: str = "") -> vqa.Answered:
    return vqa.Answered("q", "what ?", "image1", answer, 0.75, (("cat", 0.25),), target, kind)


def test_scores_by_kind_and_with_a_taxonomy() -> None:
    some = [answered("dog", "dog", "open"), answered("dog", "cat", "open"), answered("yes", "yes", "closed")]
    assert vqa.score(some) == pytest.approx({"accuracy": 2 / 3, "accuracy_closed": 1.0, "accuracy_open": 0.5})
    found = vqa.score([answered("dog", "dog, cat"), answered("dog, cat", "dog, cat")], TAXONOMY)
    low = TAXONOMY.word_similarity("dog", "cat")
    assert found == pytest.approx({"accuracy": 0.5, "wups_0.9": (1 + 0.1 * low) / 2, "wups_0.0": (1 + low) / 2})
    with pytest.raises(HetgraphError, match="no questions to score"):
        vqa.score([])
    with pytest.raises(HetgraphError, match="'q': no right answer"):
        vqa.score([answered("dog", None)])


def test_the_summary_over_seeds() -> None:
    runs = [{"accuracy": 0.5, "wups": 0.1}, {"accuracy": 0.7}, {"accuracy": 0.9}]
    values = [0.5, 0.7, 0.9]
    assert vqa.summary(runs) == {"accuracy": (pytest.approx(fmean(values)), pytest.approx(stdev(values)))}
    assert vqa.summary(runs[:1])["accuracy"] == (0.5, 0.0)
    assert vqa.summary([]) == {}


# training and answering

SMALL = vqa.TaskSettings(
    width=8, layers=1, heads=2, dropout=0.0, training=TrainingSettings(epochs=2, batch_size=8, lr=0.01)
)


@pytest.fixture
def data(tmp_path):
    return load("shapes", put_shapes(tmp_path))


def test_train_predict_and_evaluate(data, tmp_path) -> None:
    model = vqa.train(data, SMALL, progress=False)
    found = vqa.predict(model, data)
    assert [one.id for one in found] == [s.id for s in data.test]
    again = vqa.train(data, SMALL, progress=False)
    assert [one.confidence for one in vqa.predict(again, data)] == [one.confidence for one in found]
    other = vqa.train(data, SMALL, seed=1, progress=False)
    assert [one.confidence for one in vqa.predict(other, data)] != [one.confidence for one in found]
    for one, sample in zip(found, data.test, strict=True):
        assert {one.answer, one.others[0][0]} == {"yes", "no"}
        assert one.confidence >= one.others[0][1]
        assert one.confidence + one.others[0][1] == pytest.approx(1)
        assert one.question == data.about[sample.id]["question"]
        assert one.right == (one.answer == sample.target)
        assert json.loads(json.dumps(one.to_json()))["answer"] == one.answer
    expected = fmean(one.answer == s.target for one, s in zip(found, data.test, strict=True))
    assert vqa.evaluate(model, data) == {"accuracy": pytest.approx(expected)}
    model.save_pretrained(tmp_path / "model")
    loaded = Predictor.from_pretrained(tmp_path / "model")
    assert vqa.predict(loaded, data) == found


def test_questions_and_answers_are_needed(data) -> None:
    model = vqa.train(data, replace(SMALL, training=replace(SMALL.training, epochs=1)), progress=False)
    stranger = Sample(id="stranger", nodes=data.test[0].nodes, edges=data.test[0].edges)
    with pytest.raises(HetgraphError, match="'stranger' comes without a question"):
        vqa.predict(model, data, [stranger])
    number = Predictor(Fusion(data.schema, 8, heads=2), Regression())
    with pytest.raises(HetgraphError, match="chooses an answer, got one for Regression"):
        vqa.predict(number, data)


def test_settings_suit_the_data_set_and_can_be_changed() -> None:
    for name in SUGGESTED:
        settings = vqa.suggested(name)
        chosen = SUGGESTED[name]
        assert settings.training.lr == chosen.get("lr", (settings.training.lr,))[0]
        assert settings.width == chosen.get("width", 64)
    assert vqa.suggested("daquar", lr=0.5, width=12, method="concat").training.lr == 0.5
    with pytest.raises(HetgraphError, match="no setting 'colour'"):
        vqa.suggested("daquar", colour=1)


def test_the_command_trains_scores_and_keeps_the_answers(data, tmp_path, typed) -> None:
    words = ("task", "vqa", "shapes", "--data", tmp_path, "--output", tmp_path / "out", "--seeds", 2)
    small = ("--epochs", 1, "--width", 8, "--layers", 1, "--heads", 2)
    code, out, err = typed(*words, *small, "--json", tmp_path / "s.json", "--picture", tmp_path / "p.png")
    assert (code, err) == (0, "")
    assert "shapes, graph, 2 seeds" in out
    assert "accuracy" in out
    result = json.loads((tmp_path / "s.json").read_text())
    for seed in range(2):
        lines = (tmp_path / "out" / f"seed-{seed}" / "answers.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == [s.id for s in data.test]
        share = fmean(json.loads(line)["right"] for line in lines)
        assert result["runs"][seed]["accuracy"] == pytest.approx(share)
        assert Predictor.from_pretrained(tmp_path / "out" / f"seed-{seed}").schema == data.schema
    with Image.open(tmp_path / "p.png") as image:
        assert image.size[0] > 300
    code, _, err = typed("task", "vqa", "tuxpaint")
    assert code != 0
    assert "no questions in 'tuxpaint'" in err


def test_answers_are_drawn_over_their_pictures(tmp_path) -> None:
    pixels = np.zeros((30, 30, 3), np.uint8)
    pixels[:15] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    some = [
        replace(answered("yes", "yes"), picture=pixels),
        replace(answered("no", "yes"), picture=tmp_path / "one.png"),
    ]
    one, two = (np.asarray(Image.open(draw(some[:n], tmp_path / f"{n}.png", columns=2)).convert("RGB")) for n in (1, 2))

    def red(image: np.ndarray) -> int:
        return int((image == (255, 0, 0)).all(-1).sum())

    assert red(two) > 1.8 * red(one) > 1000
    with pytest.raises(HetgraphError, match="'q': no picture"):
        draw([answered("yes", "yes")], tmp_path / "x.png")
    with pytest.raises(HetgraphError, match="no questions to draw"):
        draw([], tmp_path / "x.png")


PAGE = (Path(__file__).parents[1] / "docs" / "tasks" / "vqa.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_run_and_print_what_they_say(monkeypatch, capsys) -> None:
    monkeypatch.setattr(scenes_fusion, "PER_KIND", {"train": 16, "valid": 16, "test": 16})
    names: dict[str, object] = {}
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(codes) == 2
    for code in codes:
        exec(compile(code, "docs/tasks/vqa.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert 0 <= float(printed[0]) <= 1
    assert all("->" in line and "right:" in line for line in printed[1:4])
    assert printed[4:] == re.findall(r"print\(.*\) +# (.*)", codes[1])


def test_the_page_names_every_data_set_with_questions() -> None:
    assert all(f"`{name}`" in PAGE for name in vqa.DATA)


def test_wordnet_as_taxonomy_scores_as_nltk_does() -> None:
    if not Path("/usr/share/wordnet/data.noun").is_file():
        pytest.skip("WordNet is not installed: Debian's wordnet-base")
    taxonomy = vqa.Taxonomy.from_wordnet()
    # what NLTK's wup_similarity gives, the best over all noun senses
    assert taxonomy.word_similarity("dog", "cat") == pytest.approx(0.857142857)
    assert taxonomy.word_similarity("chair", "chair") == 1.0
    assert taxonomy.word_similarity("garbage_bin", "chair") == 0.0

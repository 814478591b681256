"""The scenes: same bits from the same seed, no shortcuts, and nothing left when what is needed is gone."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from itertools import combinations, permutations

import numpy as np
import pytest
import soundfile
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from hetgraph.errors import HetgraphError
from hetgraph.kg.linking import Linker
from hetgraph.kg.triples import read_triples
from hetgraph.tasks.datasets.scenes import (
    ANSWERS,
    COUNTS,
    MODALITIES,
    QUESTIONS,
    TRAIN_COUNTS,
    Scene,
    Scenes,
    chance,
    generate,
)
from hetgraph.tasks.datasets.scenes_lexicon import CONCEPTS, FAMILIES, NAMESPACE, SPLITS, WORDS
from hetgraph.tasks.datasets.scenes_media import COLOURS, RATE, SHAPES

SUBSETS = [frozenset(c) for n in range(4) for c in combinations(MODALITIES, n)]


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return generate(train=1280, valid=128, test=1152, seed=7)


# --- an oracle that knows how scenes are made and sees only what is left -----------------------------------


@cache
def _pictures() -> list[tuple[tuple[str, str], ...]]:
    """Every possible set of objects, as (kind, colour) pairs."""
    return [
        tuple(zip(kinds, colours, strict=True))
        for n in COUNTS
        for kinds in combinations(SHAPES, n)
        for colours in permutations(COLOURS, n)
    ]


def _worlds(picture: tuple[tuple[str, str], ...], question: str):
    """Every (heard kind, concept asked about, answer, probability) that a picture allows."""
    n = len(picture)
    for target, (kind, colour) in enumerate(picture):
        for heard in range(n):
            other = picture[heard][0]
            if question in ("text", "image", "knowledge", "image+knowledge"):
                asked = f"{colour} {kind}" if question == "text" else kind
                yield other, asked, kind if question == "knowledge" else colour, 1 / n**2
            elif question in ("sound", "image+sound") and heard == target:
                yield other, "", kind if question == "sound" else colour, 1 / n
            elif question in ("sound+knowledge", "image+sound+knowledge"):
                asked = kind if question == "sound+knowledge" else colour
                p = 0.5 / n if heard == target else 0.5 / n / (n - 1)
                yield other, asked, "yes" if heard == target else "no", p


def _concept(scene: Scene, knows: bool) -> str:
    """What the question asks about; an invented word is looked up in the scene's facts by its label."""
    labels = [entity.label for entity in scene.entities]
    named = [labels.index(word) for word in scene.words if word in labels]
    meant = []
    for entity in named:
        tails = [f.tail for f in scene.facts if f.head == entity and f.relation == "denotes"]
        if tails and not knows:
            return "?"
        meant.append(labels[tails[0]] if tails else labels[entity])
    return " ".join(meant)


@cache
def _joint(question: str, picture: tuple[tuple[str, str], ...] | None) -> dict[tuple[str, str, str], float]:
    """P(heard, asked, answer | picture); without a picture over all of them, 3 and 4 objects equally likely."""
    pictures = [picture] if picture else _pictures()
    sizes = Counter(len(p) for p in pictures)
    joint: Counter[tuple[str, str, str]] = Counter()
    for candidate in pictures:
        for heard, asked, answer, p in _worlds(candidate, question):
            joint[heard, asked, answer] += p / sizes[len(candidate)]
    return dict(joint)


@cache
def _posterior(question: str, picture, heard: str | None, asked: str) -> dict[str, float]:
    """P(answer | what is seen); ``None`` and "?" mean unseen."""
    belief: Counter[str] = Counter()
    for (sound, concept, answer), p in _joint(question, picture).items():
        if heard in (None, sound) and asked in ("?", concept):
            belief[answer] += p
    total = sum(belief.values())
    return {answer: p / total for answer, p in belief.items()}


def oracle(scene: Scene, without: frozenset[str] = frozenset()) -> dict[str, float]:
    picture = None if "image" in without else tuple(sorted(o[:2] for o in scene.objects))
    heard = None if "sound" in without else scene.objects[scene.sounding].kind
    return _posterior(scene.kind, picture, heard, _concept(scene, "knowledge" not in without))


@pytest.mark.parametrize("without", SUBSETS, ids=lambda s: "+".join(sorted(s)) or "nothing")
def test_oracle_is_perfect_with_everything_needed_and_at_chance_without(scenes, without) -> None:
    for kind, question in QUESTIONS.items():
        asked = [scene for scene in scenes if scene.kind == kind and scene.split != "train"]
        beliefs = [oracle(scene, without) for scene in asked]
        expected = np.mean([max(belief.values()) for belief in beliefs])
        # Ties are broken at random, by a generator that has seen no answer.
        rng = np.random.default_rng(0)
        guesses = []
        for belief in beliefs:
            best = sorted(a for a, p in belief.items() if p > max(belief.values()) - 1e-9)
            guesses.append(best[rng.integers(len(best))])
        hits = np.mean([guess == scene.answer for guess, scene in zip(guesses, asked, strict=True)])
        assert expected == pytest.approx(chance(kind, without), abs=0.01)
        if question.needs & without:
            assert expected <= 1 / len(question.answers) + 0.10
            assert hits <= 1 / len(question.answers) + 0.10 + 2 * (0.25 / len(asked)) ** 0.5
        else:
            assert expected == hits == 1.0


def test_chance_names_what_it_does_not_know() -> None:
    with pytest.raises(HetgraphError, match="smell"):
        chance("image", {"smell"})
    with pytest.raises(HetgraphError, match="riddle"):
        chance("riddle", {"image"})


# --- balance, shortcuts ------------------------------------------------------------------------------------


def test_answers_are_equally_frequent_whatever_the_question_asks_about(scenes) -> None:
    for split in ("train", "test"):  # multiples of 128
        for kind, question in QUESTIONS.items():
            asked = [scene for scene in scenes.split(split) if scene.kind == kind]
            answers = Counter(scene.answer for scene in asked)
            assert set(answers) == set(question.answers)
            assert len(set(answers.values())) == 1
            if kind not in ("text", "knowledge"):  # where the words or their meaning are the answer
                joint = Counter((_concept(scene, True), scene.answer) for scene in asked)
                concepts = {concept for concept, _ in joint}
                assert len(joint) == len(concepts) * len(answers)
                assert len(set(joint.values())) == 1


def test_answers_share_one_vocabulary_and_every_question_is_of_its_kind(scenes) -> None:
    assert len(set(ANSWERS)) == len(ANSWERS) == len(COLOURS) + len(SHAPES) + 2
    for scene in scenes:
        assert scene.answer in QUESTIONS[scene.kind].answers
        assert set(QUESTIONS[scene.kind].answers) <= set(ANSWERS)
        assert scene.needs == {m for m in MODALITIES if m in scene.kind}


def test_objects_of_a_scene_differ_in_kind_and_colour_and_do_not_touch(scenes) -> None:
    for scene in scenes:
        assert len(scene.objects) in (TRAIN_COUNTS if scene.split == "train" else COUNTS)
        assert len({o.kind for o in scene.objects}) == len({o.colour for o in scene.objects}) == len(scene.objects)
        boxes = np.array([o.box for o in scene.objects])
        assert (boxes > 0).all()
        assert (boxes < 1).all()
        assert len({tuple(cell) for cell in (boxes[:, :2] * 3).astype(int)}) == len(boxes)
        assert ((boxes[:, :2] * 3).astype(int) == (boxes[:, 2:] * 3).astype(int)).all()


def test_splits_share_no_invented_word_and_all_words_are_used_as_declared(scenes) -> None:
    texts = {split: {w.text for w in scenes.words if w.split == split} for split in SPLITS}
    assert {split: len(found) for split, found in texts.items()} == WORDS
    assert len(set.union(*texts.values())) == sum(WORDS.values())
    concepts = {name for names in CONCEPTS.values() for name in names}
    for scene in scenes:
        labels = {entity.label for entity in scene.entities} - concepts
        assert len(labels) == len(SHAPES)
        assert labels <= texts[scene.split]
        plain = set(scene.words) - set(" ".join(q.template for q in QUESTIONS.values()).split())
        assert plain <= labels | concepts
        assert ("knowledge" in scene.needs) == bool(plain & labels)


def test_given_facts_are_the_same_for_every_answer_until_the_word_is_linked(scenes) -> None:
    for scene in scenes:
        denoted = Counter(scene.entities[f.tail].label for f in scene.facts if f.relation == "denotes")
        assert set(denoted) in [set(names) for names in CONCEPTS.values()]
        assert set(denoted.values()) == {1}
    asked = [scene for scene in scenes if "knowledge" in scene.needs]
    places = [
        [e.label for e in scene.entities if e.iri.startswith(NAMESPACE + "word/")].index(label)
        for scene in asked
        for label in [next(e.label for e in scene.entities if e.label in scene.words)]
    ]
    counts = np.bincount(places, minlength=len(SHAPES))
    assert counts.min() > 0.6 * len(asked) / len(SHAPES)  # the asked word is not, say, always the first


def test_question_words_that_are_labels_are_exactly_those_a_linker_finds(scenes) -> None:
    graph = read_triples(scenes.ntriples().encode(), format="nt")
    linker = Linker(graph)
    for scene in scenes:
        found = {graph.entities[entity] for _, _, entity in linker.link(scene.question)}
        assert found == {entity.iri for entity in scene.entities if entity.label in scene.words}


def test_facts_are_all_edges_of_the_knowledge_file_between_the_given_entities(scenes) -> None:
    graph = read_triples(scenes.ntriples().encode(), format="nt")
    for scene in scenes.items[:100]:
        ids = [graph.index[entity.iri] for entity in scene.entities]
        assert [graph.labels[i] for i in ids] == [[entity.label] for entity in scene.entities]
        _, edges, relations = graph.subgraph(ids, hops=0)
        names = [graph.relations[r].removeprefix(NAMESPACE) for r in relations]
        assert set(zip(edges[0], names, edges[1], strict=True)) == set(scene.facts)


# --- pictures and sounds -----------------------------------------------------------------------------------


def _patches(items) -> tuple[list[np.ndarray], list[str], list[str]]:
    pixels, kinds, colours = [], [], []
    for scene in items:
        for thing in scene.objects:
            row, column = int(thing.box[1] * 3), int(thing.box[0] * 3)
            cell = scene.picture[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            small = Image.fromarray(cell).resize((8, 8), Image.Resampling.BOX)
            pixels.append(np.asarray(small).ravel() / 255.0)
            kinds.append(thing.kind)
            colours.append(thing.colour)
    return pixels, kinds, colours


def test_kind_and_colour_can_be_told_from_eight_by_eight_pixels(scenes) -> None:
    pixels, kinds, colours = _patches(scenes.split("train")[:400])
    unseen, true_kinds, true_colours = _patches(scenes.split("test"))
    assert SVC(C=10).fit(pixels, kinds).score(unseen, true_kinds) > 0.97
    assert SVC(C=10).fit(pixels, colours).score(unseen, true_colours) > 0.97


def _spectrum(scene: Scene) -> np.ndarray:
    """Log energy in 40 bands, averaged over short frames."""
    frames = np.lib.stride_tricks.sliding_window_view(scene.sound, 512)[::256] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames))[:, 1:] ** 2
    edges = np.unique(np.geomspace(1, 256, 41).astype(int))
    bands = np.add.reduceat(power, edges[:-1] - 1, axis=1)
    return np.log(bands + 1e-4).mean(axis=0)


def test_kind_can_be_told_from_the_spectrum_but_not_from_loudness_and_length(scenes) -> None:
    train, test = scenes.split("train")[:700], scenes.split("test")
    heard = [s.objects[s.sounding].kind for s in train], [s.objects[s.sounding].kind for s in test]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit([_spectrum(s) for s in train], heard[0])
    assert model.score([_spectrum(s) for s in test], heard[1]) > 0.95

    def crude(scene: Scene) -> list[float]:
        return [len(scene.pcm), float(np.sqrt(np.mean(scene.sound**2)))]

    model.fit([crude(s) for s in train], heard[0])
    assert model.score([crude(s) for s in test], heard[1]) < 1 / len(SHAPES) + 0.10


@pytest.mark.parametrize("kind", [kind for kind in SHAPES if kind != "cross"])  # a rattle has no single pitch
def test_each_timbre_is_played_all_over_the_same_octave(scenes, kind) -> None:
    pitches = []
    for scene in scenes:
        if scene.objects[scene.sounding].kind == kind:
            power = np.abs(np.fft.rfft(scene.sound, 1 << 15))
            hertz = np.fft.rfftfreq(1 << 15, 1 / RATE)
            low = (hertz > 205) & (hertz < 460)
            pitches.append(hertz[low][power[low].argmax()])
    octave = np.log2(np.array(pitches) / 220)
    assert len(pitches) > 100
    assert np.percentile(octave, [5, 50, 95]) == pytest.approx([0.05, 0.5, 0.95], abs=0.13)


def test_sounds_are_audible_not_clipped_and_of_the_promised_length(scenes) -> None:
    for scene in scenes:
        assert scene.sound.dtype == np.float32
        assert 0.6 * RATE <= len(scene.sound) <= 1.0 * RATE
        assert 0.008 < np.sqrt(np.mean(scene.sound**2)) < 0.15
        assert np.abs(scene.pcm.astype(int)).max() < 32767


# --- files, determinism ------------------------------------------------------------------------------------


def _bits(scene: Scene) -> tuple:
    plain = (scene.id, scene.kind, scene.question, scene.answer, scene.objects, scene.sounding)
    return (*plain, scene.entities, scene.facts, scene.picture.tobytes(), scene.pcm.tobytes())


def test_same_seed_gives_the_same_bits_whatever_the_size_of_the_splits(scenes) -> None:
    again = generate(train=40, valid=7, test=20, seed=7)
    for split in SPLITS:
        for one, two in zip(again.split(split), scenes.split(split), strict=False):
            assert _bits(one) == _bits(two)
    assert again.ntriples() == scenes.ntriples()
    other = generate(train=40, valid=0, test=0, seed=8)
    assert all(_bits(one) != _bits(two) for one, two in zip(other, again.split("train"), strict=True))


def test_files_hold_exactly_what_is_in_memory(tmp_path) -> None:
    scenes = generate(tmp_path / "scenes", train=8, valid=2, test=4, seed=1)
    rows = [json.loads(line) for line in (tmp_path / "scenes/manifest.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [scene.id for scene in scenes]
    for row, scene in zip(rows, scenes, strict=True):
        with Image.open(tmp_path / "scenes" / row["image"]) as image:
            assert np.array_equal(np.asarray(image), scene.picture)
        sound, rate = soundfile.read(tmp_path / "scenes" / row["audio"], dtype="float32")
        assert rate == RATE
        assert np.array_equal(sound, scene.sound)
        assert (row["text"], row["label"], row["split"]) == (scene.question, scene.answer, scene.split)
        assert (row["kind"], set(row["needs"])) == (scene.kind, scene.needs)
        assert row["entities"] == [entity.iri for entity in scene.entities]
    graph = read_triples(tmp_path / "scenes/knowledge.nt")
    concepts = len(SHAPES) + len(COLOURS)
    assert len(graph) == concepts + 2 * sum(WORDS.values())
    assert len(graph.labels) == concepts + len(FAMILIES) + sum(WORDS.values())


def test_files_written_twice_are_equal_bit_by_bit(tmp_path) -> None:
    for name in ("one", "two"):
        generate(tmp_path / name, train=3, valid=1, test=1, seed=4)
    ones = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    twos = sorted(p.relative_to(tmp_path / "two") for p in (tmp_path / "two").rglob("*") if p.is_file())
    assert ones == twos
    assert len(ones) == 5 + 5 + 2
    for path in ones:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_a_folder_in_use_is_left_alone_and_a_failed_write_leaves_nothing(tmp_path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    scenes = generate(train=2, valid=0, test=0)
    with pytest.raises(HetgraphError, match="mine"):
        scenes.write(tmp_path / "mine")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(HetgraphError, match="No space left"):
        scenes.write(tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("wrong", [{"train": -1}, {"seed": -3}, {"test": 2.5}, {"valid": True}])
def test_impossible_sizes_and_seeds_are_refused_by_name(wrong) -> None:
    with pytest.raises(HetgraphError, match=next(iter(wrong))):
        generate(**wrong)


def test_an_unknown_split_is_refused_and_empty_splits_are_fine() -> None:
    scenes = generate(train=0, valid=0, test=0)
    assert len(scenes) == 0
    assert scenes.split("valid") == ()
    with pytest.raises(HetgraphError, match="dev"):
        scenes.split("dev")

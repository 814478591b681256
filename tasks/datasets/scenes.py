"""Scenes: an embedded data set whose questions need image, sound, words and a knowledge graph at once.

A scene is a picture of three or four coloured shapes (no kind and no colour twice), the sound of one of them,
a question, and a cut-out of a knowledge graph. Invented words occur in questions and are defined in the graph
only; the words of the training, validation and test part are disjoint, so a meaning cannot be remembered.

What makes the ablations meaningful:

* Within a kind of question the answers, and their combinations with what is asked about, are dealt out in
  equal numbers: the words of a question say nothing about its answer (except for the control kind "text").
* A yes/no question always asks about something in the picture, so neither the picture nor the word alone
  speaks for "yes".
* The cut-out of the graph holds four words that denote the four different kinds (or colours), and all eight
  concepts. Without linking the right word by its label it is the same for every answer.

``chance`` derives the best accuracy that is left when something is taken away.

The lexicon is in ``scenes_lexicon``, pictures and sounds in ``scenes_media``.
"""

from __future__ import annotations

import json
import os
import tempfile
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import HetgraphError
from .scenes_lexicon import CONCEPTS, SPLITS, Word, invent, iri, ntriples
from .scenes_media import CELLS, COLOURS, RATE, SHAPES, draw_picture, play

MODALITIES = ("image", "sound", "knowledge")
ANSWERS = (*COLOURS, *SHAPES, "yes", "no")
COUNTS = (3, 4)  # objects in a scene of the validation and test part, equally often
# In training also fewer: from one object on, what is asked about can be learnt piece by piece.
TRAIN_COUNTS = (1, 2, 3, 4)


class Question(NamedTuple):
    """How a kind of question reads, what it needs, and the answers it can have (each equally often)."""

    template: str
    needs: frozenset[str]
    answers: tuple[str, ...]


QUESTIONS: dict[str, Question] = {
    kind: Question(template, frozenset(kind.split("+")) & frozenset(MODALITIES), answers)
    for kind, template, answers in (
        ("text", "what colour is the {colour} {kind} ?", tuple(COLOURS)),
        ("image", "what colour is the {kind} ?", tuple(COLOURS)),
        ("sound", "what kind of thing do you hear ?", SHAPES),
        ("knowledge", "what kind of thing is a {kind_word} ?", SHAPES),
        ("image+sound", "what colour is the thing you hear ?", tuple(COLOURS)),
        ("image+knowledge", "what colour is the {kind_word} ?", tuple(COLOURS)),
        ("sound+knowledge", "is the thing you hear a {kind_word} ?", ("yes", "no")),
        ("image+sound+knowledge", "is the thing you hear {colour_word} ?", ("yes", "no")),
    )
}


class Thing(NamedTuple):
    """An object of a scene; ``box`` is (left, top, right, bottom) in 0..1 of the picture."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]


class Entity(NamedTuple):
    """A node of the knowledge graph."""

    iri: str
    label: str


class Fact(NamedTuple):
    """An edge of the knowledge graph; ``head`` and ``tail`` count in the scene's ``entities``.

    ``relation`` is a short name; in ``knowledge.nt`` it stands behind ``urn:hetgraph:scenes:``.
    """

    head: int
    relation: str
    tail: int


@dataclass(frozen=True, eq=False)
class Scene:
    """One question about one scene.

    Args:
        id: unique in the data set, such as ``"test-00017"``.
        split: "train", "valid" or "test".
        kind: kind of question, a key of ``QUESTIONS``.
        question: words separated by single spaces.
        answer: one of ``ANSWERS``.
        picture: uint8 [96, 96, 3].
        pcm: int16 [n], the sound at ``rate`` Hz; ``sound`` is the same as float32.
        objects: what is in the picture, in reading order.
        sounding: which of the objects is heard. Ground truth, not for a model.
        entities: the cut-out of the knowledge graph: eight concepts and four words, in random order.
        facts: all edges of the knowledge graph between these entities.
    """

    id: str
    split: str
    kind: str
    question: str
    answer: str
    picture: NDArray[np.uint8] = field(repr=False)
    pcm: NDArray[np.int16] = field(repr=False)
    objects: tuple[Thing, ...]
    sounding: int
    entities: tuple[Entity, ...] = field(repr=False)
    facts: tuple[Fact, ...] = field(repr=False)
    rate: int = RATE

    @property
    def sound(self) -> NDArray[np.float32]:
        """float32 [n] in -1..1."""
        return self.pcm.astype(np.float32) / np.float32(32768.0)

    @property
    def words(self) -> tuple[str, ...]:
        """The question word by word."""
        return tuple(self.question.split())

    @property
    def needs(self) -> frozenset[str]:
        """Which of "image", "sound" and "knowledge" the answer depends on; every question needs its words."""
        return QUESTIONS[self.kind].needs


@dataclass(frozen=True, eq=False)
class Scenes:
    """A generated data set: scenes of all splits, the invented words and the seed they came from."""

    items: tuple[Scene, ...] = field(repr=False)
    words: tuple[Word, ...] = field(repr=False)
    seed: int

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Scene]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Scene:
        return self.items[index]

    def split(self, name: str) -> tuple[Scene, ...]:
        """The scenes of "train", "valid" or "test".

        Raises:
            HetgraphError: another name.
        """
        if name not in SPLITS:
            raise HetgraphError(f"scenes have the splits {list(SPLITS)}, not {name!r}")
        return tuple(scene for scene in self.items if scene.split == name)

    def ntriples(self) -> str:
        """The whole knowledge graph in N-Triples."""
        return ntriples(self.words)

    def write(self, folder: str | Path) -> Path:
        """Write pictures, sounds, ``knowledge.nt`` and ``manifest.jsonl`` (returned) into a new folder.

        The folder appears complete or not at all.

        Raises:
            HetgraphError: the folder exists and is not empty, or cannot be written.
        """
        target = Path(folder)
        try:
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                raise HetgraphError(f"{target} exists and is not an empty folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
                made = Path(scratch, "scenes")  # one deeper, because a scratch folder is private (0700)
                self._write_files(made)
                if target.exists():
                    target.rmdir()
                os.replace(made, target)
        except OSError as error:
            raise HetgraphError(f"{target}: cannot write the scenes: {error}") from error
        return target / "manifest.jsonl"

    def _write_files(self, folder: Path) -> None:
        (folder / "images").mkdir(parents=True)
        (folder / "sounds").mkdir()
        (folder / "knowledge.nt").write_text(self.ntriples(), encoding="utf-8", newline="\n")
        with open(folder / "manifest.jsonl", "w", encoding="utf-8", newline="\n") as manifest:
            for scene in self.items:
                row = {
                    "id": scene.id,
                    "image": f"images/{scene.id}.png",
                    "audio": f"sounds/{scene.id}.wav",
                    "text": scene.question,
                    "entities": [entity.iri for entity in scene.entities],
                    "label": scene.answer,
                    "split": scene.split,
                    "kind": scene.kind,
                    "needs": [m for m in MODALITIES if m in scene.needs],
                }
                manifest.write(json.dumps(row) + "\n")
                Image.fromarray(scene.picture).save(folder / row["image"], compress_level=1)  # type: ignore[operator]
                with wave.open(str(folder / row["audio"]), "wb") as out:  # type: ignore[operator]
                    out.setparams((1, 2, scene.rate, 0, "NONE", ""))
                    out.writeframes(scene.pcm.astype("<i2").tobytes())


def chance(kind: str, removed: Iterable[str]) -> float:
    """Accuracy of the best possible guess at a kind of question when modalities are taken away.

    It is 1.0 if the question needs none of them. Otherwise:

    * yes/no questions: 1/2. The word denotes a random object of the picture for both answers, so picture,
      sound and meaning are each the same for "yes" and "no" unless all that is needed is there.
    * the picture is gone: 1/4, because kinds and colours are drawn independently of each other.
    * the picture is there, but not what singles out one of its objects (the sound, or what a word means): one
      of its 3 or 4 objects, each equally likely: (1/3 + 1/4) / 2 = 0.29. For what kind of thing a word means, the
      sound of one of the objects says as much as the picture of all.

    Args:
        kind: a key of ``QUESTIONS``.
        removed: names out of ``MODALITIES``.

    Raises:
        HetgraphError: unknown kind or modality.
    """
    gone = frozenset(removed)
    if kind not in QUESTIONS:
        raise HetgraphError(f"unknown kind of question {kind!r}; known: {list(QUESTIONS)}")
    if not gone <= frozenset(MODALITIES):
        raise HetgraphError(f"unknown modalities {sorted(gone - set(MODALITIES))}; known: {list(MODALITIES)}")
    question = QUESTIONS[kind]
    if not question.needs & gone:
        return 1.0
    if kind == "knowledge" and "sound" not in gone:
        gone -= {"image"}
    if "yes" in question.answers or "image" in gone:
        return 1.0 / len(question.answers)
    return sum(1.0 / n for n in COUNTS) / len(COUNTS)


def generate(
    folder: str | Path | None = None, *, train: int = 8064, valid: int = 256, test: int = 768, seed: int = 0
) -> Scenes:
    """Generate the data set; the same arguments give the same bits.

    The kinds of question take turns. A split does not change when another one gets a different size, and its
    first scenes do not change when it grows. Multiples of 128 (8 kinds, 16 combinations of what is asked and
    what is answered) are balanced exactly.

    Args:
        folder: also write the files here, see ``Scenes.write``; ``None`` writes nothing.
        train, valid, test: how many scenes.
        seed: not negative.

    Raises:
        HetgraphError: a negative number, or the folder cannot be written.
    """
    sizes = dict(zip(SPLITS, (train, valid, test), strict=True))
    for name, value in {**sizes, "seed": seed}.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise HetgraphError(f"scenes: {name} must be a whole number >= 0, got {value!r}")
    words = invent(np.random.default_rng((seed, 0)))
    by_concept: dict[tuple[str, str, str], list[Word]] = {}
    for word in words:
        by_concept.setdefault((word.split, word.sort, word.denotes), []).append(word)
    items = tuple(_scene(seed, split, i, by_concept) for split, size in sizes.items() for i in range(size))
    scenes = Scenes(items, words, int(seed))
    if folder is not None:
        scenes.write(folder)
    return scenes


def _combination(kind: str, turn: int, seed: int, split: int) -> tuple[str, str]:
    """(answer, concept asked about) of the ``turn``-th question of a kind: dealt from shuffled decks.

    For "sound" and "text" the concept is the other property of the object, so that it is balanced too.
    """
    answers = QUESTIONS[kind].answers
    other = tuple(COLOURS) if kind in ("sound", "knowledge", "image+sound+knowledge") else SHAPES
    deck, card = divmod(turn, len(answers) * len(other))
    place = list(QUESTIONS).index(kind)
    order = np.random.default_rng((seed, 1, split, place, deck)).permutation(len(answers) * len(other))
    answer, concept = divmod(int(order[card]), len(other))
    return answers[answer], other[concept]


def _scene(seed: int, split: str, i: int, by_concept: dict[tuple[str, str, str], list[Word]]) -> Scene:
    kind = list(QUESTIONS)[i % len(QUESTIONS)]
    part = SPLITS.index(split)
    answer, concept = _combination(kind, i // len(QUESTIONS), seed, part)
    rng = np.random.default_rng((seed, 2, part, i))

    # The first object is the one the question is about, until they are put into reading order.
    choice = TRAIN_COUNTS if split == "train" else COUNTS
    count = choice[rng.integers(len(choice))]
    if "yes" in QUESTIONS[kind].answers:
        count = max(count, 2)  # with a single object the answer would always be yes
    kinds = [SHAPES[k] for k in rng.permutation(len(SHAPES))]
    colours = [tuple(COLOURS)[k] for k in rng.permutation(len(COLOURS))]
    for value in (answer, concept):
        for names in (kinds, colours):
            if value in names:
                names.remove(value)
                names.insert(0, value)
    cells = [int(c) for c in rng.permutation(CELLS * CELLS)[:count]]
    heard = int(rng.integers(count))
    if kind in ("sound", "image+sound") or answer == "yes":
        heard = 0
    elif answer == "no":
        heard = int(rng.integers(1, count))

    # Every other concept of the same sort gets a word too, so that only its label tells the right one.
    sort = "colour" if "{colour_word}" in QUESTIONS[kind].template else "kind"
    if "word}" not in QUESTIONS[kind].template:
        sort = ("kind", "colour")[rng.integers(2)]
    given = {}
    for name in CONCEPTS[sort]:
        pool = by_concept[split, sort, name]
        given[name] = pool[rng.integers(len(pool))]
    question = QUESTIONS[kind].template.format(
        kind=kinds[0],
        colour=colours[0],
        kind_word=given[kinds[0]].text if sort == "kind" else "",
        colour_word=given[colours[0]].text if sort == "colour" else "",
    )
    entities, facts = _cut(list(given.values()), rng)

    order = sorted(range(count), key=cells.__getitem__)
    picture, boxes = draw_picture([(kinds[k], colours[k], cells[k]) for k in order], rng)
    return Scene(
        id=f"{split}-{i:05d}",
        split=split,
        kind=kind,
        question=question,
        answer=answer,
        picture=picture,
        pcm=play(kinds[heard], rng),
        objects=tuple(Thing(kinds[k], colours[k], box) for k, box in zip(order, boxes, strict=True)),
        sounding=order.index(heard),
        entities=entities,
        facts=facts,
    )


def _cut(words: list[Word], rng: np.random.Generator) -> tuple[tuple[Entity, ...], tuple[Fact, ...]]:
    """The eight concepts and these words in random order, with all facts between them."""
    listed = [Entity(iri(sort, name), name) for sort, names in CONCEPTS.items() for name in names]
    listed += [Entity(word.iri, word.text) for word in words]
    entities = tuple(listed[k] for k in rng.permutation(len(listed)))
    index = {entity.iri: k for k, entity in enumerate(entities)}
    facts = []
    for word in sorted(words, key=lambda word: index[word.iri]):
        facts.append(Fact(index[word.iri], "denotes", index[iri(word.sort, word.denotes)]))
        facts.append(Fact(index[word.iri], "confusedWith", index[iri(word.sort, word.confused)]))
    return entities, tuple(facts)

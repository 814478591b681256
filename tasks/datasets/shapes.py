"""SHAPES: yes/no questions about pictures of nine cells, as a graph of words, cells, looks and places.

Reads the official files (:mod:`.official.shapes`). Of the training parts with pictures, 1,552 questions are in the
second layout; that is a ninth of ``train.large``.

The question is parsed, as module networks do it: "is a red shape left of a circle" has a first thing (red), a second
one (circle) and sides between them. The graph lays out what there is to look at: for each of the two things a node
``look`` per cell, which hears the word for the thing and the cell; and for each pair of cells that lie to each other
as the question says a node ``place``, which hears the look for the first thing in one and for the second in the other.
What red and a circle look like, and what it takes to say yes, is left to be learnt, but once for all cells, pairs and
both things. Neither looks nor places have features, and where a cell lies is said by edges alone.

More training samples are made by what cannot change an answer: the nine cells are put elsewhere by one of the eight
symmetries of a square, colours swap their names, and "is A left of B" is asked as "is B right of A". Cells are moved
as they are, so that a triangle stands upright.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ... import rules
from ...errors import HetgraphError
from ...objectives import Answering
from ...sample import Sample
from ...schema import EdgeKey, EdgeType, NodeType, Schema
from . import Dataset, data_folder
from .official import shapes as official
from .questions import GRID, about

if TYPE_CHECKING:
    from .official.parts import Question

TITLE = "SHAPES"
TRAIN = ("train.small", "train.large", "train_small", "train_extra")
"""The training parts with pictures, of both layouts; ``tiny`` is in ``small``."""
ANSWERS = {"true": "yes", "false": "no"}
COLOURS = ("red", "green", "blue")
THINGS = (*COLOURS, "circle", "square", "triangle")
SIDES = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}
"""What a word means: the step (rows, columns) from a cell to the one that lies there."""
UPRIGHT = ("above", "below")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
COPIES = 24
"""Training samples made of one question."""
CROP = 6
DARK = 0.1
"""Pixels below it are background."""
FEATURES = 3 + 2 + CROP**2
"""Of a cell: colour, size, form."""


@dataclass(frozen=True)
class Change:
    """Something that leaves the answer as it is.

    Attributes:
        places: where cell ``i`` of the new picture comes from.
        colours: which channel becomes red, green, blue.
        names: word -> word of the changed question.
        reverse: the two things asked about change their places.
    """

    places: tuple[int, ...]
    colours: tuple[int, ...]
    names: dict[str, str]
    reverse: bool

    def features(self, cells: np.ndarray) -> np.ndarray:
        """:func:`cell_features` ``[9, FEATURES]`` of a picture to those of the changed one."""
        moved = cells[list(self.places)]
        return np.concatenate([moved[:, list(self.colours)], moved[:, len(COLOURS) :]], 1)

    def question(self, question: str) -> str:
        """The question about the changed picture."""
        said = [self.names.get(word, word) for word in question.split()]
        return reversed_question(" ".join(said)) if self.reverse else " ".join(said)


def changes() -> Iterator[Change]:
    """All 8 x 6 x 2 of them; the first changes nothing."""
    grid = np.arange(GRID**2).reshape(GRID, GRID)
    for reverse in (False, True):
        for colours in permutations(range(3)):
            for turned in (False, True):
                for rows in (1, -1):
                    for columns in (1, -1):
                        places = (grid.T if turned else grid)[::rows, ::columns]
                        names = {COLOURS[c]: COLOURS[i] for i, c in enumerate(colours)}
                        names |= _sides(turned, rows, columns)
                        yield Change(tuple(places.ravel().tolist()), colours, names, reverse)


def _sides(turned: bool, rows: int, columns: int) -> dict[str, str]:
    """What becomes of the names of sides in a picture that is turned over its diagonal, then flipped."""
    steps = {step: name for name, step in SIDES.items()}
    return {
        name: steps[(rows * (b if turned else a), columns * (a if turned else b))] for name, (a, b) in SIDES.items()
    }


@dataclass(frozen=True)
class Asked:
    """A question taken apart.

    Attributes:
        first, second: places of the words for the two things.
        sides: names of the sides between them, from the first to the second.
    """

    first: int
    second: int
    sides: tuple[str, ...]


def parsed(question: str) -> Asked:
    """The parts of "is a ... SIDES a ...".

    Raises:
        HetgraphError: a question of another form.
    """
    said = question.split()
    things = [i for i, word in enumerate(said) if word in THINGS]
    sides = [i for i, word in enumerate(said) if word in SIDES]
    if len(things) != 2 or said[:2] != ["is", "a"] or not all(things[0] < i < things[1] for i in sides):
        raise HetgraphError(f"{TITLE}: expected a question like 'is a circle left of a red shape', got {question!r}")
    return Asked(things[0], things[1], tuple(said[i] for i in sides))


def reversed_question(question: str) -> str:
    """ "is A left of B" as "is B right of A", with any number of sides between them."""
    said, asked = question.split(), parsed(question)
    # "above right of": only the sideways steps have an "of"
    between = [part for side in asked.sides for part in ((OPPOSITE[side], "of"), (OPPOSITE[side],))[side in UPRIGHT]]
    last = said[asked.first]
    # "is a circle red", but "is a circle left of a red shape"
    end = [last] if last in COLOURS and not between else _named(last)
    return " ".join(["is", *_named(said[asked.second]), *between, *end])


def _named(word: str) -> list[str]:
    return ["a", word, "shape"] if word in COLOURS else ["a", word]


def related(sides: Sequence[str]) -> torch.Tensor:
    """Pairs of cells ``[2, E]``: a cell that may hold the second thing, and the one the first has to be in.

    Every side is a step, the last name first; a step out of the grid leads nowhere, also if another would lead back.
    """
    pairs = []
    for start in range(GRID**2):
        row, column = divmod(start, GRID)
        for side in reversed(sides):
            row, column = row + SIDES[side][0], column + SIDES[side][1]
            if not (0 <= row < GRID and 0 <= column < GRID):
                break
        else:
            pairs.append((start, GRID * row + column))
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous()


def yes_no(
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    copies: int = COPIES,
) -> Dataset:
    """Yes or no from the words of a question and the nine cells of its picture.

    Args:
        folder: default ``$HETGRAPH_DATA/shapes_vqa``.
        seed: of the changes that make more training samples.
        cache: nothing is kept.
        copies: training samples made of a question, the first of which is as it is; from 1 to 96.

    Raises:
        HetgraphError: a file is missing or damaged, no training part has pictures, or an impossible ``copies``.
    """
    every = list(changes())
    if not 1 <= copies <= len(every):
        raise HetgraphError(f"{TITLE}: copies must lie in 1 .. {len(every)}, got {copies!r}")
    data = official.read(data_folder("shapes_vqa", folder))
    learnt = [part for part in TRAIN if part in data.parts and len(data.part(part))]
    if not learnt:
        raise HetgraphError(f"{TITLE}: none of the training parts {TRAIN}")
    train = [question for part in learnt for question in data.part(part)]
    different = {question.question for question in train}
    vocabulary = sorted({word for said in different for change in every for word in change.question(said).split()})
    made = _Samples(data, vocabulary)
    generator = np.random.default_rng(seed)
    samples: list[Sample] = []
    for question in train:
        picked = generator.choice(np.arange(1, len(every)), copies - 1, replace=False)
        samples += made.of(question, {i: every[i] for i in (0, *picked.tolist())})
    valid, test = ([s for q in data.part(part) for s in made.of(q, {0: every[0]})] for part in ("val", "test"))
    return Dataset(
        "shapes",
        cells_and_words(len(vocabulary)),
        samples,
        valid,
        test,
        Answering(tuple(ANSWERS.values())),
        standardize=False,
        notes=f"{len(train):,} training questions with pictures, not the 13,568 of publications; each is there "
        f"{copies} times, with cells, colours and the order of the question changed in ways that leave the answer. "
        "Edges come from the parsed question. Validation and test have 16 different questions each, none of which "
        "training has.",
        about={q.id: about(q, picture=data.picture(q)) for part in ("val", "test") for q in data.part(part)},
    )


def cells_and_words(vocabulary: int) -> Schema:
    """Nine cells and the words of a question, and what the question asks to look at."""
    nodes = [NodeType("word", vocabulary), NodeType("cell", FEATURES), NodeType("look", 1), NodeType("place", 1)]
    return Schema(nodes, [EdgeType(*key, rule=rules.given) for key in (ASKED, SHOWN, PART)])


ASKED, SHOWN, PART = ("word", "asked", "look"), ("cell", "shown", "look"), ("look", "part", "place")


def looks_and_places(asked: Asked) -> dict[EdgeKey, torch.Tensor]:
    """The edges of a question, each ``[2, E]``.

    Look ``i`` is for the first thing in cell ``i``, look ``9 + i`` for the second. There is a place for each pair of
    :func:`related` cells; where there is no pair, there is none.
    """
    cells = GRID**2
    looks, pairs = torch.arange(2 * cells), related(asked.sides)
    places = torch.arange(pairs.shape[1])
    return {
        ASKED: torch.stack([torch.tensor([asked.first, asked.second]).repeat_interleave(cells), looks]),
        SHOWN: torch.stack([looks % cells, looks]),
        PART: torch.stack([torch.cat([pairs[1], cells + pairs[0]]), places.repeat(2)]),
    }


def cell_features(cells: np.ndarray) -> np.ndarray:
    """Cells ``[9, 10, 10, 3]`` in 0..1 as ``[9, FEATURES]``: colour, size and form, each on its own.

    Colour: each channel's share of all light. Size: height and width of the part that is at least half as bright as
    the brightest pixel, as shares of the cell. Form: that part, stretched to ``CROP x CROP`` pixels, so that it does
    not depend on place and size. Zeros in the dark.
    """
    light = cells.sum((1, 2))
    total = light.sum(1, keepdims=True)
    hue = light / np.where(total > 0, total, 1)
    forms = [_form(cell) for cell in cells.max(3)]
    return np.concatenate([hue, np.stack(forms)], 1).astype(np.float32)


def _form(bright: np.ndarray) -> np.ndarray:
    """Height, width and the stretched picture of what is bright, ``[2 + CROP ** 2]``."""
    lit = bright > max(0.5 * bright.max(), DARK)
    if not lit.any():
        return np.zeros(2 + CROP**2)
    sides, picked = [], []
    for axis in (1, 0):
        places = np.flatnonzero(lit.any(axis))
        first, size = places[0], places[-1] + 1 - places[0]
        sides.append(size / len(bright))
        picked.append(first + ((np.arange(CROP) + 0.5) * size / CROP).astype(int))
    return np.concatenate([sides, lit[np.ix_(*picked)].ravel()])


class _Samples:
    """Makes samples; those with the same question share its nodes and edges.

    Args:
        data: the files.
        vocabulary: the words there are.
    """

    def __init__(self, data: official.Shapes, vocabulary: Sequence[str]) -> None:
        self.data, self.index = data, {word: i for i, word in enumerate(vocabulary)}
        self.known: dict[str, tuple[dict[str, dict[str, torch.Tensor]], dict[EdgeKey, torch.Tensor]]] = {}

    def of(self, question: Question, changed: Mapping[int, Change]) -> Iterator[Sample]:
        """The question's samples, one for each change, with the change's number in the id unless it is 0.

        Raises:
            HetgraphError: a word that is not in the vocabulary, or a question of another form.
        """
        pixels = self.data.picture(question).astype(np.float32) / 255
        cells = pixels.reshape(GRID, 10, GRID, 10, 3).swapaxes(1, 2).reshape(GRID**2, 10, 10, 3)
        features = cell_features(cells)
        for number, change in changed.items():
            asked = change.question(question.question)
            if asked not in self.known:
                self.known[asked] = self._read(question, asked)
            nodes, edges = self.known[asked]
            yield Sample(
                id=question.id if number == 0 else f"{question.id}-{number}",
                target=ANSWERS[question.answers[0]],
                nodes={**nodes, "cell": {"x": torch.from_numpy(change.features(features))}},
                edges=edges,
            )

    def _read(
        self, question: Question, asked: str
    ) -> tuple[dict[str, dict[str, torch.Tensor]], dict[EdgeKey, torch.Tensor]]:
        said = asked.split()
        unknown = [word for word in said if word not in self.index]
        if unknown:
            raise HetgraphError(f"{TITLE}: question {question.id!r}: training does not have the word {unknown[0]!r}")
        edges = looks_and_places(parsed(asked))
        words = torch.eye(len(self.index))[[self.index[word] for word in said]]
        looks, places = 2 * GRID**2, edges[PART].shape[1] // 2
        every = {"word": words, "look": torch.ones(looks, 1), "place": torch.ones(places, 1)}
        return {name: {"x": x} for name, x in every.items()}, edges

"""SHAPES (Andreas et al., Neural Module Networks, CVPR 2016): yes/no questions about 30 x 30 pictures of 3 x 3 shapes.

To download: ``shapes_dataset`` from the repository ronghanghu/n2nmn (folder ``exp_shapes``): per part
``<part>.input.npy`` (uint8 [N, 30, 30, 3], blue, green, red), ``<part>.query_str.txt`` (questions), ``<part>.query``
(as expressions) and ``<part>.output`` (true or false), a line each, with the parts train.tiny (64, all of them also in
train.small), train.small (640), train.med (6,400), train.large (13,568), val and test (1,024 each). A second layout
holds the same: ``images.npz`` with arrays ``<part>_images`` and ``<part>.json`` (a list of {image, question, query,
answer}).
"""

from __future__ import annotations

from collections.abc import Sized
from functools import partial
from pathlib import Path

import numpy as np

from ....errors import HetgraphError
from ..reading import read_arrays
from .json_records import records
from .layout import TEXT, WHOLE, File, layout_of, lines, present, shown, take
from .parts import Parts, Question

TITLE = "SHAPES"
HOMEPAGE = "https://github.com/ronghanghu/n2nmn"
ANSWERS = ("true", "false")
COUNTS = {"train.tiny": 64, "train.small": 640, "train.med": 6400, "train.large": 13568, "val": 1024, "test": 1024}
JSON_COUNTS = {"train_tiny": 64, "train_small": 640, "train_extra": 912, "val": 1024, "test": 1024}


def read_images(path: Path) -> np.ndarray:
    """``<part>.input.npy``, mapped and not read.

    Raises:
        HetgraphError: no file, or it is damaged or of another form.
    """
    try:
        images = np.load(present(TITLE, path), mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise HetgraphError(f"{TITLE}: {path} cannot be read: {error}") from error
    return _checked(images, f"{TITLE}: {path}")


def _checked(images: np.ndarray, where: str) -> np.ndarray:
    if images.dtype != np.uint8 or images.shape[1:] != (30, 30, 3):
        raise HetgraphError(f"{where}: images are uint8 [N, 30, 30, 3], got {images.dtype} {list(images.shape)}")
    return images


def read_answers(path: Path) -> list[str]:
    """``<part>.output``: true or false per line.

    Raises:
        HetgraphError: no file, or a line is neither.
    """
    answers = []
    for number, line in lines(TITLE, path):
        if line.strip() not in ANSWERS:
            raise HetgraphError(f"{TITLE}: {path}: line {number}: expected one of {ANSWERS}, got {shown(line)}")
        answers.append(line.strip())
    return answers


def read_lines(path: Path) -> list[str]:
    """Questions or expressions, one per line."""
    return [line.strip() for _, line in lines(TITLE, path)]


def read_json(path: Path) -> list[tuple[int, str, str, str]]:
    """``<part>.json``: row of the picture, question, expression and answer of each.

    Raises:
        HetgraphError: no file, no JSON, or a field is missing or wrong.
    """
    rows = []
    for _, number, record in records(TITLE, path):
        where = f"{TITLE}: {path}: record {number}"
        row = take(record, "image", WHOLE, where)
        question, query, answer = (take(record, name, TEXT, where) for name in ("question", "query", "answer"))
        if answer not in ANSWERS:
            raise HetgraphError(f"{where}: field 'answer' must be one of {ANSWERS}, got {shown(answer)}")
        rows.append((row, question, query, answer))
    return rows


def _archive(path: Path) -> Sized:
    return read_arrays(TITLE, path, [f"{part}_images" for part in JSON_COUNTS])


LAYOUTS = {
    "official": tuple(
        File(f"{part}.{ending}", unit, read, count, needed=part in ("train.small", "val", "test"))
        for part, count in COUNTS.items()
        for ending, unit, read in (
            ("input.npy", "images", read_images),
            ("query_str.txt", "questions", read_lines),
            ("query", "expressions", read_lines),
            ("output", "answers", read_answers),
        )
    ),
    "JSON": (
        File("images.npz", "arrays", _archive, len(JSON_COUNTS)),
        *(File(f"{part}.json", "questions", read_json, count) for part, count in JSON_COUNTS.items()),
    ),
}


class Shapes(Parts[Question]):
    """Questions whose picture is :meth:`picture`; ``more["query"]`` is the question as an expression."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.layout = folder, layout_of(folder, LAYOUTS)
        self._images: dict[str, np.ndarray] = {}
        counts = COUNTS if self.layout == "official" else JSON_COUNTS
        ending = "output" if self.layout == "official" else "json"
        names = [part for part in counts if (folder / f"{part}.{ending}").is_file()] or list(counts)
        super().__init__(TITLE, {name: partial(self._part, name) for name in names}, "questions", "images")

    def images(self, part: str) -> np.ndarray:
        """The pictures of a part, uint8 [N, 30, 30, 3], red, green, blue."""
        if part not in self._images:
            if self.layout == "official":
                images = read_images(self.folder / f"{part}.input.npy")
            else:
                path = self.folder / "images.npz"
                images = _checked(read_arrays(TITLE, path, [f"{part}_images"])[f"{part}_images"], f"{TITLE}: {path}")
            self._images[part] = images[..., ::-1]
        return self._images[part]

    def picture(self, question: Question) -> np.ndarray:
        """The picture of a question, uint8 [30, 30, 3], red, green, blue."""
        return self.images(question.split)[question.more["row"]]

    def _part(self, name: str) -> list[Question]:
        if self.layout == "official":
            path = self.folder / f"{name}.output"
            columns = [read_lines(self.folder / f"{name}.{ending}") for ending in ("query_str.txt", "query")]
            answers = read_answers(path)
            if {len(column) for column in columns} != {len(answers)}:
                raise HetgraphError(
                    f"{TITLE}: {path}: {len(answers)} answers to {len(columns[0])} questions, "
                    f"{len(columns[1])} expressions"
                )
            rows = list(zip(range(len(answers)), *columns, answers, strict=True))
        else:
            path = self.folder / f"{name}.json"
            rows = read_json(path)
        count = len(self.images(name))
        beyond = [row[0] for row in rows if not 0 <= row[0] < count]
        if beyond:
            raise HetgraphError(f"{TITLE}: {path}: picture {beyond[0]} of {count} is not there")
        return [
            Question(f"{name}-{i}", f"{name}-{row}", question, (answer,), name, more={"query": query, "row": row})
            for i, (row, question, query, answer) in enumerate(rows)
        ]


def read(folder: Path) -> Shapes:
    """The questions of the parts that are there."""
    return Shapes(folder)

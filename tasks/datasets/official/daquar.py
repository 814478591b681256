"""DAQUAR (Malinowski & Fritz, NIPS 2014): 12,468 questions about 1,447 photographs of rooms (NYU-Depth V2).

To download: ``qa.894.raw.train.txt`` and ``qa.894.raw.test.txt`` from the page "Visual Turing Challenge" of the Max
Planck Institute for Informatics (a question with its picture on one line, "... in the image3 ?", its answer on the
next), with the pictures ``image<k>.png``. Two more layouts hold the same: the tutorial's
``qa.894.raw.{train,test}.format_triple`` (question, answer, picture on three lines) and ``train.json``,
``test.json`` (a list of {question, answer, image}). An answer may be several words that are right together, separated
by commas.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from ....errors import HetgraphError
from .json_records import records
from .layout import TEXT, File, layout_of, lines, shown, take
from .parts import IMAGES, Media, Parts, Question, locate

TITLE = "DAQUAR"
HOMEPAGE = "https://www.mpi-inf.mpg.de (Visual Turing Challenge)"
PARTS = ("train", "test")
_PLACE = re.compile(r"(?P<question>.*\S)\s+in\s+the\s+(?P<image>image\d+)\s*\?")

Row = tuple[str, str, str]
"""Question, answers, picture."""


def read_raw(path: Path) -> list[Row]:
    """``qa.894.raw.*.txt``. The picture is taken out of the question, as in the other two layouts.

    Raises:
        HetgraphError: no file, a question names no picture, or the last one has no answer.
    """
    rows = []
    for number, question, answer in _groups(path, 2):
        match = _PLACE.fullmatch(question)
        if match is None:
            raise HetgraphError(
                f"{TITLE}: {path}: line {number}: expected '... in the image<number> ?', got {shown(question)}"
            )
        rows.append((f"{match['question']} ?", answer, match["image"]))
    return rows


def read_triples(path: Path) -> list[Row]:
    """``qa.894.raw.*.format_triple``.

    Raises:
        HetgraphError: no file, a third line is no picture, or the last group is not whole.
    """
    rows = []
    for number, question, answer, image in _groups(path, 3):
        if not re.fullmatch(r"image\d+", image):
            raise HetgraphError(f"{TITLE}: {path}: line {number + 2}: expected 'image<number>', got {shown(image)}")
        rows.append((question, answer, image))
    return rows


def read_json(path: Path) -> list[Row]:
    """``train.json`` or ``test.json``.

    Raises:
        HetgraphError: no file, no JSON, or a field is missing or wrong.
    """
    rows = []
    for key, number, record in records(TITLE, path):
        where = f"{TITLE}: {path}: record {number}" + ("" if key is None else f" of {key!r}")
        question, answer, image = (take(record, field, TEXT, where) for field in ("question", "answer", "image"))
        rows.append((question, answer, image))
    return rows


def _groups(path: Path, size: int) -> list[tuple]:
    """Every ``size`` lines that are not empty, after the number of the first."""
    every = [(number, line.strip()) for number, line in lines(TITLE, path)]
    if len(every) % size:
        raise HetgraphError(f"{TITLE}: {path}: expected groups of {size} lines, got {len(every)} lines")
    return [(every[i][0], *(line for _, line in every[i : i + size])) for i in range(0, len(every), size)]


_COUNTS = {"train": 6795, "test": 5673}
_READ = {
    "official": ("qa.894.raw.{}.txt", read_raw),
    "triples": ("qa.894.raw.{}.format_triple", read_triples),
    "JSON": ("{}.json", read_json),
}
LAYOUTS = {
    layout: tuple(File(name.format(part), "questions", read, _COUNTS[part]) for part in PARTS)
    for layout, (name, read) in _READ.items()
}


def read(folder: Path, *, images: str | Path | None = None) -> Parts[Question]:
    """The questions in the parts train and test, which share no picture.

    Args:
        folder: with the two files of one layout.
        images: folder with the pictures; default: ``images`` in ``folder`` if it is there.
    """
    media = pictures(TITLE, folder, images)
    name, read_file = _READ[layout_of(folder, LAYOUTS)]

    def part(split: str) -> list[Question]:
        return [
            Question(
                id=f"{split}-{i}",
                image=image,
                question=question,
                answers=tuple(word.strip() for word in answer.split(",") if word.strip()),
                split=split,
                file=locate(media, image),
            )
            for i, (question, answer, image) in enumerate(read_file(folder / name.format(split)))
        ]

    return Parts(TITLE, {split: partial(part, split) for split in PARTS}, "questions", "images", media)


def pictures(title: str, folder: Path, images: str | Path | None) -> Media | None:
    """Where the pictures are: as given, else the folder ``images``, else unknown."""
    if images is None and not (folder / "images").is_dir():
        return None
    return Media(title, folder / "images" if images is None else images, IMAGES)

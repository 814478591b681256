"""LSMDC, the Large Scale Movie Description Challenge 2016 (Rohrbach et al., IJCV 2017): clips of films, each with a
sentence of its audio description.

To download, after signing the agreement of the organisers (MPII Movie Description project page): the files
``LSMDC16_annos_training.csv``, ``LSMDC16_annos_val.csv``, ``LSMDC16_annos_test.csv`` and, for retrieval,
``LSMDC16_challenge_1000_publictect.csv`` (spelt so), and the clips ``<film>/<clip>.avi``. The files are separated by
tabs and have no header: clip, start and end aligned, start and end extracted, sentence. A clip may have several
sentences. The files of the fill-in-the-blank task, which have two more columns, are not read here.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from ....errors import HetgraphError
from .layout import File, shown, table
from .parts import VIDEOS, Caption, Media, Parts, locate

TITLE = "LSMDC"
HOMEPAGE = "https://sites.google.com/site/describingmovies/"
COLUMNS = ("CLIP_ID", "START_ALIGNED", "END_ALIGNED", "START_EXTRACTED", "END_EXTRACTED", "SENTENCE")
SKIPPED = ("1012_Unbreakable_00.05.16.065-00.05.21.941",)
"""Clips whose video cannot be read; public readers leave them out."""

PARTS = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_annos_test.csv",
    "test_1k": "LSMDC16_challenge_1000_publictect.csv",
}
_TIME = re.compile(r"(\d{2})\.(\d{2})\.(\d{2})\.(\d{3})")


def read_annotations(path: Path) -> list[Caption]:
    """The sentences of one file, in its order; ``start`` and ``end`` are those aligned by hand.

    Raises:
        HetgraphError: no file, a row has not six columns, or a time is not ``hours.minutes.seconds.milliseconds``.
    """
    captions = []
    for number, row in table(TITLE, path, COLUMNS, header=False, delimiter="\t"):
        where = f"{TITLE}: {path}: line {number}"
        times = {column: _seconds(row[column], column, where) for column in COLUMNS[1:5]}
        for column in ("CLIP_ID", "SENTENCE"):
            if not row[column].strip():
                raise HetgraphError(f"{where}: field {column!r} must be text, got {row[column]!r}")
        start, end = times["START_ALIGNED"], times["END_ALIGNED"]
        captions.append(Caption(row["CLIP_ID"], row["SENTENCE"].strip(), "", start, end))
    return captions


def _seconds(text: str, column: str, where: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise HetgraphError(f"{where}: field {column!r} must be hours.minutes.seconds.milliseconds, got {shown(text)}")
    hours, minutes, seconds, milliseconds = map(int, match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


_COUNTS = {"val": 7408, "test": 10053, "test_1k": 1000}
LAYOUTS = {
    "official": tuple(
        File(name, "sentences", read_annotations, _COUNTS.get(part), needed=part != "test_1k")
        for part, name in PARTS.items()
    )
}


def read(folder: Path, *, videos: str | Path | None = None) -> Parts[Caption]:
    """The sentences in the parts train, val, test, and the 1,000 of retrieval (``test_1k``) if their file is there.

    Args:
        folder: with the files of the parts that are wanted.
        videos: folder with the clips, in folders of films or not.
    """
    media = None if videos is None else Media(TITLE, videos, VIDEOS)

    def part(name: str) -> list[Caption]:
        return [
            Caption(c.clip, c.caption, name, c.start, c.end, locate(media, c.clip))
            for c in read_annotations(folder / PARTS[name])
            if c.clip not in SKIPPED
        ]

    names = [name for name, file in PARTS.items() if name != "test_1k" or (folder / file).is_file()]
    return Parts(TITLE, {name: partial(part, name) for name in names}, "captions", "clips", media)

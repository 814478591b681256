"""VQA-RAD (Lau, Gayen, Ben Abacha, Demner-Fushman, Scientific Data 2018): questions of clinicians about 315 radiology
pictures.

To download: ``VQA_RAD Dataset Public.json`` and the folder ``VQA_RAD Image Folder`` from the project "Visual Question
Answering in Radiology (VQA-RAD)" of the Open Science Framework: 2,248 questions, of which those with a ``phrase_type``
that begins with ``test_`` (451) are the test part. ``trainset.json`` and ``testset.json`` (3,064 and 451 questions) are
the same test part and a training part with more rephrasings, as published with MEVF (Nguyen et al., MICCAI 2019).

Every test picture also occurs in training, and some test questions occur there word for word: a model can be right
because it knows the picture. So a second split is offered, without a common picture; report both.
"""

from __future__ import annotations

import hashlib
from functools import cache, partial
from pathlib import Path
from typing import Any

from ....errors import HetgraphError
from .daquar import pictures
from .json_records import records
from .layout import ANSWER, ID, TEXT, File, layout_of, new, shown, take
from .parts import Parts, Question, locate

TITLE = "VQA-RAD"
HOMEPAGE = "https://osf.io/89kps/"
PARTS = ("train", "test")
SPLITS = ("official", "image-disjoint")
PUBLIC = "VQA_RAD Dataset Public.json"
MORE = ("image_organ", "answer_type", "question_type", "phrase_type")
ORGANS, ANSWERS = ("HEAD", "CHEST", "ABD"), ("OPEN", "CLOSED")
_PHRASES = ("freeform", "para", "frame", "test_freeform", "test_para")


def read_questions(path: Path) -> list[dict[str, Any]]:
    """The records of a file: qid, image_name, question, answer (text, whatever the file has), and ``MORE``.

    Raises:
        HetgraphError: no file, no JSON, a field is missing or wrong, or a question is there twice.
    """
    found = []
    seen: dict[str, int] = {}
    for _, number, record in records(TITLE, path):
        where = f"{TITLE}: {path}: record {number}"
        own = {name: str(take(record, name, kind, where)).strip() for name, kind in (("qid", ID), ("answer", ANSWER))}
        own |= {name: take(record, name, TEXT, where).strip() for name in ("image_name", "question", *MORE)}
        new(own["qid"], seen, where, "question")
        for name, known in (("image_organ", ORGANS), ("answer_type", ANSWERS), ("phrase_type", _PHRASES)):
            if own[name] not in known:
                raise HetgraphError(f"{where}: field {name!r} must be one of {known}, got {shown(own[name])}")
        found.append(own)
    return found


LAYOUTS = {
    "official": (File(PUBLIC, "questions", read_questions, 2248),),
    "MEVF": (
        File("trainset.json", "questions", read_questions, 3064),
        File("testset.json", "questions", read_questions, 451),
    ),
}


def disjoint_part(image: str) -> str:
    """The part of a picture in the image-disjoint split: test if the SHA-256 of its name is a multiple of 5."""
    return "test" if int.from_bytes(hashlib.sha256(image.encode()).digest(), "big") % 5 == 0 else "train"


def read(folder: Path, *, images: str | Path | None = None, split: str = "official") -> Parts[Question]:
    """The questions in the parts train and test.

    Args:
        folder: with the file or the two files of one layout.
        images: folder with the pictures; default: ``images`` or ``VQA_RAD Image Folder`` in ``folder``.
        split: ``official``, where all test pictures are known from training, or ``image-disjoint``.

    Raises:
        HetgraphError: another split.
    """
    if split not in SPLITS:
        raise HetgraphError(f"{TITLE}: split must be one of {SPLITS}, got {split!r}")
    if images is None and (folder / "VQA_RAD Image Folder").is_dir():
        images = folder / "VQA_RAD Image Folder"
    media = pictures(TITLE, folder, images)
    layout = layout_of(folder, LAYOUTS)

    @cache
    def rows() -> list[tuple[str, dict[str, Any]]]:
        """The official part of every question, and the question."""
        if layout == "official":
            every = read_questions(folder / PUBLIC)
            return [("test" if row["phrase_type"].startswith("test_") else "train", row) for row in every]
        return [(part, row) for part in PARTS for row in read_questions(folder / f"{part}set.json")]

    def part(name: str) -> list[Question]:
        return [
            Question(
                id=row["qid"],
                image=row["image_name"],
                question=row["question"],
                answers=(row["answer"],),
                split=name,
                file=locate(media, row["image_name"]),
                more={key: row[key] for key in MORE},
            )
            for official, row in rows()
            if name == (official if split == "official" else disjoint_part(row["image_name"]))
        ]

    return Parts(TITLE, {name: partial(part, name) for name in PARTS}, "questions", "images", media)

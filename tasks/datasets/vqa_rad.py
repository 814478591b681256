"""VQA-RAD: questions of clinicians about radiology pictures, as a graph of words and picture regions.

Reads the official questions (:mod:`.official.vqa_rad`) and ``effnet_lite0_regions_pca256.npz`` (``image``, ``regions
[N, 10, width]``: a 3 x 3 grid row by row, then the whole picture), which is no part of VQA-RAD.
"""

from __future__ import annotations

from pathlib import Path

from ...encoders import Encoder
from . import Dataset, data_folder
from .official import vqa_rad as official_files
from .official.parts import Question
from .questions import dataset, held_out, regions

TITLE = "VQA-RAD"
REGIONS = "effnet_lite0_regions_pca256.npz"
VALIDATION = 8
"""One picture (of the official split: one question) of so many validates.

Two thirds of the official test questions ask after a fact that a training question states in other words. A validation
part without such facts would choose what knows little of single pictures, and be wrong for that test.
"""


def official(
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    encoder: Encoder | None = None,
) -> Dataset:
    """The official split, all of whose test pictures are known from training.

    Validation is like the test: its pictures are known, and some of its questions are rephrasings of training ones.
    So that this is used openly, what training says of the picture is a node type of its own
    (:class:`.facts.Facts`).

    Args:
        folder: default ``$HETGRAPH_DATA/vqa_rad``.
        seed: nothing is random.
        cache: keeps the encoded questions.
        encoder: another text encoder than the packaged one.

    Raises:
        HetgraphError: a file or array is missing, or they do not fit together.
    """
    return _load("vqa_rad", "official", folder, cache, encoder)


def disjoint(
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    encoder: Encoder | None = None,
) -> Dataset:
    """The split without common pictures, its validation part also without; otherwise as :func:`official`."""
    return _load("vqa_rad_disjoint", "image-disjoint", folder, cache, encoder)


def answer_of(question: Question) -> str:
    """The answer that counts: compared in lower case."""
    return question.answers[0].lower()


def _load(
    name: str, split: str, folder: str | Path | None, cache: str | Path | None, encoder: Encoder | None
) -> Dataset:
    source = data_folder("vqa_rad", folder)
    found = official_files.read(source, split=split)
    every, test = (found.part(part) for part in official_files.PARTS)
    apart = (lambda q: q.id) if split == "official" else (lambda q: q.image)
    train, valid = held_out(every, apart, VALIDATION)
    pictures = regions(TITLE, source / REGIONS, {question.image for question in train})
    known = {
        "official": "Official split: every test picture is also in training, so that what a model knows of a picture "
        "answers questions about it; report vqa_rad_disjoint beside it.",
        "image-disjoint": "No picture is in two parts.",
    }
    return dataset(
        name,
        TITLE,
        (train, valid, test),
        pictures,
        encoder,
        cache,
        answer=answer_of,
        notes=lambda used: (
            f"{known[split]} Tokens by {used}. Answers in lower case; those that training does not have count as wrong."
        ),
        kind=lambda question: question.more["answer_type"].lower(),
        facts=split == "official",
    )

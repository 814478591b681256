"""VQA v2 (Goyal et al., CVPR 2017): 1.1 million questions about photographs of COCO, each answered by ten people.

To download from the page of the VQA challenge (visualqa.org): ``v2_OpenEnded_mscoco_{train2014,val2014,test2015,
test-dev2015}_questions.json`` and ``v2_mscoco_{train2014,val2014}_annotations.json``; the pictures are those of COCO
2014, and 2015 for the tests. The answers to the test questions are not published. test-dev is a part of test.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ....errors import HetgraphError
from .json_records import records
from .layout import LIST, TEXT, WHOLE, File, new, take
from .parts import IMAGES, Media, Parts, Question, locate

TITLE = "VQA v2"
HOMEPAGE = "https://visualqa.org"
PEOPLE = 10
PARTS = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}
ANSWERED = ("train", "val")
QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json"


class Asked(NamedTuple):
    """A question and its picture."""

    image: int
    question: str


class Answered(NamedTuple):
    """What ten people answered, the answer most of them gave, and the kinds of the question and of its answer."""

    image: int
    answers: tuple[str, ...]
    best: str
    question_type: str
    answer_type: str


def read_questions(path: Path) -> dict[str, Asked]:
    """Id -> question.

    Raises:
        HetgraphError: no file, it is damaged, a field is missing or wrong, or a question is there twice.
    """
    found: dict[str, Asked] = {}
    seen: dict[str, int] = {}
    for key, number, record in records(TITLE, path):
        if key == "questions":
            where = f"{TITLE}: {path}: record {number} of {key!r}"
            name = str(take(record, "question_id", WHOLE, where))
            new(name, seen, where, "question")
            found[name] = Asked(take(record, "image_id", WHOLE, where), take(record, "question", TEXT, where))
    if not found:
        raise HetgraphError(f"{TITLE}: {path}: expected records in 'questions', got none")
    return found


def read_annotations(path: Path) -> dict[str, Answered]:
    """Id -> answers.

    Raises:
        HetgraphError: no file, it is damaged, a field is missing or wrong, a question is there twice, or it has not
            ten answers.
    """
    found: dict[str, Answered] = {}
    seen: dict[str, int] = {}
    for key, number, record in records(TITLE, path):
        if key != "annotations":
            continue
        where = f"{TITLE}: {path}: record {number} of {key!r}"
        name = str(take(record, "question_id", WHOLE, where))
        new(name, seen, where, "question")
        answers = take(record, "answers", LIST, where)
        if len(answers) != PEOPLE:
            raise HetgraphError(f"{where}: field 'answers' must have {PEOPLE} records, got {len(answers)}")
        texts = [take(answer, "answer", TEXT, f"{where}: answer {i}") for i, answer in enumerate(answers, 1)]
        # the same few words again and again: kept once
        found[name] = Answered(
            take(record, "image_id", WHOLE, where),
            tuple(map(sys.intern, texts)),
            *(
                sys.intern(take(record, field, TEXT, where))
                for field in ("multiple_choice_answer", "question_type", "answer_type")
            ),
        )
    if not found:
        raise HetgraphError(f"{TITLE}: {path}: expected records in 'annotations', got none")
    return found


_COUNTS = {"train": 443757, "val": 214354, "test": 447793, "test-dev": 107394}
LAYOUTS = {
    "official": (
        *(
            File(QUESTIONS.format(file), "questions", read_questions, _COUNTS[part], needed=part in ANSWERED)
            for part, file in PARTS.items()
        ),
        *(File(ANNOTATIONS.format(PARTS[part]), "annotations", read_annotations, _COUNTS[part]) for part in ANSWERED),
    )
}


def read(folder: Path, *, images: str | Path | None = None, test: str = "test") -> Parts[Question]:
    """The questions of the parts whose files are there: train, val, and test or test-dev, which has no answers.

    ``more`` holds the answer most people gave (``best``), ``question_type`` and ``answer_type``.

    Args:
        folder: with the files.
        images: folder with the pictures of COCO.
        test: ``test`` or ``test-dev``, whose questions are also in ``test``.

    Raises:
        HetgraphError: another test part.
    """
    if test not in ("test", "test-dev"):
        raise HetgraphError(f"{TITLE}: test must be 'test' or 'test-dev', got {test!r}")
    media = None if images is None else Media(TITLE, images, IMAGES)
    wanted = [*ANSWERED, test]
    names = [part for part in wanted if (folder / QUESTIONS.format(PARTS[part])).is_file()] or wanted
    loaders = {name: partial(_part, folder, name, media) for name in names}
    return Parts(TITLE, loaders, "questions", "images", media)


def _part(folder: Path, name: str, media: Media | None) -> list[Question]:
    path = folder / QUESTIONS.format(PARTS[name])
    asked = read_questions(path)
    answered: dict[str, Answered] = {}
    if name in ANSWERED:
        answered = read_annotations(folder / ANNOTATIONS.format(PARTS[name]))
        alone = sorted(asked.keys() ^ answered.keys())
        if alone:
            raise HetgraphError(f"{TITLE}: {path}: question {alone[0]!r} is in one of questions and annotations only")
    questions = []
    for own, (image, text) in asked.items():
        # pictures of test-dev are called test2015, too
        file_name = f"COCO_{PARTS[name].replace('-dev', '')}_{image:012d}.jpg"
        file = locate(media, file_name)
        if own not in answered:
            questions.append(Question(own, str(image), text, (), name, file))
            continue
        answer = answered[own]
        if answer.image != image:
            raise HetgraphError(
                f"{TITLE}: {path}: question {own!r} is about picture {image}, its answers {answer.image}"
            )
        more = {"best": answer.best, "question_type": answer.question_type, "answer_type": answer.answer_type}
        questions.append(Question(own, str(image), text, answer.answers, name, file, more))
    return questions


_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_WORDS)}}
_ARTICLES = ("a", "an", "the")


def normalised(answer: str) -> str:
    """An answer as it is compared: lower case, without articles and punctuation, numbers up to ten as digits.

    The official script also puts apostrophes into contractions that lack them ("dont"), which is not done here.
    """
    text = re.sub(r"(?<=\d),(?=\d)", "", answer.lower())
    # a full stop stays inside a number, an apostrophe inside a word
    text = re.sub(r"(?<!\d)\.|\.(?!\d)", "", text)
    text = re.sub(r"[^\w\s.'$%:]", " ", text)
    return " ".join(_NUMBERS.get(word, word) for word in text.split() if word not in _ARTICLES)


def soft_accuracy(answer: str, answers: Sequence[str]) -> float:
    """min(n / 3, 1) for the n people that gave this answer, averaged over leaving each of them out (Antol et al.,
    ICCV 2015).

    Raises:
        HetgraphError: nobody was asked.
    """
    if not answers:
        raise HetgraphError(f"{TITLE}: no answers to compare {answer!r} with")
    same = [normalised(other) == normalised(answer) for other in answers]
    return sum(min((sum(same) - own) / 3, 1.0) for own in same) / len(answers)

"""GQA (Hudson & Manning, CVPR 2019): compositional questions about photographs of Visual Genome with scene graphs.

To download from the GQA page of Stanford: ``questions1.2.zip``, of which ``train_balanced_questions.json``,
``val_balanced_questions.json``, ``testdev_balanced_questions.json`` and ``test_balanced_questions.json`` (without
answers) are read, ``sceneGraphs.zip`` (``train_sceneGraphs.json``, ``val_sceneGraphs.json``), and the pictures
(``images.zip``, ``<imageId>.jpg``). The questions' programs and groups are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import HetgraphError
from .json_records import records
from .layout import ID, LIST, NUMBER, OBJECT, TEXT, WHOLE, File, new, shown, take
from .parts import IMAGES, Media, Parts, Question, locate

TITLE = "GQA"
HOMEPAGE = "https://cs.stanford.edu/people/dorarad/gqa/"
PARTS = ("train", "val", "testdev", "test")
UNANSWERED = ("test",)
GRAPHS = ("train", "val")
QUESTIONS, SCENES = "{}_balanced_questions.json", "{}_sceneGraphs.json"


@dataclass(frozen=True, eq=False)
class SceneGraph:
    """What is in a picture: N objects and E relations between them.

    Attributes:
        image: id of the picture.
        width, height: in pixels.
        ids, names: of the objects [N].
        attributes: of each object [N], any number.
        boxes: float32 [N, 4], x1, y1, x2, y2 in pixels.
        edges: int64 [2, E], subject and object, as indices.
        relations: of the edges [E], e.g. ``to the left of``.
    """

    image: str
    width: int
    height: int
    ids: tuple[str, ...]
    names: tuple[str, ...]
    attributes: tuple[tuple[str, ...], ...]
    boxes: np.ndarray
    edges: np.ndarray
    relations: tuple[str, ...]


def read_questions(path: Path, split: str = "", media: Media | None = None) -> list[Question]:
    """The questions of a file, with ``full_answer`` and ``types`` (structural, semantic, detailed) in ``more``.

    Raises:
        HetgraphError: no file, it is damaged, a field is missing or wrong, or a question is there twice.
    """
    found = []
    seen: dict[str, int] = {}
    kinds: dict[tuple[tuple[str, Any], ...], Mapping[str, Any]] = {}
    for key, _, record in records(TITLE, path):
        where = f"{TITLE}: {path}: question {key!r}"
        if key is None:
            raise HetgraphError(f"{TITLE}: {path}: expected an object of questions, got a list")
        new(key, seen, f"{TITLE}: {path}", "question")
        question, image = take(record, "question", TEXT, where), str(take(record, "imageId", ID, where))
        answers: tuple[str, ...] = ()
        more: dict[str, Any] = {}
        if split not in UNANSWERED and not path.name.startswith(UNANSWERED[0] + "_"):
            answers = (take(record, "answer", TEXT, where),)
            types = take(record, "types", OBJECT, where)
            if not all(value is None or isinstance(value, str) for value in types.values()):
                raise HetgraphError(f"{where}: field 'types' must be an object of text, got {shown(types)}")
            # a hundred kinds, a million questions: kept once
            types = kinds.setdefault(tuple(sorted(types.items())), types)
            more = {"full_answer": take(record, "fullAnswer", TEXT, where), "types": types}
        found.append(Question(key, image, question, answers, split, locate(media, image), more))
    return found


def read_graphs(path: Path) -> dict[str, SceneGraph]:
    """Picture -> its scene graph.

    Raises:
        HetgraphError: no file, it is damaged, a picture is there twice, a field is missing or wrong, or a relation
            leads to an object that is not there.
    """
    found: dict[str, SceneGraph] = {}
    seen: dict[str, int] = {}
    for key, _, record in records(TITLE, path):
        if key is None:
            raise HetgraphError(f"{TITLE}: {path}: expected an object of scene graphs, got a list")
        new(key, seen, f"{TITLE}: {path}", "picture")
        found[key] = _graph(key, record, f"{TITLE}: {path}: picture {key!r}")
    return found


def _graph(image: str, record: Any, where: str) -> SceneGraph:
    objects = take(record, "objects", OBJECT, where)
    place = {name: i for i, name in enumerate(objects)}
    names, attributes, boxes = [], [], []
    edges: list[tuple[int, int]] = []
    relations: list[str] = []
    for own, entry in objects.items():
        at = f"{where}: object {own!r}"
        names.append(take(entry, "name", TEXT, at))
        attributes.append(tuple(map(str, take(entry, "attributes", LIST, at))))
        x, y, width, height = (float(take(entry, field, NUMBER, at)) for field in ("x", "y", "w", "h"))
        boxes.append((x, y, x + width, y + height))
        for i, relation in enumerate(take(entry, "relations", LIST, at), 1):
            other = str(take(relation, "object", ID, f"{at}: relation {i}"))
            if other not in place:
                raise HetgraphError(f"{at}: relation {i} leads to the object {other!r}, which is not there")
            edges.append((place[own], place[other]))
            relations.append(take(relation, "name", TEXT, f"{at}: relation {i}"))
    return SceneGraph(
        image,
        take(record, "width", WHOLE, where),
        take(record, "height", WHOLE, where),
        tuple(objects),
        tuple(names),
        tuple(attributes),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(edges, np.int64).reshape(-1, 2).T,
        tuple(relations),
    )


_COUNTS = {"train": 943000, "val": 132062, "testdev": 12578}
LAYOUTS = {
    "official": (
        *(
            File(QUESTIONS.format(part), "questions", read_questions, _COUNTS.get(part), part not in UNANSWERED)
            for part in PARTS
        ),
        *(File(SCENES.format(part), "scene graphs", read_graphs) for part in GRAPHS),
    )
}


class Gqa(Parts[Question]):
    """Questions of the parts that are there, and :meth:`graphs`."""

    def __init__(self, folder: Path, media: Media | None) -> None:
        self.folder = folder
        self.graphs = cache(self._graphs)
        names = [part for part in PARTS if (folder / QUESTIONS.format(part)).is_file()] or list(PARTS)
        loaders = {part: partial(read_questions, folder / QUESTIONS.format(part), part, media) for part in names}
        super().__init__(TITLE, loaders, "questions", "images", media)

    def _graphs(self, part: str) -> dict[str, SceneGraph]:
        """The scene graphs of the pictures of a part, read once.

        Raises:
            HetgraphError: the part has none, or the file is missing or damaged.
        """
        if part not in GRAPHS:
            raise HetgraphError(f"{TITLE}: only the parts {GRAPHS} have scene graphs, got {part!r}")
        return read_graphs(self.folder / SCENES.format(part))

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each part, how many questions, pictures and, where their file is, scene graphs."""
        counts = super().counts()
        for part in GRAPHS:
            if (self.folder / SCENES.format(part)).is_file():
                counts.setdefault(part, {})["scene graphs"] = len(self.graphs(part))
        return counts


def read(folder: Path, *, images: str | Path | None = None) -> Gqa:
    """The balanced questions and the scene graphs of a folder.

    Args:
        folder: with the files.
        images: folder with the pictures.
    """
    return Gqa(folder, None if images is None else Media(TITLE, images, IMAGES))

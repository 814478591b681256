"""COCO (Lin et al., ECCV 2014): photographs with five captions and outlined objects of 80 kinds each.

To download from the COCO site: ``annotations_trainval2017.zip`` (or 2014), of which ``captions_train2017.json``,
``captions_val2017.json``, ``instances_train2017.json`` and ``instances_val2017.json`` in its folder ``annotations`` are
read, and the pictures (``train2017.zip``, ``val2017.zip``). Outlines and masks of objects are not kept, their boxes
are. The files are read record by record: the largest has half a gigabyte.
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
from .layout import LIST, NUMBER, TEXT, WHOLE, File, new, shown, take
from .parts import IMAGES, Caption, Media, Parts, locate

TITLE = "COCO"
HOMEPAGE = "https://cocodataset.org"
PARTS = ("train", "val")
YEARS = ("2017", "2014")
CAPTIONS, INSTANCES = "annotations/captions_{}{}.json", "annotations/instances_{}{}.json"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its file's name and its size in pixels."""

    file_name: str
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Objects:
    """The M objects in the pictures of a part, those of a picture one after the other.

    Attributes:
        pictures: id -> picture; also those without objects.
        names: the categories.
        start: id of a picture -> its first object and the one after its last.
        boxes: float32 [M, 4], x1, y1, x2, y2 in pixels.
        category: int64 [M], index into ``names``.
        area: float32 [M], of the outline, in pixels.
        crowd: bool [M], whether it is a crowd of objects.
    """

    pictures: Mapping[str, Picture]
    names: tuple[str, ...]
    start: Mapping[str, tuple[int, int]]
    boxes: np.ndarray
    category: np.ndarray
    area: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def of(self, image: str) -> slice:
        """Where the objects of a picture are.

        Raises:
            HetgraphError: no such picture.
        """
        if image not in self.pictures:
            raise HetgraphError(f"{TITLE}: no picture {image!r}")
        return slice(*self.start.get(image, (0, 0)))


def _picture(record: Any, where: str, seen: dict[str, int]) -> tuple[str, Picture]:
    name = str(take(record, "id", WHOLE, where))
    new(name, seen, where, "picture")
    width, height = take(record, "width", WHOLE, where), take(record, "height", WHOLE, where)
    return name, Picture(take(record, "file_name", TEXT, where), width, height)


def read_captions(path: Path) -> list[tuple[str, str, str]]:
    """Id of the picture, name of its file, and caption.

    Raises:
        HetgraphError: no file, it is damaged, something is there twice, or a caption is of an unknown picture.
    """
    pictures: dict[str, Picture] = {}
    captions: list[tuple[str, str, int]] = []
    seen_pictures: dict[str, int] = {}
    seen: dict[str, int] = {}
    for key, number, record in records(TITLE, path):
        where = f"{TITLE}: {path}: record {number} of {key!r}"
        if key == "images":
            name, pictures_ = _picture(record, where, seen_pictures)
            pictures[name] = pictures_
        elif key == "annotations":
            new(str(take(record, "id", WHOLE, where)), seen, where, "caption")
            captions.append((str(take(record, "image_id", WHOLE, where)), take(record, "caption", TEXT, where), number))
    _expect(path, images=pictures, annotations=captions)
    for name, _, number in captions:
        if name not in pictures:
            raise HetgraphError(f"{TITLE}: {path}: record {number} of 'annotations': no picture {name!r} in 'images'")
    return [(name, pictures[name].file_name, caption) for name, caption, _ in captions]


def read_instances(path: Path) -> Objects:
    """The objects of a file.

    Raises:
        HetgraphError: no file, it is damaged, something is there twice, or an object is of an unknown picture or
            category, or its box is none.
    """
    pictures: dict[str, Picture] = {}
    categories: dict[int, str] = {}
    rows: list[tuple[str, int, int]] = []
    numbers: list[tuple[float, float, float, float, float, float]] = []
    seen: dict[str, dict[str, int]] = {"images": {}, "categories": {}, "annotations": {}}
    for key, number, record in records(TITLE, path):
        where = f"{TITLE}: {path}: record {number} of {key!r}"
        if key == "images":
            name, picture = _picture(record, where, seen[key])
            pictures[name] = picture
        elif key == "categories":
            own = take(record, "id", WHOLE, where)
            new(str(own), seen[key], where, "category")
            categories[own] = take(record, "name", TEXT, where)
        elif key == "annotations":
            new(str(take(record, "id", WHOLE, where)), seen[key], where, "object")
            crowd = take(record, "iscrowd", WHOLE, where)
            if crowd not in (0, 1):
                raise HetgraphError(f"{where}: field 'iscrowd' must be 0 or 1, got {crowd}")
            rows.append(
                (str(take(record, "image_id", WHOLE, where)), take(record, "category_id", WHOLE, where), number)
            )
            numbers.append((*_box(record, where), float(take(record, "area", NUMBER, where)), float(crowd)))
    _expect(path, images=pictures, categories=categories, annotations=rows)
    for name, own, number in rows:
        where = f"{TITLE}: {path}: record {number} of 'annotations'"
        if name not in pictures:
            raise HetgraphError(f"{where}: no picture {name!r} in 'images'")
        if own not in categories:
            raise HetgraphError(f"{where}: no category {own} in 'categories'")
    place = {name: i for i, name in enumerate(pictures)}
    index = {own: i for i, own in enumerate(categories)}
    order = np.argsort(np.array([place[name] for name, _, _ in rows]), kind="stable")
    start: dict[str, tuple[int, int]] = {}
    for i, at in enumerate(order.tolist()):
        start[rows[at][0]] = (start.get(rows[at][0], (i, i))[0], i + 1)
    values = np.array(numbers)[order]
    category = np.array([index[own] for _, own, _ in rows])[order]
    boxes = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:4]], 1).astype(np.float32)
    return Objects(
        pictures, tuple(categories.values()), start, boxes, category, values[:, 4].astype(np.float32), values[:, 5] == 1
    )


def _box(record: Any, where: str) -> tuple[float, float, float, float]:
    """Corner, width and height. Some official boxes are 0 wide."""
    box = take(record, "bbox", LIST, where)
    fine = len(box) == 4 and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in box)
    if not fine or box[2] < 0 or box[3] < 0:
        raise HetgraphError(f"{where}: field 'bbox' must be [x, y, width, height], got {shown(box)}")
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


def _expect(path: Path, **found: Any) -> None:
    absent = [name for name, value in found.items() if not value]
    if absent:
        raise HetgraphError(f"{TITLE}: {path}: expected records in {list(found)}, got none in {absent}")


_COUNTS = {"train2017": (591753, 860001), "val2017": (25014, 36781)}


def _files(part: str, year: str) -> tuple[File, File]:
    captions, objects = _COUNTS.get(part + year, (None, None))
    return (
        File(CAPTIONS.format(part, year), "captions", read_captions, captions),
        File(INSTANCES.format(part, year), "objects", read_instances, objects),
    )


LAYOUTS = {year: tuple(file for part in PARTS for file in _files(part, year)) for year in YEARS}


class Coco(Parts[Caption]):
    """Captions in the parts train and val, and the objects of each part."""

    def __init__(self, folder: Path, year: str, media: Media | None) -> None:
        self.folder, self.year = folder, year
        self.objects = cache(self._objects)
        files = {part: [folder / form.format(part, year) for form in (CAPTIONS, INSTANCES)] for part in PARTS}
        names = [part for part, paths in files.items() if any(path.is_file() for path in paths)] or list(PARTS)
        super().__init__(TITLE, {part: partial(self._captions, part) for part in names}, "captions", "images", media)

    def _captions(self, part: str) -> list[Caption]:
        found = read_captions(self.folder / CAPTIONS.format(part, self.year))
        return [Caption(image, caption, part, file=locate(self.media, file)) for image, file, caption in found]

    def _objects(self, part: str) -> Objects:
        """The objects of a part, read once.

        Raises:
            HetgraphError: no such part, or its file is missing or damaged.
        """
        if part not in PARTS:
            raise HetgraphError(f"{TITLE}: unknown part {part!r}; known: {', '.join(PARTS)}")
        return read_instances(self.folder / INSTANCES.format(part, self.year))

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each part, how many captions, pictures with captions, and objects, of the files that are there."""
        counts: dict[str, dict[str, int]] = {}
        for part in self.parts:
            own = counts.setdefault(part, {})
            objects = (self.folder / INSTANCES.format(part, self.year)).is_file()
            if (self.folder / CAPTIONS.format(part, self.year)).is_file() or not objects:
                own |= {"captions": len(self.part(part)), "images": len({c.clip for c in self.part(part)})}
            if objects:
                own["objects"] = len(self.objects(part))
        return counts


def read(folder: Path, *, images: str | Path | None = None, year: str = "2017") -> Coco:
    """Captions and objects.

    Args:
        folder: with the folder ``annotations``.
        images: folder with the pictures.
        year: 2017 or 2014.

    Raises:
        HetgraphError: another year.
    """
    if year not in YEARS:
        raise HetgraphError(f"{TITLE}: year must be one of {YEARS}, got {year!r}")
    return Coco(folder, year, None if images is None else Media(TITLE, images, IMAGES))

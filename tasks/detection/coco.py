"""COCO's format of detections and its evaluation, by pycocotools (extra ``detection``).

COCO's boxes are x, y, width, height; ours, here and everywhere else, are x1, y1, x2, y2. Overlap and average precision
do not depend on the unit.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import HetgraphError
from ...files import write_atomically
from .data import Objects

MOST = 100
"""Detections of a picture that count (COCO's largest ``maxDets``)."""


@dataclass(frozen=True, eq=False)
class Detected:
    """What a model finds in a sample, best first.

    Attributes:
        id: of the sample.
        box: float32 ``[K, 4]`` in the unit of the regions' boxes.
        label: K names of classes.
        score: float32 ``[K]``, from 0 to 1.
        target: the objects, where they are known.
        picture: the file or the pixels, where at hand.
    """

    id: str
    box: Tensor
    label: tuple[str, ...]
    score: Tensor
    target: Objects | None = None
    picture: Any = None


def to_coco(detected: Sequence[Detected], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Detections as a COCO result file has them: ``image_id``, ``category_id`` from 1, ``bbox`` and ``score``.

    The id of the sample is the image's: a number if it reads as one, else as it is (COCO's own are numbers).

    Raises:
        HetgraphError: a class that is not one of ``classes``.
    """
    place = {name: i + 1 for i, name in enumerate(classes)}
    out = []
    for one in detected:
        for box, name, score in zip(one.box.tolist(), one.label, one.score.tolist(), strict=True):
            if name not in place:
                raise HetgraphError(f"sample {one.id!r}: class {name!r} is not one of {', '.join(classes)}")
            out.append({"image_id": _number(one.id), "category_id": place[name], "bbox": _wide(box), "score": score})
    return out


def _number(name: str) -> int | str:
    return int(name) if name.isascii() and name.isdecimal() and str(int(name)) == name else name


def _wide(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def write_coco(path: str | Path, detected: Sequence[Detected], classes: Sequence[str]) -> Path:
    """Write detections as a COCO result file, and return where it is."""
    write_atomically(path, json.dumps(to_coco(detected, classes)) + "\n")
    return Path(path)


def read_coco(path: str | Path, classes: Sequence[str]) -> list[Detected]:
    """Detections of a COCO result file, picture by picture in the order of their first line; the best first.

    Raises:
        HetgraphError: not such a file; the message names the entry and the field.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HetgraphError(f"{path}: not a COCO result file: {error}") from error
    if not isinstance(entries, list):
        raise HetgraphError(f"{path}: expected a list of detections, got {type(entries).__name__}")
    found: dict[str, list[tuple[float, str, list[float]]]] = {}
    for i, entry in enumerate(entries):
        name, row = _read_entry(entry, classes, f"{path}: detection {i}")
        found.setdefault(name, []).append(row)
    return [_joined(name, rows) for name, rows in found.items()]


def _read_entry(entry: Any, classes: Sequence[str], where: str) -> tuple[str, tuple[float, str, list[float]]]:
    if not isinstance(entry, Mapping):
        raise HetgraphError(f"{where}: expected an object, got {type(entry).__name__}")
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in entry]
    if missing:
        raise HetgraphError(f"{where}: no {missing[0]!r}")
    kind, box, score = entry["category_id"], entry["bbox"], entry["score"]
    if isinstance(kind, bool) or not isinstance(kind, int) or not 1 <= kind <= len(classes):
        raise HetgraphError(f"{where}: category_id must lie in 1 .. {len(classes)}, got {kind!r}")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
        raise HetgraphError(f"{where}: bbox must be x, y, width, height, got {box!r}")
    if not _is_number(score):
        raise HetgraphError(f"{where}: score must be a number, got {score!r}")
    x, y, width, height = box
    return str(entry["image_id"]), (float(score), classes[kind - 1], [x, y, x + width, y + height])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _joined(name: str, rows: list[tuple[float, str, list[float]]]) -> Detected:
    rows = sorted(rows, key=lambda row: -row[0])
    box = torch.tensor([row[2] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return Detected(name, box, tuple(row[1] for row in rows), torch.tensor([row[0] for row in rows]))


def coco_scores(detected: Sequence[Detected], classes: Sequence[str]) -> dict[str, float]:
    """COCO's average precision, areas of all sizes together, at most 100 detections of a picture.

    Returns:
        ``map`` (mean over overlaps 0.5, 0.55, ... 0.95), ``map_50``, ``map_75``, and ``ap_50_CLASS`` for each class
        that occurs; from 0 to 1.

    Raises:
        HetgraphError: pycocotools is not installed, nothing to score, a sample whose objects are not known, or two
            samples of one id.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise HetgraphError("average precision needs pycocotools: pip install 'hetgraph[detection]'") from error
    unknown = [one.id for one in detected if one.target is None]
    if unknown or not detected:
        raise HetgraphError(f"sample {unknown[0]!r}: its objects are not known" if unknown else "nothing to score")
    if len({one.id for one in detected}) != len(detected):
        raise HetgraphError("two samples have the same id")
    number = {one.id: i for i, one in enumerate(detected, 1)}
    # COCO's program says on the screen what it does
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _truth(detected, classes)
        truth.createIndex()
        guesses = [{**row, "image_id": number[str(row["image_id"])]} for row in to_coco(detected, classes)]
        if not guesses:
            there = {name for one in detected if one.target is not None for name in one.target.label}
            return dict.fromkeys(("map", "map_50", "map_75", *(f"ap_50_{n}" for n in classes if n in there)), 0.0)
        found = truth.loadRes(guesses)
        judge = COCOeval(truth, found, "bbox")
        judge.params.maxDets = [1, 10, MOST]
        judge.evaluate()
        judge.accumulate()
    # [overlaps, recalls, classes, areas, most]; -1 where a class does not occur
    precision = torch.from_numpy(judge.eval["precision"])[:, :, :, 0, -1]
    return _read_off(precision, classes)


def _read_off(precision: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Means of ``precision [overlaps, recalls, classes]``."""
    known = (precision >= 0).all(0).all(0)
    by_class = precision.mean(1)
    out = {"map": float(by_class[:, known].mean()), "map_50": float(by_class[0, known].mean())}
    out["map_75"] = float(by_class[5, known].mean())
    return out | {f"ap_50_{name}": float(by_class[0, i]) for i, name in enumerate(classes) if known[i]}


def _truth(detected: Sequence[Detected], classes: Sequence[str]) -> dict[str, Any]:
    place = {name: i + 1 for i, name in enumerate(classes)}
    rows: list[dict[str, Any]] = []
    for image, one in enumerate(detected, 1):
        assert one.target is not None
        for box, name in zip(one.target.box.tolist(), one.target.label, strict=True):
            if name not in place:
                raise HetgraphError(f"sample {one.id!r}: class {name!r} is not one of {', '.join(classes)}")
            wide = _wide(box)
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image,
                    "category_id": place[name],
                    "bbox": wide,
                    "area": wide[2] * wide[3],
                    "iscrowd": 0,
                }
            )
    return {
        "info": {},
        "images": [{"id": image} for image in range(1, len(detected) + 1)],
        "annotations": rows,
        "categories": [{"id": number, "name": name} for name, number in place.items()],
    }

"""Detection: region nodes say which object they belong to and where it ends, after hearing the regions around them.

    from hetgraph.tasks import detection

    data = detection.scenes()
    model = detection.train(data)
    print(detection.evaluate(model, data)["map_50"])
    for found in detection.predict(model, data)[:5]:
        print(found.id, found.label, found.box, found.score)

Own data: :class:`DetectionData` of samples whose regions have boxes and whose targets are :class:`Objects`.
:mod:`.grounding` finds the region that a phrase means. ``docs/tasks/detection.md`` says what comes out.
"""

from __future__ import annotations

from ..running import TaskSettings, summary
from . import grounding
from .coco import Detected, coco_scores, read_coco, to_coco, write_coco
from .data import DetectionData, Objects, neighbour_types, neighbours
from .model import NodePredictor
from .objective import Detecting
from .running import SETTINGS, evaluate, predict, suggested, train
from .scenes import scenes

__all__ = [
    "DATA",
    "SETTINGS",
    "Detected",
    "Detecting",
    "DetectionData",
    "NodePredictor",
    "Objects",
    "TaskSettings",
    "coco_scores",
    "evaluate",
    "grounding",
    "neighbour_types",
    "neighbours",
    "predict",
    "read_coco",
    "scenes",
    "suggested",
    "summary",
    "to_coco",
    "train",
    "write_coco",
]

DATA = ("scenes", "grounding")

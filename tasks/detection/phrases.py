"""Phrases that mean one of several like shapes, by how it lies to another shape: the data of phrase grounding.

A picture has two or three shapes of one kind and colour, one shape that is alone of its kind and colour, and one or two
that share the kind or the colour of either. The phrase names what is meant, a relation, and the shape that is alone:
"the red circle left of the blue cross". Exactly one of the like shapes stands in the relation. Its own pixels are those
of the others, so without the other regions only its place says something (a thing left of something is rather on the
left).

Regions are two boxes per shape, neither exact, and two boxes of background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ... import rules
from ...sample import Sample
from ...schema import EdgeType, NodeType, Schema
from ..datasets.scenes_media import COLOURS, SHAPES
from .boxes import iou
from .crowded import SIZE, Shape, draw
from .data import DetectionData, Objects

RELATIONS = {
    "left": "left of",
    "right": "right of",
    "above": "above",
    "below": "below",
    "nearest": "nearest to",
}
WORDS = tuple(dict.fromkeys(("the", *COLOURS, *SHAPES, *" ".join(RELATIONS.values()).split())))
SIZES = {"train": 2000, "valid": 200, "test": 400}
CROP = 8  # pixels of a region's features, height and width
RADIUS = (5.0, 8.0)  # pixels
MARGIN = 4.0  # pixels by which one shape is nearer than the others
MEANT = "meant"
"""The one class of a phrase's target."""


@dataclass(frozen=True, eq=False)
class Phrase:
    """A phrase about a picture.

    Attributes:
        id: such as ``"test-00017"``.
        pixels: uint8 ``[64, 64, 3]``.
        words: of the phrase.
        relation: a key of :data:`RELATIONS`.
        meant: float32 ``[4]``, the box of what is meant, in 0..1.
        regions: float32 ``[N, 4]``, in 0..1, in random order.
        shapes: what is in the picture, what is meant first, then those like it, then what is alone.
    """

    id: str
    pixels: NDArray[np.uint8] = field(repr=False)
    words: tuple[str, ...]
    relation: str
    meant: NDArray[np.float32]
    regions: NDArray[np.float32] = field(repr=False)
    shapes: tuple[Shape, ...] = field(repr=False)


def stands(relation: str, places: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the centres ``[N, 2]`` stand in a relation to ``other [2]``.

    Left of is what lies further to the left than up or down; the other sides likewise. Nearest is what is so by
    :data:`MARGIN`.
    """
    dx, dy = (places - other).T
    if relation == "nearest":
        far = np.hypot(dx, dy)
        order = np.sort(far)
        return (far == order[0]) & (order[1] - order[0] >= MARGIN)
    along = {"left": -dx, "right": dx, "above": -dy, "below": dy}[relation]
    across = dy if relation in ("left", "right") else dx
    return (along > 0) & (along >= np.abs(across))


def phrase(part: str, i: int, seed: int) -> Phrase:
    """The ``i``-th phrase of a part ("train", "valid" or "test"); the same arguments give the same bits."""
    rng = np.random.default_rng((seed, 47, ("train", "valid", "test").index(part), i))
    relation = tuple(RELATIONS)[i % len(RELATIONS)]
    while True:
        shapes = _shapes(rng)
        like = [k for k, s in enumerate(shapes) if (s.kind, s.colour) == (shapes[0].kind, shapes[0].colour)]
        centres = np.array([s.centre for s in shapes])
        found = stands(relation, centres[like], centres[len(like)])
        if found.sum() == 1:
            break
    first = like[int(found.argmax())]
    alone = shapes[len(like)]
    ordered = [shapes[first], *(shapes[k] for k in like if k != first), *shapes[len(like) :]]
    text = f"the {ordered[0].colour} {ordered[0].kind} {RELATIONS[relation]} the {alone.colour} {alone.kind}"
    drawn = [ordered[k] for k in rng.permutation(len(ordered))]
    return Phrase(
        f"{part}-{i:05d}",
        draw(drawn, rng),
        tuple(text.split()),
        relation,
        (ordered[0].box / SIZE).astype(np.float32),
        _regions(ordered, rng),
        tuple(ordered),
    )


def _shapes(rng: np.random.Generator) -> list[Shape]:
    """Shapes apart from one another: two or three alike, one alone, one or two that share something with them."""
    colours, kinds = list(COLOURS), list(SHAPES)
    named = [(kinds[rng.integers(len(kinds))], colours[rng.integers(len(colours))]) for _ in range(2)]
    while named[0] == named[1]:
        named[1] = (kinds[rng.integers(len(kinds))], colours[rng.integers(len(colours))])
    looks = [named[0]] * int(rng.integers(2, 4)) + [named[1]]
    for _ in range(int(rng.integers(1, 3))):
        kind, colour = named[rng.integers(2)]
        if rng.integers(2):
            kind = kinds[rng.integers(len(kinds))]
        else:
            colour = colours[rng.integers(len(colours))]
        if (kind, colour) not in named:
            looks.append((kind, colour))
    placed: list[Shape] = []
    tries = 0
    while len(placed) < len(looks):
        tries += 1
        if tries % 200 == 0:  # what lies there may leave no room
            placed = []
        radius = float(rng.uniform(*RADIUS))
        low, high = 1.2 * radius, SIZE - 1.2 * radius
        centre = (float(rng.uniform(low, high)), float(rng.uniform(low, high)))
        if all(math.dist(centre, s.centre) > 1.2 * (radius + s.radius) for s in placed):
            placed.append(Shape(*looks[len(placed)], centre, radius, float(rng.uniform(-0.3, 0.3))))
    return placed


def _regions(shapes: list[Shape], rng: np.random.Generator) -> NDArray[np.float32]:
    """Two boxes per shape, shifted and resized (the first a little, the second more), and two of the background."""
    boxes = []
    for shape in shapes:
        box = shape.box
        middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        for most in (0.15, 0.5):
            moved = middle + rng.uniform(-most, most, 2) * half
            size = half * np.exp(rng.uniform(-most, most, 2))
            boxes.append(np.concatenate([moved - size, moved + size]))
    for _ in range(2):
        half = rng.uniform(*RADIUS, 2)
        middle = rng.uniform(half, SIZE - half)
        boxes.append(np.concatenate([middle - half, middle + half]))
    found = np.clip(np.stack(boxes), 0, SIZE) / SIZE
    return found[rng.permutation(len(found))].astype(np.float32)


def crops(pixels: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the regions show, each brought to 8 x 8 pixels: ``[N, 192]`` in 0..1."""
    # by averaging: other filters reach beyond the box
    image = Image.fromarray(pixels)
    box = boxes.astype(float) * [image.width, image.height, image.width, image.height]
    shown = [image.resize((CROP, CROP), Image.Resampling.BOX, box=tuple(b)) for b in box.tolist()]
    return (np.stack([np.asarray(one).reshape(-1) for one in shown]) / 255).astype(np.float32)


def phrase_schema() -> Schema:
    """Words in a row, regions and how they lie to each other, and all pairs of both."""
    region = ("left_of", "right_of", "above", "below", "overlapping")
    return Schema(
        [NodeType("region", 3 * CROP**2, fields={"box": 4}), NodeType("token", len(WORDS), fields={"pos": 1})],
        [
            EdgeType("token", "following", "token", rule=rules.following),
            EdgeType("token", "preceding", "token", rule=rules.preceding),
            EdgeType("token", "says", "region"),
            EdgeType("region", "shows", "token"),
            *(EdgeType("region", name, "region", rule=getattr(rules, name)) for name in region),
            EdgeType("region", "near", "region", rule=rules.nearest(4, "box")),
        ],
    )


def phrases(*, seed: int = 0) -> DetectionData:
    """Phrases with regions as data for :mod:`.grounding`; the target is the one object that is meant.

    Args:
        seed: of pictures, phrases and regions.
    """
    made = {part: [phrase(part, i, seed) for i in range(count)] for part, count in SIZES.items()}
    parts = {part: [_sample(one) for one in some] for part, some in made.items()}
    return DetectionData(
        "grounding",
        phrase_schema(),
        parts["train"],
        parts["valid"],
        parts["test"],
        (MEANT,),
        notes="generated: the same pixels two or three times in a picture, told apart by a relation to another shape",
        about={
            one.id: {"phrase": " ".join(one.words), "kind": one.relation, "picture": one.pixels}
            for part in ("valid", "test")
            for one in made[part]
        },
    )


def _sample(one: Phrase) -> Sample:
    words = torch.eye(len(WORDS))[[WORDS.index(word) for word in one.words]]
    return Sample(
        id=one.id,
        region={"x": crops(one.pixels, one.regions), "box": one.regions},
        token={"x": words, "pos": torch.arange(len(words), dtype=torch.float32)[:, None] / 8},
        target=Objects(torch.from_numpy(one.meant[None]), (MEANT,)),
    )


def overlaps(sample: Sample, objects: Objects, node: str = "region") -> torch.Tensor:
    """Intersection over union of every region with the sample's first object, ``[N]``."""
    return iou(sample.nodes[node]["box"].float(), objects.box[:1])

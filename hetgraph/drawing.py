"""One picture of one sample's graph: what was seen, heard, read and known, and which edges the model used.

Matplotlib's figure objects are used directly: no global state, no window, safe in threads.
"""

from __future__ import annotations

import io
import math
import os
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import withStroke

from .errors import HetgraphError
from .files import write_atomically

Edge = tuple[str, int, str, str, int, float]
NODES = ("region", "frame", "token", "entity")

_WIDTH, _HEIGHT = 12.8, 8.6  # inches; everything below is placed in units of one tenth of an inch
INK, SOFT, PAPER = "#222222", "#85857f", "#fbfbf9"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5195", "#a6761d", "#56b4e9", "#e6ab02")
OTHER = "#9a9a9a"
_PANEL, _MIDDLE = 44.0, 54.0  # side of the picture, height of its centre
_WORDS, _WAVE = 25.0, 10.8  # heights of the words (below something) and of the sound's axis
_MOST_ENTITIES = 24
_MOST_WORDS = 60


def draw_sample(
    path: str | os.PathLike[str],
    *,
    picture: Any = None,
    boxes: Any = None,
    sound: Any = None,
    rate: int = 16_000,
    frames: Any = None,
    words: Sequence[str] | None = None,
    entities: Sequence[str] | None = None,
    edges: Sequence[Edge] = (),
    title: str = "",
    answer: str = "",
    strongest: int = 60,
    dpi: int = 110,
) -> Path:
    """Draw a sample's graph into a PNG file.

    The picture with its regions is on the left, entities are in a ring on the right, words in a row below
    them, and the sound with its frames at the bottom. The strongest edges are lines between them; width and opacity
    follow the weight, the colour is the relation, a small arrow head shows the direction. What is ``None`` or
    empty is not drawn, and neither are edges to it, nor edges from a node to itself.

    Args:
        path: the PNG file to make; it appears complete or not at all.
        picture: uint8 or float in 0..1, [H, W, 3] or [H, W].
        boxes: regions [N, 4], (left, top, right, bottom) in 0..1 of the picture; works without a picture too.
        sound: [n] samples, full scale 1, at ``rate`` Hz.
        frames: audio frames [M, 2], begin and end in seconds; works without a sound too.
        words: the tokens of the text.
        entities: a label for each entity node.
        edges: (source type, index, relation, destination type, index, weight) with types out of "region",
            "frame", "token", "entity"; weights are not negative, such as attention weights.
        title: one line above.
        answer: one line below the title, such as ``"answer: red (0.97)"``.
        strongest: how many edges to draw at most.
        dpi: dots per inch; the figure is 12.8 x 8.6 inches.

    Raises:
        HetgraphError: an array of another shape, a value that is not finite, an edge with an unknown type, an
            index out of range or an impossible weight, or a file that cannot be written.
    """
    picture_HWC = _picture(picture)
    boxes_N4 = _array("boxes", boxes, (None, 4))
    frames_M2 = _array("frames", frames, (None, 2))
    wave = _array("sound", sound, (None,))
    if rate <= 0:
        raise HetgraphError(f"rate must be positive, got {rate!r}")
    counts = {
        "region": len(boxes_N4),
        "frame": len(frames_M2),
        "token": len(words or ()),
        "entity": len(entities or ()),
    }
    drawn = _strongest(edges, counts, strongest)

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=dpi, facecolor=PAPER)
    FigureCanvasAgg(figure)
    page = figure.add_axes((0, 0, 1, 1), facecolor="none")
    page.set(xlim=(0, _WIDTH * 10), ylim=(0, _HEIGHT * 10))
    page.axis("off")
    text_line(page, 83.4, title, 120, 15.0, "bold")
    text_line(page, 79.9, answer, 84, 11.5, "normal")

    touched: dict[str, dict[int, float]] = {kind: {} for kind in NODES}
    for source, i, _, target, j, weight in drawn:
        touched[source][i] = max(weight, touched[source].get(i, 0.0))
        touched[target][j] = max(weight, touched[target].get(j, 0.0))
    places: dict[tuple[str, int], tuple[float, float]] = {}
    seen = picture_HWC is not None or len(boxes_N4) > 0
    left, right = (8.0, 76.0) if seen and entities else (42.0, 42.0)
    _draw_picture(figure, page, picture_HWC, boxes_N4, touched["region"], left, places)
    _draw_entities(page, entities or (), touched["entity"], right, places)
    _draw_sound(page, wave, rate, frames_M2, touched["frame"], places)
    _draw_words(page, words or (), touched["token"], places, _WORDS if seen or entities else _MIDDLE)
    _draw_edges(page, drawn, places, (right + _PANEL / 2, _MIDDLE))
    return save_png(figure, Path(path))


# --- checking ----------------------------------------------------------------------------------------------


def _array(name: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    if value is None:
        return np.empty([n or 0 for n in shape])
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise HetgraphError(f"{name} is not an array of numbers: {error}") from error
    if array.size == 0:
        return np.empty([n or 0 for n in shape])
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = ["n" if n is None else n for n in shape]
        raise HetgraphError(f"{name} must have shape {wanted}, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise HetgraphError(f"{name} holds values that are not finite")
    return array


def _picture(value: Any) -> np.ndarray | None:
    if value is None:
        return None
    array = np.asarray(value)
    grey = array.ndim == 2
    if array.size == 0 or not (grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise HetgraphError(f"picture must have shape [H, W, 3] or [H, W], got {list(array.shape)}")
    if array.dtype != np.uint8:
        array = np.clip(_array("picture", array, (None,) * array.ndim), 0.0, 1.0)
    return np.stack([array] * 3, axis=-1) if grey else array


def _strongest(edges: Sequence[Edge], counts: dict[str, int], most: int) -> list[Edge]:
    """The heaviest edges whose ends are there, heaviest first; equal ones in the given order."""
    kept = []
    for edge in edges:
        source, i, _, target, j, weight = edge
        for kind, index in ((source, i), (target, j)):
            if kind not in counts:
                raise HetgraphError(f"edge {edge}: unknown node type {kind!r}; known: {list(NODES)}")
            if counts[kind] and not 0 <= index < counts[kind]:
                raise HetgraphError(f"edge {edge}: there are {counts[kind]} nodes of type {kind!r}")
        if not (math.isfinite(weight) and weight >= 0):
            raise HetgraphError(f"edge {edge}: a weight is a finite number >= 0")
        if counts[source] and counts[target] and (source, i) != (target, j):
            kept.append(edge)
    return sorted(kept, key=lambda edge: -edge[5])[: max(most, 0)]


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def clean(text: str, most: int) -> str:
    """One line that the font can show: a box for any other sign, and an ellipsis if it is too long."""
    line = " ".join(unicodedata.normalize("NFC", str(text)).split())
    shown = "".join(c if ord(c) in _glyphs() and c.isprintable() else "\u25a1" for c in line)
    return shown if len(shown) <= most else shown[: most - 1] + "\u2026"


# --- the parts ---------------------------------------------------------------------------------------------


def advance(text: str, size: float, weight: str = "normal") -> float:
    """Width of a text, in page units (a tenth of an inch)."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    font.set_size(size, 72)
    font.set_text(text, 0.0)
    return font.get_width_height()[0] / 64 / 7.2


def text_line(page: Axes, y: float, text: str, room: float, size: float, weight: str) -> None:
    """A line of text at the left edge, smaller and then shorter until it fits."""
    shown = clean(text, 200)
    size = max(8.0, size * min(1.0, room / max(advance(shown, size, weight), 1e-9)))
    while advance(shown, size, weight) > room:
        shown = shown[:-2] + "\u2026"
    page.text(4, y, shown, fontsize=size, weight=weight, color=INK, va="center", parse_math=False)


def caption(page: Axes, x: float, y: float, text: str, side: str = "left") -> None:
    page.text(x, y, text, fontsize=9, color=SOFT, va="center", ha=side, parse_math=False)


def dot(page: Axes, at: tuple[float, float], used: bool, size: float = 7.0) -> None:
    if used:
        page.plot(*at, "o", markersize=size, color=INK, markeredgecolor="white", zorder=6)
    else:
        page.plot(*at, "o", markersize=0.6 * size, color="white", markeredgecolor=SOFT, alpha=0.7, zorder=5)


def _draw_words(page: Axes, words: Sequence[str], touched: dict[int, float], places: dict, middle: float) -> None:
    if not words:
        return
    if len(words) > _MOST_WORDS:
        caption(page, 124, middle - 6.4, f"the first {_MOST_WORDS} of {len(words)} words", "right")
    shown = [clean(word, 18) or "\u25a1" for word in words[:_MOST_WORDS]]
    for size in (14.0, 12.0, 10.0, 8.0):
        wide = [advance(word, size) + 0.14 * size for word in shown]
        if sum(wide) < 118:
            break
    rows: list[list[int]] = [[]]
    for i in range(len(shown)):
        if rows[-1] and sum(wide[k] for k in rows[-1]) + wide[i] > 118:
            rows.append([])
        rows[-1].append(i)
    rows = rows[:4]
    for r, row in enumerate(rows):
        x = 64 - sum(wide[i] for i in row) / 2
        y = middle + 3.0 * ((len(rows) - 1) / 2 - r)
        for i in row:
            places["token", i] = (x + wide[i] / 2, y)
            used = i in touched
            page.text(
                x + wide[i] / 2,
                y,
                shown[i],
                fontsize=size,
                ha="center",
                va="center",
                zorder=7,
                parse_math=False,
                color=INK if used or not touched else SOFT,
                bbox={
                    "boxstyle": "round,pad=0.2",
                    "facecolor": "white" if used else PAPER,
                    "edgecolor": INK if used else "none",
                    "linewidth": 0.9,
                },
            )
            x += wide[i]


def _draw_picture(
    figure: Figure,
    page: Axes,
    picture: np.ndarray | None,
    boxes: np.ndarray,
    touched: dict[int, float],
    left: float,
    places: dict,
) -> None:
    if picture is None and not len(boxes):
        return
    high, wide = picture.shape[:2] if picture is not None else (1, 1)
    scale = _PANEL / max(high, wide)
    w, h = wide * scale, high * scale
    x, y = left + (_PANEL - w) / 2, _MIDDLE - h / 2
    if picture is not None:
        axes = figure.add_axes((x / 128, y / 86, w / 128, h / 86), zorder=-1)
        axes.imshow(picture, aspect="auto", interpolation="nearest" if max(high, wide) < 300 else "antialiased")
        axes.axis("off")
    page.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=SOFT, linewidth=0.8))
    caption(page, x, y + h + 1.3, f"picture, {len(boxes)} regions" if len(boxes) else "picture")
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        corner = (x + x0 * w, y + (1 - y1) * h)
        places["region", i] = (x + (x0 + x1) / 2 * w, y + (1 - (y0 + y1) / 2) * h)
        page.add_patch(
            Rectangle(
                corner,
                (x1 - x0) * w,
                (y1 - y0) * h,
                fill=False,
                edgecolor=INK,
                linewidth=0.8,
                alpha=0.5 if i in touched else 0.3,
            )
        )
        dot(page, places["region", i], i in touched)


def _draw_entities(page: Axes, entities: Sequence[str], touched: dict[int, float], left: float, places: dict) -> None:
    if not entities:
        return
    order = sorted(range(len(entities)), key=lambda i: (-touched.get(i, -1.0), i))
    shown = sorted(order[:_MOST_ENTITIES])
    hidden = len(entities) - len(shown)
    x, y = left + _PANEL / 2, _MIDDLE
    text = f"{len(entities)} entities" if len(entities) > 1 else "1 entity"
    caption(page, x, y + _PANEL / 2 + 1.3, text + (f", {hidden} not shown" if hidden else ""), "center")
    # The ring is stretched upwards and cut into equal steps of height on either side: labels never touch.
    right = shown[: (len(shown) + 1) // 2]
    for side, column in ((1, right), (-1, shown[len(right) :][::-1])):
        for k, i in enumerate(column):
            up = 1 - 2 * (k + 0.5) / len(column)
            at = (x + side * 13 * math.sqrt(1 - (0.92 * up) ** 2), y + 0.48 * _PANEL * up)
            places["entity", i] = at
            dot(page, at, i in touched)
            page.text(
                at[0] + side * 1.3,
                at[1],
                clean(entities[i], 16),
                fontsize=10,
                ha="left" if side > 0 else "right",
                va="center",
                color=INK if i in touched or not touched else SOFT,
                weight="bold" if i in touched else "normal",
                zorder=7,
                parse_math=False,
                path_effects=[withStroke(linewidth=3, foreground=PAPER)],  # legible where an edge passes
            )


def _draw_sound(
    page: Axes, wave: np.ndarray, rate: int, frames: np.ndarray, touched: dict[int, float], places: dict
) -> None:
    if not len(wave) and not len(frames):
        return
    seconds = max(len(wave) / rate, float(frames.max(initial=0.0)), 1e-9)
    x, w, y, h = 4.0, 120.0, _WAVE, 2.3
    text = f"sound, {seconds:.2f} s" + (f", {len(frames)} frames" if len(frames) else "")
    caption(page, x, y - h - 1.1, text)
    if len(wave):
        columns = np.array_split(wave, min(len(wave), 900))
        loudest = max(float(np.abs(wave).max()), 1e-9)
        low = np.array([c.min() for c in columns]) / loudest * h
        high = np.array([c.max() for c in columns]) / loudest * h
        times = x + w * len(wave) / rate / seconds * (np.arange(len(columns)) + 0.5) / len(columns)
        page.fill_between(times, y + low, y + high, color="#9db8ad", linewidth=0.3, zorder=1)
    page.plot([x, x + w], [y, y], color=SOFT, linewidth=0.5, zorder=1)
    step = -(-len(frames) // 120)
    for i, (begin, end) in enumerate(frames):
        places["frame", i] = (x + w * min(max((begin + end) / 2 / seconds, 0.0), 1.0), y + h + 1.4)
        if i in touched or i % step == 0:
            dot(page, places["frame", i], i in touched, size=6.0)


def _draw_edges(page: Axes, edges: Sequence[Edge], places: dict, ring: tuple[float, float]) -> None:
    edges = [e for e in edges if (e[0], e[1]) in places and (e[3], e[4]) in places]
    if not edges:
        return
    mass: dict[tuple[str, str, str], float] = {}
    for source, _, relation, target, _, weight in edges:
        mass[source, relation, target] = mass.get((source, relation, target), 0.0) + weight
    ranked = sorted(mass, key=lambda key: -mass[key])
    colours = dict(zip(ranked, COLOURS, strict=False))
    heaviest = edges[0][5] or 1.0
    for source, i, relation, target, j, weight in reversed(edges):
        share = weight / heaviest
        begin, end = _ends(source, places[source, i], target, places[target, j])
        page.add_patch(
            FancyArrowPatch(
                begin,
                end,
                connectionstyle=f"arc3,rad={_bend(source, i, target, j, begin, end, ring)}",
                arrowstyle="-|>",
                mutation_scale=5 + 6 * share,
                shrinkA=3,
                shrinkB=4,
                linewidth=0.5 + 2.7 * share,
                alpha=0.18 + 0.72 * share,
                color=colours.get((source, relation, target), OTHER),
                capstyle="round",
                zorder=4,
            )
        )
    entries = [(colours[key], f"{key[0]} \u2192 {key[2]}: {clean(key[1], 16)}") for key in colours]
    if len(ranked) > len(colours):
        entries.append((OTHER, f"{len(ranked) - len(colours)} other relations"))
    for k, (colour, label) in enumerate(entries):
        row, column = divmod(k, 4)
        at = 4 + 30 * column, 5.2 - 1.9 * row
        page.plot([at[0], at[0] + 3], [at[1]] * 2, color=colour, linewidth=2.6, solid_capstyle="round")
        page.text(at[0] + 4, at[1], label, fontsize=9, color=INK, va="center", parse_math=False)
    note = f"the {len(edges)} strongest edges; width: weight, up to {heaviest:.2g}"
    caption(page, 124, 79.9, note, "right")


def _ends(
    source: str, begin: tuple[float, float], target: str, end: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of an edge; at a word that is the upper or lower side of its box."""
    up = 1.5 if source == target or end[1] > begin[1] else -1.5
    down = 1.5 if source == target else -up
    return (
        (begin[0], begin[1] + (up if source == "token" else 0.0)),
        (end[0], end[1] + (down if target == "token" else 0.0)),
    )


def _bend(
    source: str,
    i: int,
    target: str,
    j: int,
    begin: tuple[float, float],
    end: tuple[float, float],
    ring: tuple[float, float],
) -> float:
    """How far an edge bends: inside the ring of entities, upwards over a row; there and back differ."""
    if source != target:
        return 0.08
    size = 0.2 if i < j else 0.34
    if source == "region":
        return size
    across = end[1] - begin[1], begin[0] - end[0]  # to where a positive bend moves the middle of the edge
    middle = (begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2
    inwards = (ring[0] - middle[0], ring[1] - middle[1]) if source == "entity" else (0.0, 1.0)
    return size if across[0] * inwards[0] + across[1] * inwards[1] >= 0 else -size


def save_png(figure: Figure, path: Path) -> Path:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor=PAPER, metadata={"Software": None})
    write_atomically(path, picture.getvalue())
    return path

"""One picture of a subgraph: entities as boxes that do not lie on each other, arcs coloured by relation."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import write_atomically
from .csr import KnowledgeGraph, short
from .errors import KnowledgeError
from .retrieval import Subgraph

_WIDTH, _HEIGHT = 12.8, 8.6  # inches; everything below is placed in units of a tenth of an inch
_INK, _SEED, _NODE, _PAPER = "#222222", "#ffd27a", "#e8eef4", "#fbfbf9"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5195", "#a6761d", "#56b4e9", "#e6ab02")
_OTHER = "#9a9a9a"
_LEGEND, _TITLE = 26.0, 6.0  # room at the right and at the top
_LONGEST = 24  # characters of a label
_ARCS, _PARALLEL = 120, 3  # arcs to draw at most, and between the same two


def draw_subgraph(
    graph: KnowledgeGraph,
    subgraph: Subgraph,
    path: str | Path,
    *,
    title: str = "",
    most: int = 40,
    languages: Sequence[str] = ("", "en"),
    dpi: int = 110,
) -> Path:
    """Draw the seeds and the entities with the highest scores into a PNG file, and up to 120 arcs between them.

    Args:
        graph: gives the labels.
        subgraph: what a retriever found.
        path: the file to make; it appears complete or not at all.
        title: one line above.
        most: entities to draw at most, seeds included.
        languages: of the labels.
        dpi: dots per inch; the figure is 12.8 x 8.6 inches.

    Raises:
        KnowledgeError: ``most`` or ``dpi`` is not positive; HetgraphError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if most < 1 or dpi < 1:
        raise KnowledgeError(f"most and dpi must be positive, got {most} and {dpi}")
    shown = subgraph.keep(*_first(subgraph, most), {})
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=dpi, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    page = figure.add_axes((0, 0, 1, 1), facecolor="none")
    page.set(xlim=(0, _WIDTH * 10), ylim=(0, _HEIGHT * 10))
    page.axis("off")
    seeds = len(shown.seeds)
    names = [clean(graph.label(n, languages), _LONGEST) for n in shown.nodes.tolist()]
    size = 9.0 if len(names) <= 24 else 7.5
    sizes = np.array([(0.11 * size * 1.25 * max(2, len(name)) * 0.62 + 1.6, size * 0.22 + 1.0) for name in names])
    area = (1.5, 1.5, _WIDTH * 10 - _LEGEND, _HEIGHT * 10 - _TITLE)
    places = spread(_layout(shown), sizes.reshape(-1, 2), area)
    arcs = _arcs(shown)
    colours = _colours(shown.edge_type[arcs].tolist())
    boxes = []
    for i, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        style = {"boxstyle": "round,pad=0.25", "facecolor": _SEED if i < seeds else _NODE, "edgecolor": _INK, "lw": 0.6}
        # a dollar sign would begin a formula
        boxes.append(
            page.text(
                x, y, name, size=size, color=_INK, ha="center", va="center", bbox=style, parse_math=False, zorder=3
            )
        )
    # boxes get their places when they are drawn, and arrows end there
    figure.draw_without_rendering()
    _draw_arcs(page, shown, arcs, places, colours, boxes)
    _draw_legend(page, graph, shown, arcs, colours, len(subgraph))
    page.text(
        1.5, _HEIGHT * 10 - 3.2, clean(title, 110), size=13, weight="bold", color=_INK, va="center", parse_math=False
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor=_PAPER, metadata={"Software": None})
    write_atomically(path, picture.getvalue())
    return Path(path)


def _first(subgraph: Subgraph, most: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    others = np.setdiff1d(np.arange(len(subgraph)), subgraph.seeds)
    order = others[np.argsort(-subgraph.score[others], kind="stable")][: max(0, most - len(subgraph.seeds))]
    places = np.concatenate([subgraph.seeds, order])
    return places, subgraph.score[places]


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def clean(text: str, most: int) -> str:
    """Text that the font can show, in one line, with an ellipsis where it was cut."""
    line = " ".join(
        "".join(c if ord(c) in _glyphs() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split())).split()
    )
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _layout(shown: Subgraph) -> NDArray[np.float64]:
    """Places in the unit square, connected parts beside each other."""
    import networkx as nx

    whole: Any = nx.Graph()
    whole.add_nodes_from(range(len(shown)))
    whole.add_edges_from((int(h), int(t)) for h, t in shown.edge_index.T if h != t)
    parts = sorted(nx.connected_components(whole), key=lambda part: (-len(part), min(part)))
    out = np.zeros((len(shown), 2))
    widths = [math.sqrt(len(part)) for part in parts]
    left = 0.0
    for part, width in zip(parts, widths, strict=True):
        # a set of integers has no order to rely on
        small: Any = nx.Graph()
        small.add_nodes_from(sorted(part))
        small.add_edges_from(sorted(tuple(sorted(edge)) for edge in whole.subgraph(part).edges()))
        found = (
            nx.kamada_kawai_layout(small) if len(part) > 2 else {n: (0, i - 0.5) for i, n in enumerate(sorted(part))}
        )
        for node, (x, y) in found.items():
            out[node] = ((left + width * (0.5 + 0.45 * x)) / sum(widths), 0.5 + 0.5 * y)
        left += width
    return out


def spread(
    places: NDArray[np.float64], sizes: NDArray[np.float64], area: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """Move boxes apart until none lies on another, as far as the area has room.

    Args:
        places: ``[M, 2]``, centres in the unit square.
        sizes: ``[M, 2]``, width and height of each box.
        area: left, bottom, right, top.

    Returns:
        Centres ``[M, 2]``.
    """
    low, high = np.array(area[:2]) + sizes / 2, np.array(area[2:]) - sizes / 2
    at = low + places * np.maximum(high - low, 0)
    for _ in range(400):
        apart = at[:, None] - at[None]
        over = (sizes[:, None] + sizes[None]) / 2 + 0.8 - np.abs(apart)
        np.einsum("iij->ij", over)[:] = -1
        hit = (over > 0).all(-1)
        if not hit.any():
            break
        # along the axis where less is missing; equal centres part by number
        first = np.arange(len(at))[:, None] > np.arange(len(at))[None]
        sign = np.where(apart != 0, np.sign(apart), np.where(first, 1.0, -1.0)[..., None])
        way = np.zeros_like(over)
        shorter = over.argmin(-1)
        for axis in (0, 1):
            way[..., axis] = np.where(hit & (shorter == axis), over[..., axis] * sign[..., axis], 0)
        at = np.clip(at + 0.3 * way.sum(1), np.minimum(low, high), np.maximum(low, high))
    return at


def _arcs(shown: Subgraph) -> list[int]:
    """The arcs to draw: those between high scores first, at most a few between the same two."""
    heads, tails = shown.edge_index
    order = np.argsort(-(shown.score[heads] + shown.score[tails]), kind="stable")
    between: Counter[tuple[int, int]] = Counter()
    chosen: list[int] = []
    for arc in order.tolist():
        pair = (int(min(heads[arc], tails[arc])), int(max(heads[arc], tails[arc])))
        if pair[0] != pair[1] and between[pair] < _PARALLEL and len(chosen) < _ARCS:
            between[pair] += 1
            chosen.append(arc)
    return chosen


def _colours(kinds: list[int]) -> dict[int, str]:
    """Relation -> colour, for the most frequent ones."""
    counts = Counter(kinds)
    order = sorted(counts, key=lambda kind: (-counts[kind], kind))
    return dict(zip(order, _COLOURS, strict=False))


def _draw_arcs(
    page: Any, shown: Subgraph, arcs: list[int], places: Any, colours: dict[int, str], boxes: list[Any]
) -> None:
    from matplotlib.patches import FancyArrowPatch

    seen: Counter[tuple[int, int]] = Counter()
    for arc in arcs:
        head, tail = shown.edge_index[:, arc].tolist()
        # several arcs between the same two are bent apart
        pair = (min(head, tail), max(head, tail))
        bend = 0.06 + 0.12 * seen[pair]
        seen[pair] += 1
        page.add_patch(
            FancyArrowPatch(
                places[head],
                places[tail],
                arrowstyle="-|>",
                mutation_scale=9,
                connectionstyle=f"arc3,rad={bend if head < tail else -bend}",
                patchA=boxes[head].get_bbox_patch(),
                patchB=boxes[tail].get_bbox_patch(),
                color=colours.get(int(shown.edge_type[arc]), _OTHER),
                alpha=0.75,
                lw=1.1,
                zorder=1,
            )
        )


def _draw_legend(
    page: Any, graph: KnowledgeGraph, shown: Subgraph, arcs: list[int], colours: dict[int, str], found: int
) -> None:
    left, top = _WIDTH * 10 - _LEGEND + 2.5, _HEIGHT * 10 - 8.0
    lines = [(_SEED, "seed"), (_NODE, "found" if found == len(shown) else f"found ({len(shown)} of {found} shown)")]
    for i, (colour, text) in enumerate(lines):
        y = top - 3.0 * i
        page.text(
            left + 0.9,
            y,
            "  ",
            size=7,
            va="center",
            ha="center",
            bbox={"boxstyle": "round", "facecolor": colour, "lw": 0.6},
        )
        page.text(left + 3.4, y, text, size=8.5, va="center", color=_INK)
    rest = set(shown.edge_type[arcs].tolist()) - set(colours)
    entries = [(colour, short(graph.relations[kind])) for kind, colour in colours.items()]
    entries += [(_OTHER, f"{len(rest)} other relation{'s' * (len(rest) > 1)}")] if rest else []
    if len(arcs) < len(shown.edge_type):
        entries.append((_PAPER, f"{len(arcs)} of {len(shown.edge_type)} arcs shown"))
    for i, (colour, text) in enumerate(entries):
        y = top - 8.0 - 2.8 * i
        page.plot([left, left + 2.4], [y, y], color=colour, lw=2)
        page.text(left + 3.4, y, clean(text, 26), size=8.5, va="center", color=_INK, parse_math=False)

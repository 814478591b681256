"""One sample of a manifest as one picture: its media as they are read, the nodes they become, and the edges.

Media lie one below the other: pictures with the boxes of their regions, texts by their tokens, sounds as wave and
spectrogram over their frames, entities, and whatever else there is as a row of nodes. Edges that a rule chose are
drawn in colour, those of everything with everything in grey, both only as many as can be told apart.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import withStroke

from .builder import GraphBuilder
from .drawing import COLOURS, INK, OTHER, PAPER, SOFT, advance, caption, clean, dot, save_png, text_line
from .encoders.media import Item
from .encoders.read_audio import read_audio
from .encoders.read_image import read_image
from .encoders.timed_words import text_of_words
from .errors import HetgraphError, ManifestError
from .manifest import Manifest, Row
from .pipeline import Pipeline, Record
from .quarantine import Unreadable
from .rules import AllPairs
from .sample import Sample

WIDTH = 128.0
_LEFT, _ROOM = 4.0, 120.0  # all places are in tenths of an inch
_PICTURE = 38.0
_MOST_LINES, _MOST_DOTS = 8, 120
_MOST_EDGES, _MOST_GREY = 40, 60  # per edge type; of all types of everything with everything
_ROWS, _COLUMNS = 9, 7
_ORDER = {"text": 0, "entity": 1, "table": 2}  # words beside what they name; sounds, which are long, at the end
_PALETTE = (*COLOURS, "#8c564b", "#17807e", "#b8860b", "#4b0082")
RATE = 16_000

Places = dict[tuple[str, int], tuple[float, float]]


@dataclass
class Panel:
    """One medium.

    Attributes:
        title: its column and what became of it.
        node: the type of its nodes.
        kind: image, text, audio, table, entity, or another, which is drawn as a row of nodes.
        content: what :func:`draw_panels` draws for this kind: a picture uint8 ``[H, W, 3]``, a text, a sound
            ``[samples]`` at :data:`RATE` Hz, rows of cells, or labels.
        count: how many nodes there are.
        where: boxes ``[N, 4]`` in 0..1, spans ``[N, 2]`` or times ``[N, 2]``, or None.
    """

    title: str
    node: str
    kind: str
    content: Any
    count: int
    where: np.ndarray | None = None


@dataclass
class Bundle:
    """The edges of one type: pairs of nodes, and whether the rule connects everything with everything."""

    src: str
    relation: str
    dst: str
    pairs: Sequence[tuple[int, int]] = field(default_factory=list)
    everything: bool = False


def show_sample(manifest: Manifest, name: str, pipeline: Pipeline, path: str | Path, *, dpi: int = 110) -> Path:
    """Draw a sample of a manifest with the nodes that a pipeline makes of it. Unreadable media are named.

    Raises:
        ManifestError: no such sample.
        HetgraphError: the file cannot be written.
    """
    row = _find(manifest, name)
    aside: list[Unreadable] = []
    record = Record(row.id, row.media, row.entities)
    [sample] = pipeline([record], aside=aside.append)
    reasons = {one.column: one.reason for one in aside}
    panels = [_panel(row, sample, medium, reasons) for medium in pipeline.media if medium.column in row.media]
    if "entity" in sample.nodes:
        labels = pipeline.labels_of(record, sample)
        panels.append(Panel(f"{len(labels)} entities", "entity", "entity", labels, len(labels)))
    words = [f"{key}: {value}" for key, value in (("split", row.split), ("label", row.label)) if value is not None]
    return draw_panels(path, panels, _bundles(sample, pipeline), f"sample {row.id}", ", ".join(words), dpi=dpi)


def _find(manifest: Manifest, name: str) -> Row:
    for row in manifest.rows:
        if row.id == name:
            return row
    near = difflib.get_close_matches(name, (row.id for row in islice(manifest.rows, 20_000)), 3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ManifestError(f"{manifest.path}: no sample {name!r}{hint}")


def _panel(row: Row, sample: Sample, medium: Any, reasons: dict[str, str]) -> Panel:
    value, nodes = row.media[medium.column], sample.nodes.get(medium.node)
    title = f"{medium.column}: {value.name}" if isinstance(value, Path) else medium.column
    if medium.column in reasons or nodes is None:
        return Panel(f"{title} cannot be read: {reasons.get(medium.column, '?')}", medium.node, "none", None, 0)
    count = len(nodes["x"])
    title += f", {count} {medium.node} node{'s' * (count != 1)}"
    item = Item(value, medium.column)
    content: Any = None
    kind = medium.kind
    if kind == "image":
        content = np.asarray(read_image(item, Path(value)))
    elif kind == "audio":
        content = read_audio(item, Path(value), RATE, None)[0]
        title += f", {len(content) / RATE:.2f} s"
    elif kind == "text":
        content = text_of_words(value) if isinstance(value, list) else str(value)
    elif kind == "table":
        content = _cells(value)
    field_ = {"image": "box", "text": "span"}.get(kind, "time")
    where = nodes[field_].numpy() if field_ in nodes else None
    return Panel(title, medium.node, kind, content, count, where)


def _cells(value: Any) -> list[list[str]]:
    """The upper left corner of a table in a CSV or TSV file; nothing of any other."""
    if not isinstance(value, Path) or value.suffix.lower() not in (".csv", ".tsv"):
        return []
    delimiter = "\t" if value.suffix.lower() == ".tsv" else ","
    with value.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return [row[: _COLUMNS + 1] for row in islice(csv.reader(file, delimiter=delimiter), _ROWS + 1)]


def _bundles(sample: Sample, pipeline: Pipeline) -> list[Bundle]:
    if not sample.nodes:
        return []
    schema = pipeline.schema
    graph = GraphBuilder(schema)([sample])
    found = []
    for key, edges in graph.edges.items():
        everything = type(schema.edges[key].rule) is AllPairs
        if len(edges):
            pairs = [(int(i), int(j)) for i, j in edges.index.T.tolist()]
            found.append(Bundle(*key, pairs, everything))
    return found


# --- drawing -------------------------------------------------------------------------------------------------


def draw_panels(
    path: str | Path, panels: Sequence[Panel], bundles: Sequence[Bundle], title: str, note: str = "", *, dpi: int = 110
) -> Path:
    """Draw media, nodes and edges into a PNG file; see the module.

    Raises:
        HetgraphError: an edge's end is not a node of a panel, or the file cannot be written.
    """
    counts = {panel.node: panel.count for panel in panels}
    for bundle in bundles:
        for i, j in bundle.pairs:
            if not (0 <= i < counts.get(bundle.src, 0) and 0 <= j < counts.get(bundle.dst, 0)):
                raise HetgraphError(f"edge {(bundle.src, i, bundle.relation, bundle.dst, j)}: no such node is drawn")
    pictures = [panel for panel in panels if panel.kind == "image"]
    others = sorted((panel for panel in panels if panel.kind != "image"), key=lambda panel: _ORDER.get(panel.kind, 3))
    rows = _in_rows(pictures)
    lines = {id(panel): _wrapped(panel) for panel in others if panel.kind in ("text", "entity")}
    legend = _legend(bundles)
    heights = [max(_size(panel.content, scale)[1] for panel in row) + 5 for row, scale in rows]
    heights += [_height(panel, len(lines.get(id(panel), ()))) for panel in others]
    head = 8.5 if note else 5.0
    total = head + sum(heights) + 2.2 * -(-len(legend) // 3) + 2.5
    figure = Figure(figsize=(WIDTH / 10, total / 10), dpi=dpi, facecolor=PAPER)
    FigureCanvasAgg(figure)
    page = figure.add_axes((0, 0, 1, 1), facecolor="none")
    page.set(xlim=(0, WIDTH), ylim=(0, total))
    page.axis("off")
    text_line(page, total - 2.6, title, _ROOM, 15.0, "bold")
    text_line(page, total - 6.0, note, _ROOM, 11.0, "normal")
    canvas = _Canvas(figure, page, total)
    places: Places = {}
    top = total - head
    for (row, scale), height in zip(rows, heights, strict=False):
        x = _LEFT
        for panel in row:
            x += _draw_picture(canvas, panel, x, top, scale, places) + 4
        top -= height
    for panel, height in zip(others, heights[len(rows) :], strict=True):
        _title(page, _LEFT, top - 1.4, panel.title, _ROOM)
        if panel.kind in ("text", "entity"):
            _draw_words(page, panel, lines[id(panel)], top - 4.6, places)
        elif panel.kind == "audio":
            _draw_sound(canvas, panel, top - 3, places)
        else:
            if panel.kind == "table" and panel.content:
                _draw_table(page, panel.content, top - 4.2)
            _row_of_dots(page, panel, top - height + 2.6, places)
        top -= height
    _draw_edges(page, others, bundles, places)
    _draw_legend(page, legend, top - 0.6)
    return save_png(figure, Path(path))


@dataclass
class _Canvas:
    """A figure whose places are those of its page."""

    figure: Figure
    page: Axes
    height: float

    def axes(self, x: float, y: float, w: float, h: float) -> Axes:
        return self.figure.add_axes((x / WIDTH, y / self.height, w / WIDTH, h / self.height), zorder=-1)


def _height(panel: Panel, lines: int) -> float:
    if panel.kind in ("text", "entity"):
        return 4.6 + 3.1 * max(lines, 1)
    if panel.kind == "audio":
        return 27.0
    if panel.kind == "none":
        return 4.0
    return 7.0 + (2.4 * min(len(panel.content), _ROWS + 1) + 1 if panel.kind == "table" and panel.content else 0)


def _title(page: Axes, x: float, y: float, text: str, room: float) -> None:
    """A caption, cut to the room there is."""
    shown = clean(text, 200)
    while len(shown) > 2 and advance(shown, 9) > room:
        shown = shown[:-2] + "\u2026"
    caption(page, x, y, shown)


def _wide(picture: np.ndarray) -> float:
    """Width of a picture that is ``_PICTURE`` high; very wide and very narrow ones are drawn smaller inside it."""
    high, wide = picture.shape[:2]
    return _PICTURE * min(max(wide / high, 0.45), 3.15)


def _in_rows(pictures: Sequence[Panel]) -> list[tuple[list[Panel], float]]:
    """Pictures in rows that fit the page, each row with its scale."""
    rows: list[tuple[list[Panel], float]] = []
    for start in range(0, len(pictures), 3):
        row = list(pictures[start : start + 3])
        wide = sum(_wide(panel.content) for panel in row)
        rows.append((row, min(1.0, (_ROOM - 4 * (len(row) - 1)) / wide)))
    return rows


def _size(picture: np.ndarray, scale: float) -> tuple[float, float]:
    """Width and height of a picture on the page."""
    room = _wide(picture) * scale
    fit = min(room / picture.shape[1], _PICTURE * scale / picture.shape[0])
    return picture.shape[1] * fit, picture.shape[0] * fit


def _draw_picture(canvas: _Canvas, panel: Panel, x: float, top: float, scale: float, places: Places) -> float:
    """Draw it and give the width it takes."""
    picture = panel.content
    w, h = _size(picture, scale)
    _title(canvas.page, x, top - 1.4, panel.title, _wide(picture) * scale)
    y = top - 3 - h
    axes = canvas.axes(x, y, w, h)
    axes.imshow(picture, aspect="auto", interpolation="nearest" if max(picture.shape) < 300 else "antialiased")
    axes.axis("off")
    canvas.page.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=SOFT, linewidth=0.8))
    boxes = np.zeros((0, 4)) if panel.where is None else panel.where
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        canvas.page.add_patch(
            Rectangle(
                (x + x0 * w, y + (1 - y1) * h),
                (x1 - x0) * w,
                (y1 - y0) * h,
                fill=False,
                edgecolor="white",
                linewidth=0.9,
                alpha=0.8 if len(boxes) <= 60 else 0.4,
                path_effects=[withStroke(linewidth=1.9, foreground=INK, alpha=0.5)],
            )
        )
        places[panel.node, i] = (x + (x0 + x1) / 2 * w, y + (1 - (y0 + y1) / 2) * h)
        if len(boxes) <= _MOST_DOTS:
            dot(canvas.page, places[panel.node, i], True, 5.0)
    return _wide(picture) * scale


def _pieces(panel: Panel) -> list[tuple[str, int | None]]:
    """What is written of a text or of labels: pieces, each with its node, if it has one."""
    if panel.kind == "entity":
        return [(clean(label, 24) or "\u25a1", i) for i, label in enumerate(panel.content)]
    if panel.where is None:
        return [(word, None) for word in clean(panel.content, 2000).split()]
    out: list[tuple[str, int | None]] = []
    last = 0
    for i, (start, end) in enumerate(panel.where.astype(int)):
        out += [(clean(word, 24), None) for word in panel.content[last:start].split()]
        out.append((clean(panel.content[start:end], 24) or "\u25a1", i))
        last = max(last, end)
    return out + [(clean(word, 24), None) for word in panel.content[last:].split()]


def _wrapped(panel: Panel) -> list[list[tuple[str, int | None, float]]]:
    """Pieces with their places, line by line; what does not fit is left out with a word about it."""
    lines: list[list[tuple[str, int | None, float]]] = [[]]
    x, gap = _LEFT, 2.4 if panel.kind == "entity" else 1.3
    pieces = _pieces(panel)
    for k, (text, node) in enumerate(pieces):
        wide = advance(text, 10)
        if lines[-1] and x + wide > _LEFT + _ROOM:
            if len(lines) == _MOST_LINES:
                left = len(pieces) - k
                while lines[-1] and x + advance(f"\u2026 and {left} more", 10) > _LEFT + _ROOM:
                    x = lines[-1].pop()[2]
                    left += 1
                lines[-1].append((f"\u2026 and {left} more", None, x))
                return lines
            lines.append([])
            x = _LEFT
        lines[-1].append((text, node, x))
        x += wide + gap
    return lines


def _draw_words(
    page: Axes, panel: Panel, lines: list[list[tuple[str, int | None, float]]], y: float, places: Places
) -> None:
    for k, pieces in enumerate(lines):
        for text, node, x in pieces:
            box = None
            if node is not None:
                places[panel.node, node] = (x + advance(text, 10) / 2, y - 3.1 * k)
                box = {"boxstyle": "round,pad=0.18", "facecolor": "white", "edgecolor": SOFT, "linewidth": 0.6}
            colour = INK if node is not None else SOFT
            page.text(
                *(x, y - 3.1 * k, text), fontsize=10, va="center", color=colour, bbox=box, zorder=3, parse_math=False
            )


def _draw_sound(canvas: _Canvas, panel: Panel, top: float, places: Places) -> None:
    page, sound = canvas.page, panel.content
    seconds = max(len(sound) / RATE, 1e-9)
    if panel.where is not None and len(panel.where):
        seconds = max(seconds, float(panel.where.max()))
    wide = _ROOM * len(sound) / RATE / seconds
    middle, half = top - 3.4, 3.0
    columns = np.array_split(sound, min(len(sound), 1200))
    loudest = max(float(np.abs(sound).max()), 1e-9)
    times = _LEFT + wide * (np.arange(len(columns)) + 0.5) / len(columns)
    low, high = (np.array([f(c) for c in columns]) / loudest * half for f in (np.min, np.max))
    page.fill_between(times, middle + low, middle + high, color="#7fa596", linewidth=0.4, zorder=1)
    page.plot([_LEFT, _LEFT + _ROOM], [middle] * 2, color=SOFT, linewidth=0.4, zorder=1)
    axes = canvas.axes(_LEFT, top - 22.4, wide, 12.4)
    axes.imshow(_spectrogram(sound), aspect="auto", origin="lower", cmap="magma", vmin=-80, vmax=0)
    axes.axis("off")
    for hertz in (2000, 4000, 6000):
        at = top - 22.4 + 12.4 * hertz / (RATE / 2)
        page.text(
            *(_LEFT + 0.5, at, f"{hertz // 1000} kHz"),
            fontsize=7,
            color="white",
            va="center",
            zorder=2,
            path_effects=[withStroke(linewidth=1.5, foreground=INK)],
        )
    _row_of_dots(page, panel, top - 8.3, places, seconds)


def _spectrogram(sound: np.ndarray) -> np.ndarray:
    """Power in decibels below the loudest, ``[frequencies, at most 1200]``: Hann windows of 32 ms."""
    size = RATE // 1000 * 32
    padded = np.pad(sound, (0, max(0, size - len(sound))))
    hop = max(RATE // 100, -(-(len(padded) - size) // 1200), 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)).T ** 2
    return 10 * np.log10(np.maximum(power / max(float(power.max()), 1e-12), 1e-8))


def _row_of_dots(page: Axes, panel: Panel, y: float, places: Places, seconds: float | None = None) -> None:
    """Nodes in a row: at their times, or evenly."""
    if panel.where is not None and seconds is None and len(panel.where):
        seconds = max(float(panel.where.max()), 1e-9)
    step = -(-panel.count // _MOST_DOTS) or 1
    for i in range(panel.count):
        share = (i + 0.5) / panel.count
        if panel.where is not None and seconds:
            share = min(max(float(panel.where[i].mean()) / seconds, 0.0), 1.0)
        places[panel.node, i] = (_LEFT + _ROOM * share, y)
        if i % step == 0:
            dot(page, places[panel.node, i], True, 5.0)


def _draw_table(page: Axes, cells: list[list[str]], y: float) -> None:
    columns = min(max(len(row) for row in cells), _COLUMNS)
    wide = min(_ROOM / max(columns, 1), 24.0)
    for r, row in enumerate(cells[:_ROWS]):
        for c, cell in enumerate(row[:columns]):
            shown = clean(cell, 40)
            while len(shown) > 2 and advance(shown, 9) > wide - 2:
                shown = shown[:-2] + "\u2026"
            page.text(
                *(_LEFT + c * wide + 0.6, y - 2.4 * r, shown),
                fontsize=9,
                va="center",
                color=INK,
                weight="normal" if r else "bold",
                parse_math=False,
            )
    bottom = y - 2.4 * len(cells[:_ROWS]) + 1.2
    for c in range(columns + 1):
        page.plot([_LEFT + c * wide] * 2, [y + 1.2, bottom], color=SOFT, linewidth=0.4)
    for at in (y + 1.2, y - 1.2, bottom):
        page.plot([_LEFT, _LEFT + columns * wide], [at] * 2, color=SOFT, linewidth=0.6)
    if len(cells) > _ROWS or any(len(row) > _COLUMNS for row in cells):
        caption(page, _LEFT, bottom - 1.2, "the upper left corner")


# --- edges ---------------------------------------------------------------------------------------------------


def _colours(bundles: Sequence[Bundle]) -> dict[str, str]:
    """A colour for every relation, whatever types it joins."""
    names = dict.fromkeys(bundle.relation for bundle in bundles if not bundle.everything)
    return {name: _PALETTE[k] if k < len(_PALETTE) else "#444444" for k, name in enumerate(names)}


def _chosen(bundle: Bundle, most: int) -> list[tuple[int, int]]:
    """The pairs to draw: no node to itself, and where there are too many, some from everywhere among them."""
    pairs = [(i, j) for i, j in bundle.pairs if (bundle.src, i) != (bundle.dst, j)]
    if len(pairs) <= most:
        return pairs
    golden = (np.arange(most) * 0.6180339887) % 1
    return [pairs[i] for i in np.unique((golden * len(pairs)).astype(int))]


def _draw_edges(page: Axes, panels: Sequence[Panel], bundles: Sequence[Bundle], places: Places) -> None:
    colours = _colours(bundles)
    everything = sum(bundle.everything for bundle in bundles)
    written = {panel.node for panel in panels if panel.kind in ("text", "entity")}
    for bundle in bundles:
        for i, j in _chosen(bundle, _MOST_GREY // everything if bundle.everything else _MOST_EDGES):
            # words that had no room are not on the page
            begin, end = places.get((bundle.src, i)), places.get((bundle.dst, j))
            if begin is None or end is None:
                continue
            beside = bundle.src == bundle.dst
            turned = beside and bundle.src in written and abs(begin[1] - end[1]) > 0.1
            # at the upper or lower side of a word, not on it; between two lines, at the sides that face each other
            up = 1.1 if (beside and not turned) or end[1] > begin[1] else -1.1
            begin = (begin[0], begin[1] + (up if bundle.src in written else 0))
            end = (end[0], end[1] + ((up if beside and not turned else -up) if bundle.dst in written else 0))
            distance = max(float(np.hypot(begin[0] - end[0], begin[1] - end[1])), 1e-9)
            # two relations between the same nodes lie beside each other
            high = (3.0, 4.2, 2.0, 3.6)[list(colours).index(bundle.relation) % 4] if not bundle.everything else 3.0
            bend = min(0.1 * high, high / distance) if beside and not turned else 0.0
            page.add_patch(
                FancyArrowPatch(
                    begin,
                    end,
                    connectionstyle=f"arc3,rad={-bend if begin[0] < end[0] else bend}",
                    arrowstyle="-" if bundle.everything else "-|>",
                    mutation_scale=5,
                    shrinkA=1.5,
                    shrinkB=1.5,
                    linewidth=0.5 if bundle.everything else 0.9,
                    alpha=0.3 if bundle.everything or turned else 0.7,
                    color=OTHER if bundle.everything else colours[bundle.relation],
                    zorder=4,
                )
            )


def _legend(bundles: Sequence[Bundle]) -> list[tuple[str, str]]:
    """Colours and what they stand for: every relation with how many edges it has, and how many of them are drawn."""
    entries = []
    for relation, colour in _colours(bundles).items():
        mine = [bundle for bundle in bundles if bundle.relation == relation and not bundle.everything]
        count = sum(len(_chosen(bundle, len(bundle.pairs))) for bundle in mine)
        drawn = sum(len(_chosen(bundle, _MOST_EDGES)) for bundle in mine)
        if count:
            few = f" ({drawn} drawn)" if drawn < count else ""
            entries.append((colour, f"{relation}: {count:,} edge{'s' * (count != 1)}{few}"))
    grey = [bundle for bundle in bundles if bundle.everything]
    if grey:
        pairs = {tuple(sorted((b.src, b.dst))) for b in grey}
        entries.append((OTHER, f"all pairs of {len(pairs)} kind{'s' * (len(pairs) != 1)} (a few drawn)"))
    return entries


def _draw_legend(page: Axes, entries: Sequence[tuple[str, str]], top: float) -> None:
    for k, (colour, label) in enumerate(entries):
        row, column = divmod(k, 3)
        x, y = _LEFT + 40.5 * column, top - 2.2 * row - 1
        page.plot([x, x + 3], [y] * 2, color=colour, linewidth=2.4, solid_capstyle="round")
        shown = clean(label, 60)
        while len(shown) > 2 and advance(shown, 9) > 35:
            shown = shown[:-2] + "\u2026"
        page.text(x + 4, y, shown, fontsize=9, color=INK, va="center", parse_math=False)

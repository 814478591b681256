"""Made pictures in a grid: a row for what is said, a column for each recording."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...errors import HetgraphError
from ...files import write_atomically
from . import generate
from .scoring import squares
from .translations import Translation
from .translator import Translator

COLUMNS = 12


def grid(
    model: Translator, source: Translation, part: str = "test", *, columns: int = COLUMNS, seed: int = 0
) -> tuple[Tensor, list[str]]:
    """Pictures made from recordings of every class, ``[classes, columns, side, side]``, and the names of the rows.

    Recordings are taken in the order of the part, the first again where a class has too few, always with other noise.

    Raises:
        HetgraphError: a class has no sample in the part.
    """
    classes, kinds = source.data.objective.classes, source.labels(part)  # type: ignore[attr-defined]
    rows = [(kinds == k).nonzero().squeeze(1).tolist() for k in range(len(classes))]
    if empty := [name for name, own in zip(classes, rows, strict=True) if not own]:
        raise HetgraphError(f"{source.name}: no sample of class {empty[0]!r} in the {part} part")
    chosen = [own[i % len(own)] for own in rows for i in range(columns)]
    made = generate(model, [source.samples(part)[i] for i in chosen], seed=seed)
    return squares(made).unflatten(0, (len(classes), columns)), list(classes)


def draw(pictures: Tensor, names: Sequence[str], path: str | Path, *, zoom: int = 2, gap: int = 4) -> Path:
    """Write pictures ``[rows, columns, side, side]`` from 0 to 1 as one .png, dark on light, with the rows' names.

    Raises:
        HetgraphError: not as many names as rows, or the file could not be written.
    """
    from PIL import Image, ImageDraw

    if pictures.dim() != 4 or len(names) != len(pictures):
        raise HetgraphError(f"expected [rows, columns, side, side] and a name per row, got {list(pictures.shape)}")
    rows, columns, height, width = pictures.shape
    high, wide, margin = height * zoom + gap, width * zoom + gap, 8 + 8 * max(map(len, names))
    sheet = Image.new("L", (margin + columns * wide, rows * high + gap), 255)
    pen = ImageDraw.Draw(sheet)
    pixels = (255 - pictures.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    for i in range(rows):
        pen.text((6, gap + i * high + (high - gap) // 2), str(names[i]), fill=0, anchor="lm")
        for j in range(columns):
            cell = Image.fromarray(pixels[i, j]).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
            sheet.paste(cell, (margin + j * wide, gap + i * high))
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    write_atomically(Path(path), content.getvalue())
    return Path(path)

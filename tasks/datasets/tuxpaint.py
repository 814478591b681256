"""Tux Paint stamps: 924 pictures with captions, French spoken captions and some sound effects.

Reads ``stamps.csv``, ``images_96.npz``, ``speech_fr/*.ogg`` and ``effects/*.ogg`` (named by the id in four digits)
and writes what a user would have: raw files and a manifest.

    python -m hetgraph.tasks.datasets.tuxpaint --data FOLDER --output stamps
    hetgraph fit stamps/manifest.jsonl --target top_category --output model
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...encoders import Encoder
from ...errors import HetgraphError
from ...files import write_atomically
from ...objectives import Classification
from ...pipeline import Pipeline, Record
from . import Dataset, data_folder
from .reading import read_arrays, read_table

TITLE = "Tux Paint"
MEDIA = {"image": "image", "text": "text", "audio:speech": "audio", "audio:effect": "audio"}
PARTS = ("train", "valid", "test")
COLUMNS = ("id", "top_category", "caption_en", "split", "group")


def write_manifest(output: str | Path, folder: str | Path | None = None) -> Path:
    """Write PNG pictures, copies of the sounds, and ``manifest.jsonl`` with a line per stamp.

    The columns are ``id, image, audio:speech, audio:effect, text, top_category, split, group``. Stamps that share a
    caption, a spoken caption or a file name are one group and lie in one split.

    Args:
        output: where to write.
        folder: where the data set lies; default ``$HETGRAPH_DATA/tuxpaint_stamps``.

    Returns:
        The manifest's path. It is written last, so it is there only if everything is.

    Raises:
        HetgraphError: a file or column is missing, or the files do not fit together.
    """
    from PIL import Image

    source, target = data_folder("tuxpaint_stamps", folder), Path(output)
    rows, images = _read(source)
    lines = []
    for row, pixels in zip(rows, images, strict=True):
        name = row["id"]
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "PNG")
        write_atomically(target / "images" / f"{name}.png", picture.getvalue())
        line: dict[str, Any] = {"id": name, "image": f"images/{name}.png"}
        for column, sound in _sounds(source, name).items():
            write_atomically(target / sound.parent.name / sound.name, sound.read_bytes())
            line[column] = f"{sound.parent.name}/{sound.name}"
        line |= {"text": row["caption_en"], **{key: row[key] for key in ("top_category", "split", "group")}}
        lines.append(json.dumps(line))
    write_atomically(target / "manifest.jsonl", "\n".join(lines) + "\n")
    return target / "manifest.jsonl"


def stamps(
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    encoders: Mapping[str, Encoder] | None = None,
    language: str = "en",
) -> Dataset:
    """``top_category`` from picture, caption, spoken caption and sound effect, encoded as those of a manifest are.

    Args:
        folder: as for :func:`write_manifest`.
        seed: nothing is random.
        cache: keeps the encoded media.
        encoders: other encoders than the packaged ones, by kind (image, text, audio).
        language: of the captions: "en", "es" or "fr".

    Raises:
        HetgraphError: as for :func:`write_manifest`, a stamp is in no split, or the table has no such captions.
    """
    source = data_folder("tuxpaint_stamps", folder)
    rows, images = _read(source)
    caption = f"caption_{language}"
    if caption not in rows[0]:
        raise HetgraphError(f"{TITLE}: {source / 'stamps.csv'} has no column {caption!r}")
    pipeline = Pipeline.for_columns(MEDIA, encoders=encoders, cache=cache)
    parts: dict[str, list[Record]] = {name: [] for name in PARTS}
    for row, pixels in zip(rows, images, strict=True):
        if row["split"] not in parts:
            raise HetgraphError(f"{TITLE}: stamp {row['id']}: split is one of {PARTS}, got {row['split']!r}")
        media = {"image": pixels, "text": row[caption], **_sounds(source, row["id"])}
        parts[row["split"]].append(Record(row["id"], media, target=row["top_category"]))
    classes = tuple(sorted({row["top_category"] for row in rows}))
    used = ", ".join(dict.fromkeys(str(medium.encoder.config()["encoder"]) for medium in pipeline.media))
    train, valid, test = (pipeline(parts[name]) for name in PARTS)
    return Dataset(
        "tuxpaint",
        pipeline.schema,
        train,
        valid,
        test,
        Classification(classes),
        notes=f"encoded by {used}. Stamps that share a caption, a recording or a file name are in one part. A quarter "
        "of the stamps are 'symbols' (letters, digits, faces). Only some stamps have a sound effect.",
    )


def groups(folder: str | Path | None = None) -> dict[str, str]:
    """Id of a stamp -> its group: stamps that share a caption, a French caption or a file name.

    Raises:
        HetgraphError: the table or one of its columns is missing.
    """
    return {row["id"]: row["group"] for row in _rows(data_folder("tuxpaint_stamps", folder) / "stamps.csv")}


def _read(source: Path, more: Sequence[str] = ()) -> tuple[list[dict[str, str]], np.ndarray]:
    """The table, which has ``more`` columns, and the pictures, uint8 ``[N, height, width, 3]``."""
    rows = _rows(source / "stamps.csv", more)
    images = read_arrays(TITLE, source / "images_96.npz", ("images",))["images"]
    if len(images) != len(rows):
        raise HetgraphError(f"{TITLE}: {len(images)} pictures for {len(rows)} stamps")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise HetgraphError(f"{TITLE}: pictures are uint8 [N, height, width, 3], got {images.dtype} {images.shape}")
    return rows, images


def _sounds(source: Path, name: str) -> dict[str, Path]:
    """The sounds that a stamp has, by column."""
    places = {"audio:speech": "speech_fr", "audio:effect": "effects"}
    files = {column: source / place / f"{int(name):04d}.ogg" for column, place in places.items()}
    return {column: path for column, path in files.items() if path.is_file()}


def _rows(path: Path, more: Sequence[str] = ()) -> list[dict[str, str]]:
    rows = read_table(TITLE, path, (*COLUMNS, *more))
    seen: set[str] = set()
    for row in rows:
        # files are called by the id: nothing but a number
        if not (row["id"].isascii() and row["id"].isdecimal()) or row["id"] in seen:
            raise HetgraphError(f"{TITLE}: {path}: expected a new number as id, got {row['id']!r}")
        seen.add(row["id"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data set; default $HETGRAPH_DATA/tuxpaint_stamps")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    print(write_manifest(arguments.output, arguments.data))


if __name__ == "__main__":
    main()

"""Tux Paint stamps: 924 pictures with captions, French spoken captions and some sound effects.

Reads ``stamps.csv``, ``images_96.npz``, ``speech_fr/*.ogg`` and ``effects/*.ogg`` (named by the id in four digits)
and writes what a user would have: raw files and a manifest.

    python -m hetgraph.tasks.datasets.tuxpaint --data FOLDER --output stamps
    hetgraph fit stamps/manifest.jsonl --target top_category --output model
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import HetgraphError
from ...files import write_atomically
from . import data_folder

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
    rows = list(_rows(source / "stamps.csv"))
    try:
        # opened here, because NumPy leaves a file open that is no archive
        with (source / "images_96.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
            images = data["images"]
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise HetgraphError(f"Tux Paint: {source / 'images_96.npz'} cannot be read: {error}") from error
    if len(images) != len(rows):
        raise HetgraphError(f"Tux Paint: {len(images)} pictures for {len(rows)} stamps")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise HetgraphError(f"Tux Paint: pictures are uint8 [N, height, width, 3], got {images.dtype} {images.shape}")
    lines = []
    for row, pixels in zip(rows, images, strict=True):
        name = row["id"]
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "PNG")
        write_atomically(target / "images" / f"{name}.png", picture.getvalue())
        line: dict[str, Any] = {"id": name, "image": f"images/{name}.png"}
        for column, place in (("audio:speech", "speech_fr"), ("audio:effect", "effects")):
            sound = source / place / f"{int(name):04d}.ogg"
            if sound.is_file():
                write_atomically(target / place / sound.name, sound.read_bytes())
                line[column] = f"{place}/{sound.name}"
        line |= {"text": row["caption_en"], **{key: row[key] for key in ("top_category", "split", "group")}}
        lines.append(json.dumps(line))
    write_atomically(target / "manifest.jsonl", "\n".join(lines) + "\n")
    return target / "manifest.jsonl"


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise HetgraphError(f"Tux Paint: no file {path}")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        seen: set[str] = set()
        try:
            missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
            if missing:
                raise HetgraphError(f"Tux Paint: {path} lacks the columns {missing}")
            for row in reader:
                # files are called by the id: nothing but a number
                if not (row["id"].isascii() and row["id"].isdecimal()) or row["id"] in seen:
                    raise HetgraphError(f"Tux Paint: {path}: expected a new number as id, got {row['id']!r}")
                seen.add(row["id"])
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise HetgraphError(f"Tux Paint: {path} cannot be read: {error}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data set; default $HETGRAPH_DATA/tuxpaint_stamps")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    print(write_manifest(arguments.output, arguments.data))


if __name__ == "__main__":
    main()

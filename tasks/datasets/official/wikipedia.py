"""Wikipedia (Rasiwasia et al., ACM Multimedia 2010): 2,866 sections of featured articles, each with a picture, in 10
categories, for retrieval across modalities.

To download: ``wikipedia_dataset`` from the Statistical Visual Computing Laboratory of UC San Diego (project
"Cross-modal retrieval"): ``raw_features.mat`` (``I_tr`` [2173, 128] and ``I_te`` [693, 128], SIFT words; ``T_tr`` and
``T_te`` [N, 10], LDA topics) and ``trainset_txt_img_cat.list``, ``testset_txt_img_cat.list`` (text, picture, category
1 .. 10, separated by tabs). A second layout holds the same: ``features.npz`` (``image_train`` ...) and ``pairs.csv``
(split, row, text_id, image_id, category).
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ....errors import HetgraphError
from ..reading import read_arrays
from .layout import File, layout_of, new, present, shown, table
from .msrc_mat import load_mat

TITLE = "Wikipedia retrieval"
HOMEPAGE = "http://www.svcl.ucsd.edu/projects/crossmodal/"
PARTS = {"train": "tr", "test": "te"}
CATEGORIES = ("art", "biology", "geography", "history", "literature", "media", "music", "royalty", "sport", "warfare")
MAT, NPZ, PAIRS = "raw_features.mat", "features.npz", "pairs.csv"


@dataclass(frozen=True, slots=True)
class Pair:
    """A section and its picture: row ``row`` of the arrays of part ``split``."""

    split: str
    row: int
    text: str
    image: str
    category: str


def read_list(path: Path) -> list[tuple[str, str, str]]:
    """``{train,test}set_txt_img_cat.list``: text, picture and category of each pair.

    Raises:
        HetgraphError: no file, a row has not three cells, a pair is there twice, or a category is unknown.
    """
    seen: dict[str, int] = {}
    return [
        _pair(row, f"{TITLE}: {path}: line {number}", seen)
        for number, row in table(TITLE, path, ("text_id", "image_id", "category"), header=False, delimiter="\t")
    ]


def _pair(row: dict[str, str], where: str, seen: dict[str, int]) -> tuple[str, str, str]:
    new(f"{row['text_id']} {row['image_id']}", seen, where, "pair")
    if row["category"] not in map(str, range(1, len(CATEGORIES) + 1)):
        raise HetgraphError(f"{where}: field 'category' must be 1 .. {len(CATEGORIES)}, got {shown(row['category'])}")
    return row["text_id"], row["image_id"], CATEGORIES[int(row["category"]) - 1]


def read_table(path: Path) -> list[Pair]:
    """``pairs.csv``.

    Raises:
        HetgraphError: no file, a column is missing, a pair is there twice, or a split, row or category is wrong.
    """
    pairs: list[Pair] = []
    seen: dict[str, int] = {}
    rows = dict.fromkeys(PARTS, 0)
    for number, row in table(TITLE, path, ("split", "row", "text_id", "image_id", "category")):
        where = f"{TITLE}: {path}: line {number}"
        if row["split"] not in PARTS:
            raise HetgraphError(f"{where}: field 'split' must be one of {tuple(PARTS)}, got {shown(row['split'])}")
        if row["row"] != str(rows[row["split"]]):
            raise HetgraphError(f"{where}: field 'row' must be {rows[row['split']]}, got {shown(row['row'])}")
        pairs.append(Pair(row["split"], rows[row["split"]], *_pair(row, where, seen)))
        rows[row["split"]] += 1
    return pairs


def _names(layout: str) -> dict[tuple[str, str], str]:
    """Modality and part -> name of the array."""
    if layout == "official":
        return {(m, part): f"{m[0].upper()}_{end}" for m in ("image", "text") for part, end in PARTS.items()}
    return {(m, part): f"{m}_{part}" for m in ("image", "text", "text_tfidf") for part in PARTS}


def _mat(path: Path) -> Sized:
    return load_mat(f"{TITLE}: {present(TITLE, path)}", path, tuple(_names("official").values()))


def _npz(path: Path) -> Sized:
    return read_arrays(TITLE, path, _names("npz").values())


LAYOUTS = {
    "official": (
        File(MAT, "arrays", _mat, 4),
        File("trainset_txt_img_cat.list", "pairs", read_list, 2173),
        File("testset_txt_img_cat.list", "pairs", read_list, 693),
    ),
    "npz": (File(NPZ, "arrays", _npz, 6), File(PAIRS, "pairs", read_table, 2866)),
}


class Wikipedia:
    """Pairs and their features, each read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.layout = folder, layout_of(folder, LAYOUTS)
        self.pairs = cache(self._pairs)
        self.features = cache(self._features)

    def _pairs(self, part: str) -> tuple[Pair, ...]:
        """The pairs of a part in the order of its rows."""
        _known(part)
        if self.layout == "npz":
            return tuple(pair for pair in read_table(self.folder / PAIRS) if pair.split == part)
        found = read_list(self.folder / f"{part}set_txt_img_cat.list")
        return tuple(Pair(part, i, *row) for i, row in enumerate(found))

    def _features(self, modality: str, part: str) -> np.ndarray:
        """The features of a part, floats [N, d]: ``image``, ``text``, and ``text_tfidf`` in the layout ``npz``."""
        _known(part)
        names = _names(self.layout)
        if (modality, part) not in names:
            known = dict.fromkeys(name for name, _ in names)
            raise HetgraphError(f"{TITLE}: unknown features {modality!r}; known: {', '.join(known)}")
        name = names[modality, part]
        if self.layout == "official":
            path = self.folder / MAT
            value = load_mat(f"{TITLE}: {present(TITLE, path)}", path, (name,))[name]
        else:
            path = self.folder / NPZ
            value = read_arrays(TITLE, path, (name,))[name]
        count = len(self.pairs(part))
        if value.ndim != 2 or len(value) != count or value.dtype.kind != "f" or not np.isfinite(value).all():
            raise HetgraphError(
                f"{TITLE}: {path}: {name!r} must hold finite floats [{count}, d], got {value.dtype} {list(value.shape)}"
            )
        return value

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each part, how many pairs and categories."""
        return {
            part: {"pairs": len(self.pairs(part)), "categories": len({pair.category for pair in self.pairs(part)})}
            for part in PARTS
        }


def _known(part: str) -> None:
    if part not in PARTS:
        raise HetgraphError(f"{TITLE}: unknown part {part!r}; known: {', '.join(PARTS)}")


def read(folder: Path) -> Wikipedia:
    """The pairs of a folder in one of the two layouts."""
    return Wikipedia(folder)

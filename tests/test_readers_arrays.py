"""Arrays from .mat files: MSRC-v1 and Wikipedia; equal to the other layouts, and damaged."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from readers import genuine, put

from hetgraph.errors import HetgraphError
from hetgraph.tasks import datasets
from hetgraph.tasks.datasets import msrc, official
from hetgraph.tasks.datasets.official import msrc_mat, wikipedia

# MSRC-v1


def cells(*views: np.ndarray) -> np.ndarray:
    out = np.empty((1, len(views)), dtype=object)
    out[0] = views
    return out


def views(count: int = 42) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(count, width)) for width in msrc_mat.WIDTHS]


def put_mat(folder: Path, own: list[np.ndarray], labels: Any = None, **more: Any) -> Path:
    variables = {"X": cells(*own), "Y": np.repeat(np.arange(1, 8), 6)[:, None] if labels is None else labels}
    scipy.io.savemat(
        folder / msrc_mat.NAME, {key: value for key, value in (variables | more).items() if value is not None}
    )
    return folder


def test_views_are_known_by_their_widths_in_any_order(tmp_path) -> None:
    own = views()
    data = datasets.open("msrc_mat", put_mat(tmp_path, own[::-1])).data
    assert list(data.views) == list(msrc.VIEWS)
    for view, wanted in zip(data.views.values(), own, strict=True):
        np.testing.assert_array_equal(view, wanted.astype(np.float32))
    assert data.labels.tolist() == [label for label in range(1, 8) for _ in range(6)]
    assert datasets.open("msrc_mat", tmp_path).counts() == {"all": {"pictures": 42, "views": 5}}
    assert [(f.fault, f.text) for f in official.missing("msrc_mat", tmp_path)] == [
        ("size", "expected 210 pictures, got 42")
    ]


WRONG = {
    "a view is missing": (views()[:4], {}, r"X has no view \['centrist'\]"),
    "a view is there twice": ([*views(), views()[0]], {}, "view 5 of X must have a width of .*, each once, got 24"),
    "another width": ([*views()[:4], np.zeros((42, 9))], {}, "view 4 of X must have a width of .*, got 9"),
    "another length": ([*views()[:4], views(41)[4]], {}, r"view 4 of X must hold finite numbers \[42, d\], got .*41"),
    "not finite": ([*views()[:4], np.full((42, 254), np.nan)], {}, "view 4 of X must hold finite numbers"),
    "no cells": (views(), {"X": np.zeros((2, 2))}, r"X must be a cell array \[1, views\], got float64 \[2, 2\]"),
    "no labels": (views(), {"Y": None}, r"lacks the variables \['Y'\]"),
    "labels between": (views(), {"labels": np.full((42, 1), 1.5)}, r"Y must hold whole numbers \[N, 1\]"),
    "labels as text": (views(), {"labels": "tree"}, r"Y must hold whole numbers \[N, 1\], got <U4"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_another_layout_is_refused_with_the_view(tmp_path, fault) -> None:
    own, more, message = WRONG[fault]
    with pytest.raises(HetgraphError, match=rf"MSRC-v1: .*MSRCv1\.mat:? {message}"):
        msrc_mat.read_mat(put_mat(tmp_path, own, **more) / msrc_mat.NAME)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_mat_is_refused(tmp_path, share) -> None:
    path = put_mat(tmp_path, views()) / msrc_mat.NAME
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(HetgraphError, match=r"MSRCv1\.mat (cannot be read as a \.mat file|lacks)"):
        msrc_mat.read_mat(path)


def test_the_genuine_views_give_the_samples_of_the_other_reader(tmp_path) -> None:
    folder = genuine("msrc_v1")
    with np.load(folder / "msrc_v1.npz") as file:
        arrays = {view: file[key] for view, key in msrc.VIEWS.items()}
        labels = file["labels_cvcl"]
    put_mat(tmp_path, [view.astype(np.float64) for view in arrays.values()], labels[:, None])
    source = datasets.open("msrc_mat", tmp_path)
    for view, wanted in arrays.items():
        np.testing.assert_array_equal(source.data.views[view], wanted)
    assert source.data.labels.tolist() == labels.tolist()
    own, other = source.dataset(seed=3), datasets.load("msrc_v1", folder, seed=3)
    assert own.schema.fingerprint == other.schema.fingerprint
    for part in ("train", "valid", "test"):
        for a, b in zip(getattr(own, part), getattr(other, part), strict=True):
            assert (a.id, a.target) == (b.id, b.target)
            assert all(torch.equal(a.nodes[view]["x"], b.nodes[view]["x"]) for view in msrc.VIEWS)
    assert official.missing("msrc_mat", tmp_path) == []


# Wikipedia

PAIRS = [("train", "a-1", "x1", 3), ("train", "b-2", "x2", 10), ("test", "c-3", "x3", 1)]


def put_wikipedia(folder: Path, layout: str, pairs: list = PAIRS, arrays: dict | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    count = {part: sum(pair[0] == part for pair in PAIRS) for part in ("train", "test")}
    every = {
        f"{m}_{part}": np.full((n, d), n + d / 10) for m, d in (("image", 4), ("text", 2)) for part, n in count.items()
    }
    every |= arrays or {}
    if layout == "official":
        names = {"image": "I", "text": "T", "train": "tr", "test": "te"}
        scipy.io.savemat(
            folder / "raw_features.mat", {"_".join(names[n] for n in name.split("_")): x for name, x in every.items()}
        )
        lists = {part: [p for p in pairs if p[0] == part] for part in count}
        return put(
            folder,
            {
                f"{part}set_txt_img_cat.list": "".join(f"{t}\t{i}\t{c}\n" for _, t, i, c in own)
                for part, own in lists.items()
            },
        )
    np.savez(folder / "features.npz", **every, text_tfidf_train=np.ones((2, 9)), text_tfidf_test=np.ones((1, 9)))
    rows = [(p, sum(q[0] == p for q in pairs[:i]), t, j, c) for i, (p, t, j, c) in enumerate(pairs)]
    table = "".join(",".join(map(str, row)) + "\n" for row in rows)
    return put(folder, {"pairs.csv": "split,row,text_id,image_id,category\n" + table})


@pytest.mark.parametrize("layout", ["official", "npz"])
def test_wikipedia_is_the_same_from_both_layouts(tmp_path, layout) -> None:
    data = datasets.open("wikipedia", put_wikipedia(tmp_path, layout))
    assert data.pairs("train") == (
        wikipedia.Pair("train", 0, "a-1", "x1", "geography"),
        wikipedia.Pair("train", 1, "b-2", "x2", "warfare"),
    )
    assert data.pairs("test") == (wikipedia.Pair("test", 0, "c-3", "x3", "art"),)
    np.testing.assert_array_equal(data.features("image", "train"), np.full((2, 4), 2.4))
    np.testing.assert_array_equal(data.features("text", "test"), np.full((1, 2), 1.2))
    assert data.features("text", "test") is data.features("text", "test")
    assert data.counts() == {"train": {"pairs": 2, "categories": 2}, "test": {"pairs": 1, "categories": 1}}
    with pytest.raises(HetgraphError, match="unknown features 'sound'; known: image, text"):
        data.features("sound", "test")
    with pytest.raises(HetgraphError, match="unknown part 'dev'; known: train, test"):
        data.pairs("dev")


@pytest.mark.parametrize("layout", ["official", "npz"])
@pytest.mark.parametrize(
    ("pairs", "arrays", "message"),
    [
        ([*PAIRS[:2], ("train", "a-1", "x1", 3), PAIRS[2]], {}, "pair 'a-1 x1' is there twice, before as number 1"),
        ([("train", "a-1", "x1", 11), *PAIRS[1:]], {}, "field 'category' must be 1 .. 10, got '11'"),
        (PAIRS, {"image_train": np.zeros((3, 4))}, r"must hold finite floats \[2, d\], got float64 \[3, 4\]"),
        (PAIRS, {"image_train": np.full((2, 4), np.nan)}, r"must hold finite floats \[2, d\]"),
    ],
)
def test_damaged_wikipedia_is_refused(tmp_path, layout, pairs, arrays, message) -> None:
    data = datasets.open("wikipedia", put_wikipedia(tmp_path, layout, pairs, arrays))
    with pytest.raises(HetgraphError, match=f"Wikipedia retrieval: .*{message}"):
        data.features("image", "train")


def test_rows_out_of_order_unknown_splits_and_short_rows_are_refused(tmp_path) -> None:
    header = "split,row,text_id,image_id,category\n"
    for row, message in (
        ("train,1,a,b,1", "line 2: field 'row' must be 0, got '1'"),
        ("dev,0,a,b,1", r"line 2: field 'split' must be one of \('train', 'test'\), got 'dev'"),
        ("train,0,a,b", "line 2: expected 5 cells, got 4"),
    ):
        path = put(tmp_path, {"pairs.csv": header + row + "\n"}) / "pairs.csv"
        with pytest.raises(HetgraphError, match=rf"pairs\.csv: {message}"):
            wikipedia.read_table(path)
    path = put(tmp_path, {"a.list": "a b 1\n"}) / "a.list"
    with pytest.raises(HetgraphError, match="line 1: expected 3 cells, got 1"):
        wikipedia.read_list(path)


def test_the_genuine_wikipedia_in_both_layouts(tmp_path) -> None:
    folder = genuine("wiki_retrieval")
    data = datasets.open("wikipedia", folder)
    assert data.counts() == {"train": {"pairs": 2173, "categories": 10}, "test": {"pairs": 693, "categories": 10}}
    assert data.features("text_tfidf", "test").shape == (693, 1000)
    assert official.missing("wikipedia", folder) == []
    with np.load(folder / "features.npz") as file:
        arrays = {f"{m}_{part}": file[f"{m}_{part}"] for m in ("image", "text") for part in ("train", "test")}
        labels = {part: file[f"label_{part}"] for part in ("train", "test")}
    for part in ("train", "test"):
        wanted = [wikipedia.CATEGORIES[int(label) - 1] for label in labels[part].ravel()]
        assert [pair.category for pair in data.pairs(part)] == wanted
    assert tuple((folder / "categories.txt").read_text().split()) == wikipedia.CATEGORIES
    with open(folder / "pairs.csv", newline="", encoding="utf-8") as file:
        rows = [(r["split"], r["text_id"], r["image_id"], int(r["category"])) for r in csv.DictReader(file)]
    own = datasets.open("wikipedia", put_wikipedia(tmp_path, "official", rows, arrays))
    for part in ("train", "test"):
        assert own.pairs(part) == data.pairs(part)
        for modality in ("image", "text"):
            np.testing.assert_array_equal(own.features(modality, part), data.features(modality, part))
    assert official.missing("wikipedia", tmp_path) == []

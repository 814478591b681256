"""MSRC-v1 as the .mat file of the multi-view literature: a cell array ``X`` of views [210, d], labels ``Y`` 1 .. 7.

To download: ``MSRCv1.mat`` from the repository chenjie20/CVCL (folder ``datasets``). It names no view; they are known
by their widths: colour moment 24, HOG 576, GIST 512, LBP 256, CENTRIST 254. Other repositories have files of that name
with other views, which are refused.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ....errors import HetgraphError
from ....files import write_atomically
from .. import Dataset, msrc
from .layout import File, present, shown

TITLE = "MSRC-v1"
HOMEPAGE = "https://github.com/chenjie20/CVCL"
NAME = "MSRCv1.mat"
WIDTHS = {24: "colour_moment", 576: "hog", 512: "gist", 256: "lbp", 254: "centrist"}


@dataclass(frozen=True, eq=False)
class Views:
    """N pictures: ``views`` name -> float32 [N, d], in the order of ``WIDTHS``; ``labels`` int64 [N]."""

    views: dict[str, np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def read_mat(path: Path) -> Views:
    """The views and labels of a .mat file.

    Raises:
        HetgraphError: no file, it is damaged, a variable is missing, or the views or labels have another form.
    """
    where = f"{TITLE}: {present(TITLE, path)}"
    arrays = load_mat(where, path, ("X", "Y"))
    cells, labels = arrays["X"], arrays["Y"]
    if cells.dtype != object or cells.ndim != 2 or 1 not in cells.shape:
        raise HetgraphError(f"{where}: X must be a cell array [1, views], got {cells.dtype} {list(cells.shape)}")
    if labels.ndim != 2 or 1 not in labels.shape or labels.dtype.kind not in "fiu" or (labels != labels.round()).any():
        raise HetgraphError(f"{where}: Y must hold whole numbers [N, 1], got {labels.dtype} {list(labels.shape)}")
    labels = labels.ravel().astype(np.int64)
    found = {}
    for i, view in enumerate(cells.ravel()):
        if view.ndim != 2 or len(view) != len(labels) or view.dtype.kind not in "fiu" or not np.isfinite(view).all():
            raise HetgraphError(
                f"{where}: view {i} of X must hold finite numbers [{len(labels)}, d], "
                f"got {view.dtype} {list(view.shape)}"
            )
        name = WIDTHS.get(view.shape[1])
        if name is None or name in found:
            raise HetgraphError(
                f"{where}: view {i} of X must have a width of {list(WIDTHS)}, each once, got {view.shape[1]}"
            )
        found[name] = view.astype(np.float32)
    absent = [name for name in WIDTHS.values() if name not in found]
    if absent:
        raise HetgraphError(f"{where}: X has no view {absent}")
    return Views({name: found[name] for name in WIDTHS.values()}, labels)


def load_mat(where: str, path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Variables of a .mat file up to version 7.2.

    Raises:
        HetgraphError: the file is damaged or of version 7.3, or a variable is missing.
    """
    import scipy.io
    from scipy.io.matlab import MatReadWarning

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # of a variable that is there twice, or one that it cannot read
            warnings.simplefilter("error", MatReadWarning)
            data = scipy.io.loadmat(file, variable_names=names)
    # scipy has no error of its own: what a damaged header leads to depends on where the damage is
    except Exception as error:
        raise HetgraphError(f"{where} cannot be read as a .mat file: {shown(str(error))}") from error
    absent = [name for name in names if name not in data]
    if absent:
        raise HetgraphError(f"{where} lacks the variables {absent}")
    return {name: data[name] for name in names}


def write(mat: Path, folder: Path) -> Path:
    """Write ``msrc_v1.npz``, from which ``load("msrc_v1", folder)`` makes samples."""
    data = read_mat(mat)
    out = io.BytesIO()
    arrays: dict[str, Any] = {msrc.VIEWS[name]: view for name, view in data.views.items()}
    np.savez_compressed(out, labels_cvcl=data.labels, **arrays)
    write_atomically(folder / "msrc_v1.npz", out.getvalue())
    return folder / "msrc_v1.npz"


LAYOUTS = {"official": (File(NAME, "pictures", read_mat, 210),)}


class Source:
    """The file of a folder, read when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    @cached_property
    def data(self) -> Views:
        return read_mat(self.path)

    def dataset(self, seed: int = 0) -> Dataset:
        """Samples and a split, exactly those of :func:`msrc.views <hetgraph.tasks.datasets.msrc.views>`."""
        with TemporaryDirectory() as folder:
            write(self.path, Path(folder))
            return msrc.views(folder, seed=seed)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many pictures and views."""
        return {"all": {"pictures": len(self.data), "views": len(self.data.views)}}


def read(folder: Path) -> Source:
    """The views of a folder with ``MSRCv1.mat``."""
    return Source(folder)

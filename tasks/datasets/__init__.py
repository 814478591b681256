"""Data sets: generated ones, and readers for files that the user has.

``load(name)`` gives any of them in one form, so that models can be compared on all:

    data = load("av_digits", seed=1)
    model = Predictor(Fusion(data.schema, group=data.group), data.objective)
    fit(model, data.train, valid=data.valid)

A reader is imported when its data set is loaded. ``docs/datasets.md`` says what each holds and what to know of it.

``open(name, folder)`` reads the official files of a data set instead, and gives what they hold (:mod:`.official`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import HetgraphError

if TYPE_CHECKING:
    from ...objectives import Objective
    from ...sample import Sample
    from ...schema import Schema

VARIABLE = "HETGRAPH_DATA"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples in three parts, and what is to be predicted of them.

    Attributes:
        name: a key of ``DATASETS``.
        schema: node and edge types of the samples.
        train, valid, test: the parts; ``valid`` is None where nothing can be validated on, and ``notes`` says why.
        objective: reads the samples' targets; ``objective.main`` is the metric to report.
        group: name of the field whose groups get a Z each; None: one Z per sample.
        standardize: whether training should set the scale of the features.
        notes: what to know before numbers are compared.
        about: sample id -> what the files say of it besides. Of questions: ``question``, ``image`` (its id),
            ``answers``, ``kind`` (as which it is scored apart, "" for none), and ``picture`` where it is at hand: a
            file, or uint8 ``[height, width, 3]``. No model sees it.
    """

    name: str
    schema: Schema
    train: list[Sample]
    valid: list[Sample] | None
    test: list[Sample]
    objective: Objective
    group: str | None = None
    standardize: bool = True
    notes: str = ""
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The node types, in the order of the schema."""
        return tuple(self.schema.nodes)


def data_folder(name: str, folder: str | Path | None = None) -> Path:
    """Where a data set lies: ``folder`` if given, else the folder ``name`` in ``$HETGRAPH_DATA``.

    Raises:
        HetgraphError: neither is there.
    """
    if folder is not None:
        path = Path(folder)
    elif os.environ.get(VARIABLE):
        path = Path(os.environ[VARIABLE]) / name
    else:
        raise HetgraphError(f"data set {name!r}: give its folder, or set {VARIABLE} to the folder that holds {name}/")
    if not path.is_dir():
        raise HetgraphError(f"data set {name!r}: no folder {path}")
    return path


def _reader(module: str, function: str) -> Callable[..., Dataset]:
    """A reader that imports its module when it is called."""

    def read(folder: str | Path | None = None, *, seed: int = 0, cache: str | Path | None = None) -> Dataset:
        return getattr(import_module(f".{module}", __name__), function)(folder, seed=seed, cache=cache)

    return read


DATASETS: dict[str, Callable[..., Dataset]] = {
    "mosi_bclstm": _reader("mosi", "bclstm"),
    "mosi_standard": _reader("mosi_standard", "standard"),
    "av_digits": _reader("av_digits", "degraded"),
    "av_digits_clean": _reader("av_digits", "clean"),
    "msrc_v1": _reader("msrc", "views"),
    "tuxpaint": _reader("tuxpaint", "stamps"),
    "scenes": _reader("scenes_fusion", "scenes"),
    "daquar": _reader("daquar", "single_word"),
    "daquar_all": _reader("daquar", "all_questions"),
    "daquar_recall": _reader("daquar", "recall"),
    "vqa_rad": _reader("vqa_rad", "official"),
    "vqa_rad_disjoint": _reader("vqa_rad", "disjoint"),
    "shapes": _reader("shapes", "yes_no"),
}


def load(name: str, folder: str | Path | None = None, *, seed: int = 0, cache: str | Path | None = None) -> Dataset:
    """A data set by name.

    Args:
        name: a key of ``DATASETS``.
        folder: where its files lie; default: its folder in ``$HETGRAPH_DATA`` (``cmu_mosi``, ``av_digits``,
            ``msrc_v1``, ``tuxpaint_stamps``, ``daquar``, ``vqa_rad``, ``shapes_vqa``). Generated data sets have no
            files and ignore it.
        seed: of whatever a data set draws at random (pairs and noise, splits, scenes); the others ignore it.
        cache: folder that keeps what pretrained encoders compute; None: computed every time.

    Raises:
        HetgraphError: an unknown name, an impossible seed, or a file or column that is missing or wrong.
    """
    if name not in DATASETS:
        raise HetgraphError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise HetgraphError(f"data set {name!r}: seed must be a whole number >= 0, got {seed!r}")
    return DATASETS[name](folder, seed=seed, cache=cache)


def open(name: str, folder: str | Path | None = None, **options: Any) -> Any:
    """What the official files of a data set hold: :func:`official.open`."""
    return import_module(".official", __name__).open(name, folder, **options)

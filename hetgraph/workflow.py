"""What the command line does with a manifest: fit, evaluate, embed. Usable from Python too."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .builder import GraphBuilder
from .encoders import Encoder
from .errors import CheckpointError, HetgraphError, ManifestError
from .files import write_atomically
from .fusion import Fusion
from .manifest import Manifest, Row
from .objectives import Classification, MultiLabel, Objective, Regression
from .pipeline import Facts, Pipeline, Record
from .predictor import Predictor
from .quarantine import Quarantine, Unreadable
from .sample import Sample
from .training import History, TrainingSettings, evaluate, fit

MOST_NUMERIC_CLASSES = 20
SPLITS = "splits.json"
VALID_SHARE = 0.1


@dataclass(frozen=True)
class ModelSettings:
    """Size of the model that :func:`fit_manifest` makes."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.3


@dataclass
class Fitted:
    """A trained model and how well it does.

    Attributes:
        scores: split -> metrics, for the validation and test samples that have a target.
        notes: what was decided for the user, in words.
    """

    model: Predictor
    history: History
    scores: dict[str, dict[str, float]]
    notes: list[str]


@dataclass
class Prepared:
    """What a manifest comes to before anything is trained.

    Attributes:
        samples: split -> encoded samples that have a target; splits without any are left out.
        splits: the split of every row by its id.
        notes: what was decided for the user, in words.
    """

    pipeline: Pipeline
    objective: Objective
    samples: dict[str, list[Sample]]
    splits: dict[str, str]
    notes: list[str]


Progress = Callable[[str, int], Callable[[int], object]]


def fit_manifest(
    manifest: Manifest,
    output: str | Path,
    *,
    task: str = "auto",
    columns: Sequence[str] | None = None,
    graph: Facts | None = None,
    cache: str | Path | None = None,
    model_settings: ModelSettings | None = None,
    training: TrainingSettings | None = None,
    pipeline: Pipeline | None = None,
    encoding: Progress | None = None,
    progress: bool = False,
    workers: int = 0,
    quarantine: Quarantine | None = None,
) -> Fitted:
    """Train on a manifest and write the model, its pipeline and its history into a folder.

    Args:
        manifest: what to learn from.
        output: folder for ``model.safetensors``, ``pipeline.json``, ``splits.json`` (which sample was in which
            split), ``history.json`` and the checkpoint. A run that was interrupted goes on from there.
        task: classification, multilabel, regression, or auto: by the labels.
        columns: which media columns to use; default all.
        graph: knowledge graph for the ``entities`` column and the words of the text.
        cache: folder that keeps encoded media.
        model_settings, training: sizes and training; the defaults suit a few hundred to some thousand samples.
        pipeline: encoders of the caller's choice; default: the packaged ones.
        encoding: called with a title and a total, gives a function that is told how many are done.
        progress: show a progress bar while training.
        workers: processes that build graphs while the model trains.
        quarantine: takes media that cannot be read; samples stay without them, and those with no other are left out.

    Raises:
        HetgraphError: no labels, an unknown column, bad media.
    """
    training = training or TrainingSettings(epochs=40, patience=8, modality_dropout=0.1)
    prepared = prepare(
        manifest,
        task=task,
        columns=columns,
        graph=graph,
        cache=cache,
        pipeline=pipeline,
        seed=training.seed,
        encoding=encoding,
        quarantine=quarantine,
    )
    pipeline, objective, samples = prepared.pipeline, prepared.objective, prepared.samples
    sizes = model_settings or ModelSettings()
    torch.manual_seed(training.seed)
    fusion = Fusion(pipeline.schema, sizes.width, layers=sizes.layers, heads=sizes.heads, dropout=sizes.dropout)
    model = Predictor(fusion, objective, sizes.dropout)
    folder = Path(output)
    history = fit(
        model,
        samples["train"],
        valid=samples.get("valid"),
        settings=training,
        folder=folder,
        progress=progress,
        workers=workers,
    )
    scores = {name: evaluate(model, part) for name, part in samples.items() if name != "train"}
    model.save_pretrained(folder)
    pipeline.save(folder)
    write_atomically(folder / SPLITS, json.dumps(prepared.splits))
    write_atomically(
        folder / "history.json",
        json.dumps({"loss": history.loss, "valid": history.valid, "best_epoch": history.best_epoch, "scores": scores}),
    )
    return Fitted(model, history, scores, prepared.notes)


def prepare(
    manifest: Manifest,
    *,
    task: str = "auto",
    columns: Sequence[str] | None = None,
    graph: Facts | None = None,
    cache: str | Path | None = None,
    pipeline: Pipeline | None = None,
    seed: int = 0,
    encoding: Progress | None = None,
    quarantine: Quarantine | None = None,
) -> Prepared:
    """Split, decide and encode what :func:`fit_manifest` trains on; see there."""
    notes: list[str] = []
    rows = _split(manifest, seed, notes)
    kept = choose_columns(manifest, columns)
    pipeline = pipeline or Pipeline.for_columns(kept, graph=graph, cache=cache)
    pipeline = pipeline.fitted([Record(row.id, row.media) for row in rows["train"]])
    notes += [f"{m.column} -> {m.node} nodes, by {m.encoder.config()['encoder']}" for m in pipeline.media]
    labelled = {name: [row for row in part if row.label is not None] for name, part in rows.items()}
    objective = choose_objective(labelled["train"], task, notes)
    samples = {
        name: encode_rows(pipeline, part, objective, encoding, name, quarantine)
        for name, part in labelled.items()
        if part
    }
    splits = {row.id: name for name, part in rows.items() for row in part}
    return Prepared(pipeline, objective, samples, splits, notes)


def load_model(
    folder: str | Path,
    *,
    graph: Facts | None = None,
    cache: str | Path | None = None,
    known: Mapping[str, type[Encoder]] | None = None,
) -> tuple[Predictor, Pipeline]:
    """The model of a folder and the pipeline that reads its input; for the arguments see :meth:`Pipeline.load`.

    Raises:
        CheckpointError: nothing there, damaged, or the two do not fit each other.
    """
    model = Predictor.from_pretrained(folder)
    pipeline = Pipeline.load(folder, graph=graph, cache=cache, known=known)
    if pipeline.schema != model.schema:
        raise CheckpointError(f"{folder}: pipeline and model differ: {pipeline.schema.difference(model.schema)}")
    return model, pipeline


def with_splits(manifest: Manifest, folder: str | Path) -> Manifest:
    """The manifest with the splits that were drawn when the model of ``folder`` was trained.

    Only a manifest that says nothing about splits is changed; rows the model has never seen stay without one.

    Raises:
        CheckpointError: the folder's record of the splits is damaged.
    """
    path = Path(folder) / SPLITS
    if any(row.split is not None for row in manifest.rows) or not path.is_file():
        return manifest
    try:
        drawn = {str(name): str(split) for name, split in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return replace(manifest, rows=[replace(row, split=drawn.get(row.id)) for row in manifest.rows])


def rows_for(manifest: Manifest, pipeline: Pipeline, split: str) -> Sequence[Row]:
    """The rows of a split (``all``: every row) that have at least one medium the model reads.

    Raises:
        ManifestError: no such split, or a row without any such medium.
    """
    rows = manifest.rows if split == "all" else manifest.split(split)
    known = {medium.column for medium in pipeline.media}
    for row in rows:
        if not known & set(row.media) and not (pipeline.graph is not None and row.entities):
            raise ManifestError(
                f"{manifest.path}: line {row.line}: expected one of the model's columns {sorted(known)}, "
                f"got {sorted(row.media)}"
            )
    return rows


def evaluate_manifest(
    manifest: Manifest,
    model: Predictor,
    pipeline: Pipeline,
    split: str,
    encoding: Progress | None = None,
    quarantine: Quarantine | None = None,
) -> dict[str, float]:
    """Metrics on the rows of a split; rows without a label are refused."""
    rows = rows_for(manifest, pipeline, split)
    missing = [row for row in rows if row.label is None]
    if missing:
        raise ManifestError(f"{manifest.path}: line {missing[0].line}: no label to compare with")
    samples = encode_rows(pipeline, rows, model.objective, encoding, split, quarantine)
    return evaluate(model, samples)


@torch.inference_mode()
def embed_samples(
    model: Predictor, samples: Sequence[Sample], batch_size: int = 64
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Z ``[B, width]``; node states, type -> ``[N, width]``; and the sample of every node, type -> int64 ``[N]``."""
    builder = GraphBuilder(model.schema)
    model.eval()
    z: list[Tensor] = []
    states: dict[str, list[Tensor]] = {name: [] for name in model.schema.nodes}
    owners: dict[str, list[Tensor]] = {name: [] for name in model.schema.nodes}
    for start in range(0, len(samples), batch_size):
        graph = builder(samples[start : start + batch_size])
        fused = model.fusion(graph)
        z.append(fused.z)
        for name, value in fused.nodes.items():
            states[name].append(value)
            owners[name].append(graph.batch[name] + start)
    return (
        torch.cat(z),
        {name: torch.cat(values) for name, values in states.items()},
        {name: torch.cat(values) for name, values in owners.items()},
    )


def encode_rows(
    pipeline: Pipeline,
    rows: Sequence[Row],
    objective: Objective | None,
    encoding: Progress | None,
    title: str,
    quarantine: Quarantine | None = None,
) -> list[Sample]:
    """Samples of manifest rows; their targets in the form the objective reads.

    With a quarantine, samples of which no medium can be read are left out.

    Raises:
        MediaError: a medium cannot be read and there is no quarantine.
    """
    records = [Record(row.id, row.media, row.entities, _target(row, objective)) for row in rows]
    total = sum(1 for record in records for medium in pipeline.media if medium.column in record.media)
    progress = encoding(title, total) if encoding else None
    if quarantine is None:
        return pipeline(records, progress=progress)
    found: list[Unreadable] = []
    samples = pipeline(records, progress=progress, aside=found.append)
    place = {record.id: i for i, record in enumerate(records)}
    quarantine.found += sorted(found, key=lambda one: place[one.sample])
    quarantine.left_out += [str(sample.id) for sample in samples if not sample.nodes]
    kept = [sample for sample in samples if sample.nodes]
    if not kept:
        raise HetgraphError(f"{title}: no sample has a medium that can be read; the first: {found[0].reason}")
    return kept


def choose_objective(rows: Sequence[Row], task: str, notes: list[str]) -> Objective:
    """The objective for these labels; ``task`` auto decides by what they are.

    Raises:
        HetgraphError: no labels, or labels that do not suit the task.
    """
    labels = [row.label for row in rows]
    if not labels:
        raise HetgraphError("no training sample has a label")
    if task == "auto":
        task = _guess(labels)
        notes.append(f"task: {task} (from the labels; --task chooses another)")
    if task == "classification":
        if any(isinstance(label, list) for label in labels):
            raise HetgraphError("classification needs one label a sample, got a list")
        return Classification(tuple(sorted({_name(label) for label in labels})))
    if task == "multilabel":
        if not all(isinstance(label, list) for label in labels):
            raise HetgraphError("multilabel needs a list of labels a sample")
        return MultiLabel(tuple(sorted({name for label in labels for name in label})))
    if task == "regression":
        numbers = [_number(row) for row in rows]
        return Regression(("value",)).fitted([torch.tensor([n]) for n in numbers], [row.id for row in rows])
    raise HetgraphError(f"unknown task {task!r}; known: auto, classification, multilabel, regression")


def _guess(labels: Sequence[Any]) -> str:
    if isinstance(labels[0], list):
        return "multilabel"
    if isinstance(labels[0], str):
        try:
            values = {float(label) for label in labels}
        except ValueError:
            return "classification"
        return (
            "classification"
            if all(v.is_integer() for v in values) and len(values) <= MOST_NUMERIC_CLASSES
            else "regression"
        )
    whole = all(float(label).is_integer() for label in labels)
    return "classification" if whole and len(set(labels)) <= MOST_NUMERIC_CLASSES else "regression"


def _name(label: Any) -> str:
    """A class name; 3 and 3.0 are the same class."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _number(row: Row) -> float:
    try:
        return float(row.label)
    except (TypeError, ValueError) as error:
        raise HetgraphError(f"line {row.line}: regression needs a number, got {row.label!r}") from error


def _target(row: Row, objective: Objective | None) -> Any:
    if row.label is None or objective is None:
        return None
    if isinstance(objective, Classification):
        return _name(row.label)
    if isinstance(objective, Regression):
        return torch.tensor([_number(row)])
    return row.label


def choose_columns(manifest: Manifest, wanted: Sequence[str] | None) -> Mapping[str, str]:
    """The wanted media columns of a manifest and their kinds; all if none is named.

    Raises:
        HetgraphError: there is no such column.
    """
    if not wanted:
        return manifest.columns
    unknown = [name for name in wanted if name not in manifest.columns]
    if unknown:
        raise HetgraphError(f"no column {unknown[0]!r}; the manifest has {', '.join(manifest.columns)}")
    return {name: manifest.columns[name] for name in wanted}


def _split(manifest: Manifest, seed: int, notes: list[str]) -> dict[str, list[Row]]:
    """Training, validation and test rows; what the manifest does not say is drawn by the seed."""
    rows: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    given = Counter(row.split for row in manifest.rows)
    if set(given) == {None}:
        order = _rare_last(sorted(manifest.rows, key=lambda row: _shuffle_key(row.id, seed)))
        held = max(1, round(len(order) * VALID_SHARE))
        rows["test"], rows["valid"], rows["train"] = order[:held], order[held : 2 * held], order[2 * held :]
        notes.append(f"no split column: {len(rows['train'])} / {held} / {held} drawn for train / valid / test")
    else:
        for row in manifest.rows:
            rows[row.split or "train"].append(row)
        if given[None]:
            notes.append(f"{given[None]} samples without a split went to train")
        if not rows["valid"] and len(rows["train"]) >= 20:
            order = list(rows["train"])
            random.Random(seed).shuffle(order)
            order = _rare_last(order)
            held = max(1, round(len(order) * VALID_SHARE))
            rows["valid"], rows["train"] = order[:held], order[held:]
            notes.append(f"no validation split: {held} training samples drawn for it")
    if not rows["train"]:
        raise HetgraphError(f"{manifest.path}: no training samples")
    return rows


def _rare_last(order: list[Row]) -> list[Row]:
    """The rows with one of every label at the end, where the training part is: it must know all labels.

    Labels that are mostly different from each other (numbers) leave the order as it is.
    """
    seen: set[Any] = set()
    first: list[Row] = []
    others: list[Row] = []
    for row in order:
        labels = set(row.label) if isinstance(row.label, list) else {row.label}
        (others if labels <= seen else first).append(row)
        seen |= labels
    return others + first if len(first) <= len(others) else order


def _shuffle_key(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()

"""A run that is killed, at any moment and any number of times, ends with the weights it would have had."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from hetgraph import CheckpointError, EdgeType, Fusion, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.objectives import Classification
from hetgraph.predictor import Predictor
from hetgraph.training import History, TrainingSettings, fit

SCHEMA = Schema(
    [NodeType("word", 2), NodeType("face", 3)],
    [EdgeType("word", "next", "word", rule=rules.following), EdgeType("face", "with", "word")],
)
EPOCHS, SAMPLES, BATCH = 4, 14, 4
STEPS = -(-SAMPLES // BATCH)
BEFORE = 3 + SAMPLES  # samples read before the first step: three for their ids, all for their scale


class Interruption(Exception):
    pass


class Samples:
    """Random samples; reading one can take time, or fail once so many were read."""

    def __init__(self, count: int, seed: int, pause: float = 0.0, last: float = float("inf")) -> None:
        rng = np.random.default_rng(seed)
        self.made = []
        for i in range(count):
            nodes = {"word": rng.standard_normal((rng.integers(1, 4), 2)), "face": rng.standard_normal((2, 3))}
            self.made.append(Sample(id=f"s{i}", nodes=nodes, target="ab"[int(rng.integers(2))]))
        self.pause, self.last = pause, last

    def __len__(self) -> int:
        return len(self.made)

    def __getitem__(self, i: int) -> Sample:
        if self.last <= 0:
            raise Interruption
        self.last -= 1
        time.sleep(self.pause)
        return self.made[i]


def make(width: int = 8) -> Predictor:
    torch.manual_seed(1)
    return Predictor(Fusion(SCHEMA, width=width, layers=1, heads=2, dropout=0.2), Classification(("a", "b")))


def train(
    model: Predictor,
    folder: Path | str | None,
    every: int | None = 1,
    pause: float = 0.0,
    last: float = float("inf"),
    count: int = SAMPLES,
    valid: bool = True,
    **changed: Any,
) -> History:
    settings = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "lr": 1e-2,
        "modality_dropout": 0.3,
        "patience": EPOCHS,
        **changed,
    }
    samples = Samples(count, 0, pause, last)
    options = {"valid": Samples(6, 1) if valid else None, "settings": TrainingSettings(**settings), "progress": False}
    return fit(model, samples, folder=folder, checkpoint_every=every, **options)


def result(model: Predictor, history: History) -> bytes:
    """Everything that two equal runs have in common, byte for byte."""
    about = {"loss": history.loss, "valid": history.valid, "best": history.best_epoch}
    return safetensors.torch.save(dict(model.state_dict()), {"history": json.dumps(about)})


def run(folder: str | None, out: str, **options: Any) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    model = make()
    Path(out).write_bytes(result(model, train(model, folder, **options)))


# every training process is new to training, yet none has to import the libraries again
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "accelerate",
        "hetgraph.training",
        "hypothesis",
        "pytest",
        "torch._dynamo",
        "torch.profiler",
        "torchmetrics.functional.classification",
    ]
)


def train_in_a_process(until: Callable[[], bool] = lambda: False, **task: Any) -> int:
    """Exit code of a process that trains, killed as soon as ``until()`` holds."""
    process = PROCESSES.Process(target=run, kwargs=task)
    process.start()
    end = time.monotonic() + 120
    while process.is_alive() and not until() and time.monotonic() < end:
        time.sleep(0.001)
    process.kill()
    process.join()
    assert time.monotonic() < end, "not done in time"
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> bytes:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    assert train_in_a_process(folder=None, out=str(out)) == 0
    return out.read_bytes()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def steps_done(folder: Path) -> int:
    """How many steps the checkpoint in a folder has behind it."""
    try:
        # opened once: between two openings the run may have put the next checkpoint in its place
        with open(folder / "checkpoint.safetensors", "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except FileNotFoundError:
        return 0
    numbers = json.loads(header["__metadata__"]["hetgraph"])
    return numbers["epoch"] * STEPS + numbers["step_in_epoch"]


@pytest.mark.parametrize("stride", [1, 3])
def test_killed_as_soon_as_a_checkpoint_shows_a_step_the_run_ends_with_the_same_weights(
    uninterrupted, tmp_path, stride
) -> None:
    kills = 0
    for _ in range(STEPS * EPOCHS + 2):
        goal = steps_done(tmp_path) + stride
        code = train_in_a_process(
            lambda goal=goal: steps_done(tmp_path) >= goal, folder=str(tmp_path), out=str(tmp_path / "out"), pause=0.003
        )
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills >= 3
    assert (tmp_path / "out").read_bytes() == uninterrupted


@pytest.mark.parametrize("every", [1, None], ids=["every step", "every epoch"])
def test_killed_at_random_moments_the_run_ends_with_the_same_weights(uninterrupted, tmp_path, every) -> None:
    moments = random.Random(7)
    kills = 0
    for attempt in range(30):
        end = time.monotonic() + (moments.uniform(0.05, 0.5) if attempt < 8 else 60)
        code = train_in_a_process(
            lambda end=end: time.monotonic() > end,
            folder=str(tmp_path),
            out=str(tmp_path / "out"),
            every=every,
            pause=0.002,
        )
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills > 0
    assert (tmp_path / "out").read_bytes() == uninterrupted


def test_interrupted_in_every_epoch_and_at_every_place_in_it_the_run_ends_with_the_same_weights(
    uninterrupted, tmp_path
) -> None:
    once = tmp_path / "once"
    model = make()
    assert result(model, train(model, once)) == uninterrupted
    for last in range(5, BEFORE + SAMPLES * EPOCHS, 2 * BATCH - 1):
        folder = tmp_path / str(last)
        with pytest.raises(Interruption):
            train(make(), folder, last=last)
        model = make()
        assert result(model, train(model, folder)) == uninterrupted, last


def test_a_run_that_stops_early_stops_at_the_same_epoch_after_an_interruption(tmp_path) -> None:
    options = {"patience": 1, "epochs": 9}
    model = make()
    history = train(model, None, **options)
    expected = result(model, history)
    assert len(history.loss) < 9
    for last in range(BEFORE + 1, BEFORE + SAMPLES * len(history.loss), 2 * BATCH - 1):
        folder = tmp_path / str(last)
        with pytest.raises(Interruption):
            train(make(), folder, last=last, **options)
        model = make()
        assert result(model, train(model, folder, **options)) == expected, last


@pytest.mark.parametrize("valid", [True, False], ids=["validated", "fixed epochs"])
def test_averaged_weights_and_swapped_features_are_the_same_after_an_interruption(tmp_path, valid) -> None:
    options = {"average": 0.9, "feature_swap": 0.3, "valid": valid}
    model = make()
    expected = result(model, train(model, None, **options))
    for last in range(5, BEFORE + SAMPLES * EPOCHS, 3 * BATCH - 1):
        folder = tmp_path / str(last)
        with pytest.raises(Interruption):
            train(make(), folder, last=last, **options)
        model = make()
        assert result(model, train(model, folder, **options)) == expected, last


def test_a_finished_run_started_again_does_nothing_and_gives_the_same(uninterrupted, tmp_path) -> None:
    train(make(), tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    model = make()
    history = train(model, tmp_path, last=3)  # no sample can be read but for the ids of three
    assert result(model, history) == uninterrupted
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_where_the_model_starts_does_not_matter_once_there_is_a_checkpoint(uninterrupted, tmp_path) -> None:
    with pytest.raises(Interruption):
        train(make(), tmp_path, last=BEFORE + 2 * BATCH)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    assert result(model, train(model, tmp_path)) == uninterrupted


def untouched(model: Predictor, before: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"lr": 1e-3},
        {"epochs": EPOCHS + 1},
        {"modality_dropout": 0.2},
        {"count": SAMPLES - 1},
    ],
    ids=str,
)
def test_a_checkpoint_of_another_run_is_refused_and_the_model_left_alone(tmp_path, changed) -> None:
    with pytest.raises(Interruption):
        train(make(), tmp_path, last=BEFORE + BATCH)
    kept = (tmp_path / "checkpoint.safetensors").read_bytes()
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors belongs to another run"):
        train(model, tmp_path, **changed)
    untouched(model, before)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == kept


def test_a_checkpoint_of_a_model_of_another_size_is_refused(tmp_path) -> None:
    train(make(), tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="another"):
        train(make(16), tmp_path, epochs=1)


@pytest.mark.parametrize("how", ["empty", "cut", "last byte", "garbage", "foreign", "a model"])
def test_a_damaged_checkpoint_is_refused_by_name_and_left_where_it_is(tmp_path, how) -> None:
    train(make(), tmp_path, epochs=1)
    path = tmp_path / "checkpoint.safetensors"
    data = path.read_bytes()
    if how == "foreign":
        safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    elif how == "a model":
        make().save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").rename(path)
    else:
        damaged = {"empty": b"", "cut": data[:1000], "last byte": data[:-1], "garbage": bytes(range(256)) * 9}
        path.write_bytes(damaged[how])
    left = path.read_bytes()
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is damaged"):
        train(model, tmp_path, epochs=1)
    untouched(model, before)
    assert path.read_bytes() == left


def test_a_full_disk_leaves_the_older_checkpoint_and_the_run_can_go_on_later(
    uninterrupted, tmp_path, monkeypatch
) -> None:
    left = 6
    fsync = os.fsync

    def fill(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        with pytest.raises(CheckpointError, match=r"could not write .*checkpoint\.safetensors: No space left"):
            train(make(), tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]
    assert steps_done(tmp_path) == 6
    model = make()
    assert result(model, train(model, tmp_path)) == uninterrupted


def test_a_checkpoint_is_written_without_pickle_and_holds_tensors_and_json_only(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(Interruption):
        train(make(), tmp_path, last=BEFORE + BATCH * STEPS + 1)
    train(make(), tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]
    with safetensors.safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        numbers = json.loads(file.metadata()["hetgraph"])
        parts = {name.split("/")[0] for name in file.keys()}  # noqa: SIM118
    assert parts == {"model", "best", "optimizer"}
    assert numbers["epoch"] <= EPOCHS


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HetgraphError, match=r"could not write .*file/checkpoint\.safetensors"):
        train(make(), tmp_path / "file")

"""Two processes train to the losses and weights of one with the same global batches.

Run as a script, this file trains every case, alone or under ``torchrun``, and writes what came out.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from hetgraph import EdgeType, Fusion, NodeType, Sample, Schema, rules
from hetgraph.objectives import Classification, MultiLabel, Objective, Ranking, Regression
from hetgraph.predictor import Predictor
from hetgraph.training import TrainingSettings, fit, predict

FIELDS = {"turn": 0}
SCHEMA = Schema(
    [NodeType("word", 2, fields=FIELDS), NodeType("face", 3, fields=FIELDS), NodeType("room", 1), NodeType("never", 1)],
    [
        EdgeType("word", "next", "word", rule=rules.following),
        EdgeType("face", "with", "word"),
        EdgeType("room", "around", "face"),
        EdgeType("never", "to", "word"),
    ],
)
COUNT, BATCH, EPOCHS = 9, 4, 3  # the last batch of an epoch has one sample, and two processes to share it


def samples(kind: str) -> list[Sample]:
    """Words everywhere, in turns; faces in every second sample, a room in a single one."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(COUNT):
        turns = int(rng.integers(1, 5)) if kind == "groups" else 3
        turn = np.arange(turns)
        nodes: dict[str, Any] = {"word": {"x": rng.standard_normal((turns, 2)), "turn": turn}}
        if i % 2:
            nodes["face"] = {"x": rng.standard_normal((turns, 3)), "turn": turn}
        if i == 4:
            nodes["room"] = rng.standard_normal((1, 1))
        target: Any = {
            "classes": int(rng.integers(2)),
            "groups": rng.integers(0, 2, turns),
            "labels": rng.integers(0, 2, 3),
            "numbers": rng.standard_normal(2),
            "order": float(rng.integers(0, 4)),
        }[kind]
        made.append(Sample(id=f"s{i}", nodes=nodes, target=target))
    return made


CASES: dict[str, tuple[str, Objective, dict[str, Any]]] = {
    "classification": ("classes", Classification(("a", "b")), {}),
    "classification of ragged groups": ("groups", Classification(("a", "b")), {}),
    "multi-label": ("labels", MultiLabel(("a", "b", "c")), {}),
    "regression without clipping": ("numbers", Regression(("x", "y")), {"clip": 0.0}),
    "ranking": ("order", Ranking(), {}),
    "modality dropout": ("classes", Classification(("a", "b")), {"modality_dropout": 0.4}),
    "averaged weights": ("classes", Classification(("a", "b")), {"average": 0.8}),
    "stopped by validation": ("classes", Classification(("a", "b")), {"patience": 1, "epochs": 6, "lr": 0.05}),
}


def run(name: str, folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    kind, objective, settings = CASES[name]
    torch.manual_seed(2)
    fusion = Fusion(SCHEMA, width=8, layers=2, heads=2, group="turn" if kind == "groups" else None)
    model = Predictor(fusion, objective, dropout=0.0)
    data = samples(kind)
    history = fit(
        model,
        data,
        valid=data[:5] if "validation" in name else None,
        settings=TrainingSettings(**{"epochs": EPOCHS, "batch_size": BATCH, "lr": 3e-3, **settings}),
        folder=folder,
        checkpoint_every=1,
        progress=False,
    )
    found = predict(model, data)
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    numbers = {"loss": history.loss, "best": history.best_epoch, "valid": history.valid, "world": world}
    return {**model.state_dict(), "scores": found.scores}, numbers


def main(out: Path) -> None:
    # of a gradient that is zero but for rounding, AdamW would take a full step by the sign
    torch.optim.AdamW = functools.partial(torch.optim.AdamW, eps=1e-3)
    rank = int(os.environ.get("RANK", "0"))
    for name in CASES:
        tensors, numbers = run(name, out / name)
        safetensors.torch.save_file(tensors, out / f"{name} {rank}", {"numbers": json.dumps(numbers)})


def start(folder: Path, *launcher: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, __file__, str(folder)]
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"not done in time\n{output}")
    assert process.returncode == 0, output


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    start(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    start(folder, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    return folder


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safetensors.safe_open(path, "pt") as file:
        numbers = json.loads(file.metadata()["numbers"])
        return {name: file.get_tensor(name) for name in file.keys()}, numbers  # noqa: SIM118


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_losses_scores_and_weights_of_one(one, two, name) -> None:
    tensors, numbers = read(one / f"{name} 0")
    found, told = read(two / f"{name} 0")
    assert (numbers["world"], told["world"]) == (1, 2)
    assert told["best"] == numbers["best"]
    assert told["loss"] == pytest.approx(numbers["loss"], rel=1e-5)
    assert len(told["valid"]) == len(numbers["valid"])
    torch.testing.assert_close(found.pop("scores"), tensors.pop("scores"), rtol=1e-5, atol=1e-5)
    for key, value in tensors.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", CASES)
def test_both_processes_end_with_the_same_bits(two, name) -> None:
    first, second = read(two / f"{name} 0"), read(two / f"{name} 1")
    assert first[1] == second[1]
    for key, value in first[0].items():
        assert torch.equal(value, second[0][key]), key


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(Path(sys.argv[1]))

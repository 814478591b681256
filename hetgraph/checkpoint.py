"""The state of a training run in one safetensors file, replaced by one rename."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .errors import CheckpointError
from .files import write_atomically


@dataclass
class Checkpoint:
    """Where a run is.

    Attributes:
        identity: digest of settings, model and data.
        epoch, step_in_epoch: what comes next.
        loss_sum, rows, seconds: of the epoch under way.
        history: as a dict.
        best: weights of the best validation epoch so far; empty without validation.
        average: moving average of the weights; empty without one.
    """

    identity: str
    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    rows: int = 0
    seconds: float = 0.0
    history: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)


_NUMBERS = ("identity", "epoch", "step_in_epoch", "loss_sum", "rows", "seconds", "history")


def save_checkpoint(path: Path, state: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write weights, optimiser state and counters.

    Raises:
        CheckpointError: the file could not be written; an earlier one is untouched.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    tensors |= {f"average/{name}": value for name, value in state.average.items()}
    for i, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": torch.as_tensor(value) for name, value in values.items()}
    clean = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {"hetgraph": json.dumps({name: getattr(state, name) for name in _NUMBERS})}
    write_atomically(path, safetensors.torch.save(clean, header), CheckpointError)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> Checkpoint:
    """Read a checkpoint into a model and an optimiser.

    Raises:
        CheckpointError: damaged, or of another run than the one with this identity (nothing is changed then).
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})["hetgraph"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = Checkpoint(**numbers)
    except (safetensors.SafetensorError, OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if state.identity != identity:
        raise CheckpointError(
            f"{path} belongs to another run (other settings, model or samples); remove it or choose another folder"
        )
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, rest = name.split("/", 1)
        if part == "model":
            weights[rest] = value
        elif part == "best":
            state.best[rest] = value
        elif part == "average":
            state.average[rest] = value
        else:
            i, field_name = rest.split("/", 1)
            moments.setdefault(int(i), {})[field_name] = value
    try:
        model.load_state_dict(weights)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is of another model: {error}") from error
    return state

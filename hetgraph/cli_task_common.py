"""What the commands of tasks share: their options, a training per seed, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .cli_common import write_json
from .errors import HetgraphError
from .files import write_atomically

console = Console(highlight=False, emoji=False)

SHOWN = 8
"""Answers on the screen."""
SUITS = "Default: what suits the data set."

Folder = Annotated[Path | None, typer.Option("--data", help="Where the files lie. Default: in $HETGRAPH_DATA.")]
Output = Annotated[Path | None, typer.Option(help="For models and answers. Default: outputs/TASK/NAME.")]
Method = Annotated[str, typer.Option(help="Fusion method.")]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings, with seeds 0, 1, ...")]
Epochs = Annotated[int | None, typer.Option(min=1, help=f"At most so many. {SUITS}")]
Width = Annotated[int | None, typer.Option(min=1, help=SUITS)]
Layers = Annotated[int | None, typer.Option(min=0, help=SUITS)]
Heads = Annotated[int | None, typer.Option(min=1, help=SUITS)]
Rate = Annotated[float | None, typer.Option(min=0.0, help=f"Peak learning rate. {SUITS}")]
Dropout = Annotated[float | None, typer.Option(min=0.0, max=1.0, help=SUITS)]
Cache = Annotated[Path | None, typer.Option(help="Keeps what is encoded. Default: OUTPUT/cache.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the scores here.")]


@dataclass(frozen=True)
class Wanted:
    """What was typed.

    Attributes:
        task: its name, and that of its folder under ``outputs``.
        name: of the data set.
        settings: of the task, by name; None: what suits the data set.
    """

    task: str
    name: str
    folder: Path | None = None
    output: Path | None = None
    method: str = "graph"
    seeds: int = 1
    cache: Path | None = None
    json_file: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> Path:
        return self.output or Path("outputs") / self.task / self.name


@dataclass(frozen=True)
class Done:
    """The data and the answers of the last seed, and the scores of all."""

    data: Any
    answered: Sequence[Any]
    runs: list[dict[str, float]]


def per_seed(wanted: Wanted, module: Any, score: Callable[[Any, Any, Sequence[Any]], dict[str, float]]) -> Done:
    """Train once per seed; keep a model and ``answers.jsonl`` of each; print the scores and write them.

    Args:
        wanted: what was typed.
        module: the task: ``suggested``, ``train``, ``predict``, ``summary`` (:mod:`hetgraph.tasks.running`). Its
            answers have ``to_json``.
        score: metrics from model, data and answers.

    Raises:
        HetgraphError: impossible settings or bad data.
    """
    import torch

    from .tasks.datasets import load

    given = {key: value for key, value in wanted.settings.items() if value is not None}
    settings = module.suggested(wanted.name, method=wanted.method, **given)
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    runs = []
    for seed in range(wanted.seeds):
        folder = wanted.target / f"seed-{seed}"
        data = load(wanted.name, wanted.folder, seed=seed, cache=wanted.cache or wanted.target / "cache")
        model = module.train(data, settings, seed=seed, folder=folder)
        answered = module.predict(model, data)
        runs.append(score(model, data, answered))
        model.save_pretrained(folder)
        lines = [json.dumps(one.to_json(), ensure_ascii=False) for one in answered]
        write_atomically(folder / "answers.jsonl", "\n".join(lines) + "\n")
    show(wanted, module.summary(runs))
    if wanted.json_file:
        result = {"data": wanted.name, "method": wanted.method, "notes": data.notes, "runs": runs}
        write_json(wanted.json_file, result)
    return Done(data, answered, runs)


def show(wanted: Wanted, found: dict[str, tuple[float, float]]) -> None:
    """A table of scores: mean and standard deviation over the seeds."""
    count = f"{wanted.seeds} seed{'s' if wanted.seeds > 1 else ''}"
    table = Table(title=f"{wanted.name}, {wanted.method}, {count}")
    for column in ("score", "mean", "std"):
        table.add_column(column, justify="left" if column == "score" else "right")
    for metric, (mean, std) in found.items():
        table.add_row(metric, f"{mean:.4f}", f"{std:.4f}")
    console.print(table)


def some(answered: Sequence[Any], count: int = SHOWN) -> Sequence[Any]:
    """At most ``count`` of the answers, spread over all."""
    return answered[:: max(1, len(answered) // count)][:count]


def tell(wanted: Wanted, done: Done, line: Callable[[Any], str]) -> None:
    """Some answers, where everything is kept, and what to know of the data."""
    for one in some(done.answered):
        console.print(line(one), markup=False)
    console.print(f"models and answers   {wanted.target}", markup=False)
    if done.data.notes:
        console.print(done.data.notes, markup=False)


def check_name(name: str, known: Sequence[str], what: str) -> None:
    """Refuse a data set that a task cannot take.

    Raises:
        HetgraphError: it is none of the known ones.
    """
    if name not in known:
        raise HetgraphError(f"no {what} in {name!r}; data sets with {what}: {', '.join(known)}")

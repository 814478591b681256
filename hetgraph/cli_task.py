"""``hetgraph task NAME``: train on a named data set, score its test part, and keep model and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .cli_task_generation import generation
from .errors import HetgraphError
from .files import write_atomically

app = typer.Typer(
    help="Tasks on named data sets: train, score, and keep the model and what it answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, emoji=False)

SHOWN = 8
"""Answers on the screen."""
_SUITS = "Default: what suits the data set."


@app.callback()
def _tasks() -> None:
    """A group also while there is a single task in it."""


@app.command()
def vqa(
    name: Annotated[str, typer.Argument(help="daquar, daquar_all, vqa_rad, vqa_rad_disjoint, shapes or scenes.")],
    folder: Annotated[
        Path | None, typer.Option("--data", help="Where the files lie. Default: in $HETGRAPH_DATA.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="For models and answers. Default: outputs/vqa/NAME.")] = None,
    method: Annotated[str, typer.Option(help="Fusion method.")] = "graph",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings, with seeds 0, 1, ...")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help=f"At most so many. {_SUITS}")] = None,
    width: Annotated[int | None, typer.Option(min=1, help=_SUITS)] = None,
    layers: Annotated[int | None, typer.Option(min=0, help=_SUITS)] = None,
    heads: Annotated[int | None, typer.Option(min=1, help=_SUITS)] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help=f"Peak learning rate. {_SUITS}")] = None,
    dropout: Annotated[float | None, typer.Option(min=0.0, max=1.0, help=_SUITS)] = None,
    cache: Annotated[Path | None, typer.Option(help="Keeps encoded questions. Default: OUTPUT/cache.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw some answers over their pictures into this .png.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
) -> None:
    """Answer questions about pictures.

    Prints accuracy over all test questions and by kind (open and closed), mean and standard deviation over the seeds.
    """
    import torch

    from .tasks import vqa as task
    from .tasks.datasets import load

    if name not in task.DATA:
        raise HetgraphError(f"no questions in {name!r}; data sets with questions: {', '.join(task.DATA)}")
    given = {"epochs": epochs, "width": width, "layers": layers, "heads": heads, "lr": lr, "dropout": dropout}
    settings = task.suggested(name, method=method, **{key: value for key, value in given.items() if value is not None})
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    target = output or Path("outputs/vqa") / name
    runs = []
    for seed in range(seeds):
        data = load(name, folder, seed=seed, cache=cache or target / "cache")
        model = task.train(data, settings, seed=seed, folder=target / f"seed-{seed}")
        answered = task.predict(model, data)
        runs.append(task.score(answered))
        model.save_pretrained(target / f"seed-{seed}")
        lines = [json.dumps(one.to_json(), ensure_ascii=False) for one in answered]
        write_atomically(target / f"seed-{seed}" / "answers.jsonl", "\n".join(lines) + "\n")
    _show(name, method, runs, task.summary(runs))
    for one in answered[:: max(1, len(answered) // SHOWN)][:SHOWN]:
        right = "" if one.right else f"   (right: {one.target})"
        console.print(f"{one.question}   {one.answer} {one.confidence:.0%}{right}", markup=False)
    console.print(f"models and answers   {target}", markup=False)
    if data.notes:
        console.print(data.notes, markup=False)
    if json_file:
        result = {"data": name, "method": method, "notes": data.notes, "runs": runs}
        write_atomically(json_file, json.dumps(result, indent=2) + "\n")
    if picture:
        from .tasks.vqa.picture import draw

        console.print(f"picture   {draw(answered[:: max(1, len(answered) // 12)][:12], picture)}", markup=False)


def _show(name: str, method: str, runs: list[dict[str, float]], found: dict[str, tuple[float, float]]) -> None:
    table = Table(title=f"{name}, {method}, {len(runs)} seed{'s' if len(runs) > 1 else ''}")
    for column in ("score", "mean", "std"):
        table.add_column(column, justify="left" if column == "score" else "right")
    for metric, (mean, std) in found.items():
        table.add_row(metric, f"{mean:.4f}", f"{std:.4f}")
    console.print(table)


app.command()(generation)

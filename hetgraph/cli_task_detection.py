"""``hetgraph task detection NAME``: boxes in crowded scenes, or the regions that phrases mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .cli_common import write_json
from .errors import HetgraphError
from .files import write_atomically

console = Console(highlight=False, emoji=False)
_SUITS = "Default: what suits the data."


def detection(
    name: Annotated[str, typer.Argument(help="scenes (boxes and classes) or grounding (what phrases mean).")],
    output: Annotated[
        Path | None, typer.Option(help="For models and answers. Default: outputs/detection/NAME.")
    ] = None,
    method: Annotated[str, typer.Option(help="Fusion method.")] = "graph",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings, with seeds 0, 1, ...")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help=f"At most so many. {_SUITS}")] = None,
    width: Annotated[int | None, typer.Option(min=1, help=_SUITS)] = None,
    layers: Annotated[int | None, typer.Option(min=0, help=_SUITS)] = None,
    heads: Annotated[int | None, typer.Option(min=1, help=_SUITS)] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help=f"Peak learning rate. {_SUITS}")] = None,
    dropout: Annotated[float | None, typer.Option(min=0.0, max=1.0, help=_SUITS)] = None,
    picture: Annotated[
        Path | None, typer.Option(help="scenes: also train without edges, and draw both models' boxes into this .png.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
) -> None:
    """Find objects in pictures, or the region that a phrase means.

    Prints the scores of the test part, mean and standard deviation over the seeds.
    """
    import torch

    from .tasks import detection as task

    if name not in task.DATA:
        raise HetgraphError(f"nothing to detect in {name!r}; known: {', '.join(task.DATA)}")
    if picture and name != "scenes":
        raise HetgraphError("--picture draws boxes: scenes alone have some")
    given = {"epochs": epochs, "width": width, "layers": layers, "heads": heads, "lr": lr, "dropout": dropout}
    changes = {key: value for key, value in given.items() if value is not None}
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    target = output or Path("outputs/detection") / name
    run = _scenes if name == "scenes" else _phrases
    runs: list[dict[str, float]] = []
    data: Any = None
    settings: Any = None
    for seed in range(seeds):
        folder = target / f"seed-{seed}"
        scores, data, settings = run(method, changes, seed, folder)
        runs.append(scores)
    _show(f"{name}, {method}, {seeds} seed{'s' if seeds > 1 else ''}", task.summary(runs))
    console.print(f"models and answers   {target}", markup=False)
    console.print(data.notes, markup=False)
    if json_file:
        result = {"data": name, "method": method, "notes": data.notes, "runs": runs}
        write_json(json_file, result)
    if picture:
        console.print(f"picture   {_draw(data, settings, seeds - 1, target, picture)}", markup=False)


def _scenes(method: str, changes: dict[str, Any], seed: int, folder: Path) -> tuple[dict[str, float], Any, Any]:
    from .tasks import detection as task

    data, settings = task.scenes(seed=seed), task.suggested("scenes", method=method, **changes)
    model = task.train(data, settings, seed=seed, folder=folder)
    found = task.predict(model, data)
    model.save_pretrained(folder)
    task.write_coco(folder / "detections.json", found, data.classes)
    return task.coco_scores(found, data.classes), data, settings


def _phrases(method: str, changes: dict[str, Any], seed: int, folder: Path) -> tuple[dict[str, float], Any, Any]:
    from .tasks.detection import grounding as task

    data, settings = task.phrases(seed=seed), task.suggested("grounding", method=method, **changes)
    model = task.train(data, settings, seed=seed, folder=folder)
    found = task.predict(model, data)
    model.save_pretrained(folder)
    lines = [json.dumps(one.to_json()) for one in found]
    write_atomically(folder / "answers.jsonl", "\n".join(lines) + "\n")
    return task.score(found) | {f"floor_{k}": v for k, v in task.floors(data.test).items()}, data, settings


def _draw(data: Any, settings: Any, seed: int, target: Path, picture: Path) -> Path:
    """The last model beside one of the same settings whose regions hear nothing."""
    from .tasks import detection as task
    from .tasks.ablations import ablate
    from .tasks.detection.picture import draw

    alone: Any = ablate(data, "no edges")
    some = data.test[:5]
    hearing = task.NodePredictor.from_pretrained(target / f"seed-{seed}")
    deaf = task.train(alone, settings, seed=seed)
    rows = {
        "regions alone": task.predict(deaf, alone, alone.test[:5]),
        "message passing": task.predict(hearing, data, some),
    }
    return draw(rows, picture)


def _show(title: str, found: dict[str, tuple[float, float]]) -> None:
    table = Table(title=title)
    for column in ("score", "mean", "std"):
        table.add_column(column, justify="left" if column == "score" else "right")
    for metric, (mean, std) in found.items():
        table.add_row(metric, f"{mean:.4f}", f"{std:.4f}")
    console.print(table)

"""``hetgraph task generation NAME``: train a translator, score what it makes, and keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .cli_common import write_json
from .errors import HetgraphError

console = Console(highlight=False, emoji=False)
_SUITS = "Default: what suits the translation."


def generation(
    name: Annotated[str, typer.Argument(help="digits, tuxpaint or tuxpaint_back.")],
    folder: Annotated[
        Path | None, typer.Option("--data", help="Where the files lie. Default: in $HETGRAPH_DATA.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="For models. Default: outputs/generation/NAME.")] = None,
    method: Annotated[str, typer.Option(help="Fusion method.")] = "graph",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings, with seeds 0, 1, ...")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help=f"Of Z, at most. {_SUITS}")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help=f"Of generator and critic. {_SUITS}")] = None,
    width: Annotated[int | None, typer.Option(min=1, help=_SUITS)] = None,
    layers: Annotated[int | None, typer.Option(min=0, help=_SUITS)] = None,
    heads: Annotated[int | None, typer.Option(min=1, help=_SUITS)] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help=f"Inside generator and critic. {_SUITS}")] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help=f"Peak learning rate of Z. {_SUITS}")] = None,
    dropout: Annotated[float | None, typer.Option(min=0.0, max=1.0, help=_SUITS)] = None,
    cache: Annotated[Path | None, typer.Option(help="Keeps encoded media. Default: OUTPUT/cache.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw made pictures into this .png (digits).")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
) -> None:
    """Make one modality from another: a picture of a spoken digit, features of the picture that belongs to a caption.

    Prints the scores on the test part, mean and standard deviation over the seeds, and what they are to be held
    against.
    """
    import torch

    from .tasks import generation as task
    from .tasks.generation import scoring

    if name not in task.NAMES:
        raise HetgraphError(f"no translation {name!r}; known: {', '.join(task.NAMES)}")
    if picture and name != "digits":
        raise HetgraphError(f"features have no picture; expected digits, got {name!r}")
    given: dict[str, float | None] = {
        "epochs": epochs,
        "steps": steps,
        "width": width,
        "layers": layers,
        "heads": heads,
        "hidden": hidden,
    }
    given |= {"lr": lr, "dropout": dropout}
    settings = task.suggested(name, method=method, **{key: value for key, value in given.items() if value is not None})
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    target = output or Path("outputs/generation") / name
    runs = []
    for seed in range(seeds):
        source = task.load(name, folder, seed=seed, cache=cache or target / "cache")
        model = task.train(source, settings, seed=seed)
        runs.append(task.evaluate(model, source, seed=seed))
        model.save_pretrained(target / f"seed-{seed}")
    if source.exchange:
        beside = scoring.bounds(model, source)
    else:
        beside = {"ridge regression": scoring.regression(source), "random order": scoring.chances(source)}
    _show(f"{name}, {method}, {seeds} seed{'s' if seeds > 1 else ''}", task.summary(runs), beside)
    console.print(f"models   {target}", markup=False)
    if source.data.notes:
        console.print(source.data.notes, markup=False)
    if json_file:
        result = {"translation": name, "method": method, "notes": source.data.notes, "runs": runs, "beside": beside}
        write_json(json_file, result)
    if picture:
        from .tasks.generation.picture import draw, grid

        console.print(f"picture   {draw(*grid(model, source), picture)}", markup=False)


def _show(title: str, found: dict[str, tuple[float, float]], beside: dict[str, dict[str, float]]) -> None:
    table = Table(title=title)
    table.add_column("score")
    for column in ("mean", "std", *beside):
        table.add_column(column, justify="right")
    for metric, (mean, std) in found.items():
        others = [f"{scores[metric]:.3f}" if metric in scores else "" for scores in beside.values()]
        table.add_row(metric, f"{mean:.4f}", f"{std:.4f}", *others)
    console.print(table)

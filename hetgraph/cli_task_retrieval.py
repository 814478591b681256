"""``hetgraph task retrieval NAME``: train, score all pairs of modalities, and keep models and rankings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .cli_common import write_json
from .errors import HetgraphError
from .files import write_atomically

console = Console(highlight=False, emoji=False)
SHOWN = 8
_SUITS = "Default: what suits the data set."


def retrieval(
    name: Annotated[str, typer.Argument(help="wikipedia or tuxpaint.")],
    folder: Annotated[
        Path | None, typer.Option("--data", help="Where the files lie. Default: in $HETGRAPH_DATA.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="For models, rankings. Default: outputs/retrieval/NAME.")] = None,
    method: Annotated[str, typer.Option(help="Fusion method, or linear: the closed-form maps alone.")] = "graph",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings, with seeds 0, 1, ...")] = 1,
    query: Annotated[str | None, typer.Option(help="Modalities to ask by, with commas: picture,speech.")] = None,
    candidate: Annotated[str | None, typer.Option(help="Modalities to be found, with commas.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help=f"At most so many. {_SUITS}")] = None,
    width: Annotated[int | None, typer.Option(min=1, help=_SUITS)] = None,
    layers: Annotated[int | None, typer.Option(min=0, help=_SUITS)] = None,
    heads: Annotated[int | None, typer.Option(min=1, help=_SUITS)] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help=f"Peak learning rate. {_SUITS}")] = None,
    dropout: Annotated[float | None, typer.Option(min=0.0, max=1.0, help=_SUITS)] = None,
    hardness: Annotated[float | None, typer.Option(min=0.0, help=f"Of negatives. {_SUITS}")] = None,
    queue: Annotated[int | None, typer.Option(min=0, help=f"Embeddings kept as negatives. {_SUITS}")] = None,
    cache: Annotated[Path | None, typer.Option(help="Keeps encoded media. Default: OUTPUT/cache.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw recall@10 of all pairs into this .png.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
) -> None:
    """Find samples by some of their modalities.

    Prints recall, median rank and mean average precision of every pair of modalities, mean over the seeds.
    """
    import torch

    from .tasks import retrieval as task

    if name not in task.DATA:
        raise HetgraphError(f"no data set {name!r} for retrieval; known: {', '.join(task.DATA)}")
    given = {"epochs": epochs, "width": width, "layers": layers, "heads": heads, "lr": lr, "dropout": dropout}
    given |= {"hardness": hardness, "queue": queue}
    settings = task.suggested(name, method=method, **{key: value for key, value in given.items() if value is not None})
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    target = output or Path("outputs/retrieval") / name
    data = task.load(name, folder, cache=cache or target / "cache")
    names = list(data.views)
    asked = (query or names[0]).split(",")
    wanted = (candidate or next(n for n in names if n not in asked)).split(",")
    runs = []
    for seed in range(seeds):
        model = task.train(data, settings, seed=seed, folder=target / f"seed-{seed}")
        runs.append(task.evaluate(model, data))
        found = task.predict(model, data, query=asked, candidate=wanted)
        lines = [json.dumps(one.to_json(), ensure_ascii=False) for one in found]
        write_atomically(target / f"seed-{seed}" / "found.jsonl", "\n".join(lines) + "\n")
    _show(name, method, len(runs), task.summary(runs))
    for one in found[:: max(1, len(found) // SHOWN)][:SHOWN]:
        best = "; ".join(f"{'+' if right else '-'} {title}" for _, title, _, right in one.found[:3])
        console.print(f"{one.title}   {best}   (right: place {one.rank})", markup=False)
    console.print(f"models and rankings   {target}", markup=False)
    console.print(data.notes, markup=False)
    if json_file:
        result = {"data": name, "method": method, "notes": data.notes, "runs": runs}
        write_json(json_file, result)
    if picture:
        from .tasks.retrieval.picture import draw

        means = {metric: mean for metric, (mean, _) in task.summary(runs).items()}
        drawn = draw(means, picture, title=f"{name}, {method}: recall@10 on the test part")
        console.print(f"picture   {drawn}", markup=False)


def _show(name: str, method: str, seeds: int, found: dict[str, tuple[float, float]]) -> None:
    """A row for every pair of query and candidate."""
    table = Table(title=f"{name}, {method}, {seeds} seed{'s' if seeds > 1 else ''}")
    columns = ("map", "recall@1", "recall@5", "recall@10", "median_rank", "queries")
    table.add_column("query > found")
    for column in columns:
        table.add_column(column.replace("recall", "R").replace("median_rank", "median"), justify="right")
    for pair in [key.removeprefix("queries ") for key in found if key.startswith("queries ")]:
        cells = [found[f"{column} {pair}"][0] for column in columns]
        table.add_row(pair, *(f"{v:.3f}" for v in cells[:4]), f"{cells[4]:.1f}", f"{cells[5]:.0f}")
    console.print(table)

"""What the commands on manifests share: their options, reading with or without broken files, progress bars."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .errors import HetgraphError

# no emoji: a column called audio:x and a colon are no cross mark
console = Console(highlight=False, emoji=False)

Target = Annotated[str, typer.Option(help="The column to predict.")]
Knowledge = Annotated[
    Path | None, typer.Option(help="A knowledge graph (RDF, a table, or a saved .npz); its entities become nodes.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder that keeps encoded media. Default: .hetgraph beside the manifest.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Encode everything anew and keep nothing.")]


class OnError(StrEnum):
    stop = "stop"
    skip = "skip"


Skip = Annotated[
    OnError, typer.Option("--on-error", help="Of a file that cannot be read: stop, or go on without it and report it.")
]
Report = Annotated[
    Path | None,
    typer.Option(help="Where skipped files are listed. Default: NAME.unreadable.jsonl beside the manifest."),
]


class Task(StrEnum):
    auto = "auto"
    classification = "classification"
    multilabel = "multilabel"
    regression = "regression"


def read(manifest: Path, target: str, on_error: OnError) -> Any:
    """A manifest; with skip, files that are not there are left to their reader."""
    from .manifest import read_manifest

    return read_manifest(manifest, target=target, check_files=on_error is OnError.stop)


@contextmanager
def skipping(on_error: OnError, manifest: Path, report: Path | None) -> Iterator[Any]:
    """A quarantine if files that cannot be read are to be skipped; then the report, a word and exit code 1."""
    from .encoding import report_of
    from .quarantine import Quarantine

    if on_error is OnError.stop:
        yield None
        return
    quarantine = Quarantine()
    report = report or report_of(manifest)
    try:
        yield quarantine
    finally:
        quarantine.write(report)
    if quarantine:
        console.print(f"{quarantine.summary()}; see {report}", markup=False)
        raise typer.Exit(1)


def labelled(manifest: Path, target: str, on_error: OnError) -> Any:
    """The rows of a manifest of which some have a label, with a word about them.

    Raises:
        HetgraphError: the manifest is wrong, or no row has a label.
    """
    rows = read(manifest, target, on_error)
    if all(row.label is None for row in rows.rows):
        raise HetgraphError(f"{manifest}: no sample has a value in the column {target!r}; --target names another")
    about(rows)
    return rows


def about(rows: Any) -> None:
    from collections import Counter

    splits = Counter(row.split or "no split" for row in rows.rows)
    console.print(
        f"{rows.path}: {len(rows.rows)} samples ("
        + ", ".join(f"{count} {name}" for name, count in splits.items())
        + f"); media: {', '.join(rows.columns)}",
        markup=False,
    )
    if rows.ignored:
        console.print(f"columns left alone: {', '.join(rows.ignored)}", markup=False)


def graph(path: Path | None) -> Any:
    if path is None:
        return None
    from .kg import load_kg

    return load_kg(path)


def cache_folder(manifest: Path, cache: Path | None, off: bool) -> Path | None:
    return None if off else cache or manifest.parent / ".hetgraph" / "cache"


@contextmanager
def bars() -> Iterator[Callable[[str, int], Callable[[int], object]]]:
    """Progress bars for encoding; they are gone before the training's own bar appears."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    started: list[Progress] = []

    def start(title: str, total: int) -> Callable[[int], object]:
        bar = Progress(
            TextColumn("[bold]encoding {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        started.append(bar)
        if total:
            bar.start()
        task = bar.add_task(title, total=total)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.update(task, completed=done)
            if done >= total:
                bar.stop()

        return advance

    try:
        yield start
    finally:
        for bar in started:
            bar.stop()


def write_json(path: Path, data: Any) -> None:
    from .files import write_atomically

    write_atomically(path, json.dumps(data, indent=2) + "\n")

"""``hetgraph compare``: every fusion method on a manifest or a named data set, with equal budgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from . import cli_common as common
from .errors import HetgraphError

_OWN = "Default: what suits a built-in data set, else "


def compare(
    data: Annotated[str, typer.Argument(help="A manifest, or the name of a data set.")],
    folder: Annotated[Path | None, typer.Option("--data", help="Where the files of a named data set lie.")] = None,
    methods: Annotated[str | None, typer.Option(help="Fusion methods, with commas. Default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Final trainings of each method: seeds 0, 1, ...")] = 5,
    tuning_seeds: Annotated[int, typer.Option(min=1, help="Trainings of each configuration to choose by.")] = 1,
    width: Annotated[
        int | None, typer.Option(min=1, help=f"Of graph, whose parameters are the budget. {_OWN}64")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=0, help=f"{_OWN}2")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help=f"{_OWN}4")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Parameters of every method instead.")] = None,
    lr: Annotated[str | None, typer.Option(help=f"Learning rates to try, with commas. {_OWN}0.001,0.003")] = None,
    dropout: Annotated[str | None, typer.Option(help=f"Dropouts to try, with commas. {_OWN}0.1,0.3")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help=f"At most so many, with a validation part. {_OWN}40")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help=f"{_OWN}32")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help=f"Epochs without a better validation score. {_OWN}8")
    ] = None,
    modality_dropout: Annotated[
        str | None, typer.Option(help=f"One rate, or TYPE=RATE with commas between. {_OWN}0.1")
    ] = None,
    feature_swap: Annotated[
        str | None,
        typer.Option(help=f"Rate of features replaced by another node's, or TYPE=RATE with commas between. {_OWN}0"),
    ] = None,
    average: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help=f"Decay of the averaged weights; 0: none. {_OWN}0")
    ] = None,
    single: Annotated[bool, typer.Option("--single", help="Also train graph on each modality alone.")] = False,
    subsets: Annotated[bool, typer.Option("--subsets", help="Also score every subset of the modalities.")] = False,
    metric: Annotated[str | None, typer.Option(help="To show. Settings are chosen by the main metric.")] = None,
    target: common.Target = "label",
    use: Annotated[list[str] | None, typer.Option(help="A media column to use; repeat. Default: all.")] = None,
    task: Annotated[common.Task, typer.Option(help="auto: decided by the labels.")] = common.Task.auto,
    knowledge: common.Knowledge = None,
    cache: common.Cache = None,
    no_cache: common.NoCache = False,
    on_error: common.Skip = common.OnError.stop,
    report: common.Report = None,
    workers: Annotated[int, typer.Option(min=0, help="Trainings side by side; 0: one after the other, here.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Keeps every finished run. Default: outputs/compare/DATA.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result here too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the scores of every seed into this .png.")] = None,
) -> None:
    """Train every fusion method on the same data with equal budgets, and compare them.

    Every method gets about as many parameters and as many configurations to choose from; the choice is made on the
    validation part. Interrupted, the same command goes on where it stopped.
    """
    import torch

    from .compare import compare as run

    given = {
        "width": width,
        "layers": layers,
        "heads": heads,
        "budget": budget,
        "lr": _numbers("--lr", lr),
        "dropout": _numbers("--dropout", dropout),
        "epochs": epochs,
        "batch_size": batch_size,
        "patience": patience,
        "modality_dropout": _rates("--modality-dropout", modality_dropout),
        "feature_swap": _rates("--feature-swap", feature_swap),
        "average": average,
    }
    named = not (Path(data).suffix or Path(data).is_file())
    settings = _comparison(
        data if named else None,
        given,
        methods=tuple(methods.split(",")) if methods else (),
        seeds=tuple(range(seeds)),
        tuning_seeds=tuple(range(tuning_seeds)),
        single=single,
        subsets=subsets,
        metric=metric,
    )
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    output = output or Path("outputs/compare") / Path(data).stem
    with common.skipping(common.OnError.stop if named else on_error, Path(data), report) as quarantine:
        if named:
            # loaded several times for every seed: encoding once is enough
            source = _named_source(data, folder, None if no_cache else cache or output / "cache")
        else:
            source = _manifest_source(Path(data), target, use, task, knowledge, cache, no_cache, quarantine)
        try:
            with _runs_bar() as watch:
                result = run(source, settings, output, workers=workers, watch=watch)
        except KeyboardInterrupt:
            common.console.print(
                f"interrupted; the finished runs are in {output}, the same command goes on", markup=False
            )
            raise typer.Exit(130) from None
        _show_comparison(result)
        common.console.print(f"all runs in {output}", markup=False)
        if json_file:
            common.write_json(json_file, result)
        if plot:
            from .comparison_report import draw

            draw(result, plot)
    if result["failures"]:
        raise typer.Exit(1)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise HetgraphError(f"{option} takes numbers with commas between them, got {text!r}") from None


def _rates(option: str, text: str | None) -> float | dict[str, float] | None:
    """One number, or one for each of some node types."""
    if text is None:
        return None
    try:
        if "=" not in text:
            return float(text)
        # a type's name may have an equals sign in it
        return {name: float(rate) for name, _, rate in (part.rpartition("=") for part in text.split(","))}
    except ValueError:
        raise HetgraphError(f"{option} takes a rate, or TYPE=RATE with commas between, got {text!r}") from None


def _comparison(name: str | None, given: Mapping[str, Any], **more: Any) -> Any:
    """What is to be compared: what was asked for, else what suits the data set, else the defaults."""
    from .compare import Comparison
    from .tasks.datasets.suggested import SUGGESTED

    chosen = {**SUGGESTED.get(name or "", {}), **{key: value for key, value in given.items() if value is not None}}
    return Comparison.using(chosen, **more)


def _show_comparison(result: Any) -> None:
    from .comparison_report import WIDTH, remarks, subset_tables, table

    # folded to less, names and numbers could not be read
    wide = Console(highlight=False, emoji=False, width=max(WIDTH, common.console.width))
    for shown in (table(result), *subset_tables(result)):
        wide.print(shown)
    for line in remarks(result):
        common.console.print(line, markup=False)


def _manifest_source(
    manifest: Path,
    target: str,
    use: list[str] | None,
    task: common.Task,
    knowledge: Path | None,
    cache: Path | None,
    no_cache: bool,
    quarantine: Any,
) -> Any:
    """The samples of a manifest; its split is the same for every seed."""
    from .comparison_runs import Always, Parts
    from .workflow import prepare

    rows = common.labelled(manifest, target, common.OnError.stop if quarantine is None else common.OnError.skip)
    with common.bars() as encoding:
        made = prepare(
            rows,
            task=task.value,
            columns=use,
            graph=common.graph(knowledge),
            cache=common.cache_folder(manifest, cache, no_cache),
            encoding=encoding,
            quarantine=quarantine,
        )
    if "test" not in made.samples:
        raise HetgraphError(f"{manifest}: no test sample has a label to compare with")
    samples = made.samples
    return Always(
        Parts(
            manifest.stem,
            made.pipeline.schema,
            samples["train"],
            samples.get("valid"),
            samples["test"],
            made.objective,
            notes=tuple(made.notes),
        )
    )


@dataclass(frozen=True)
class _Named:
    """A built-in data set; the seed may draw its split."""

    name: str
    folder: Path | None
    cache: Path | None

    def __call__(self, seed: int) -> Any:
        from .tasks import datasets

        return datasets.load(self.name, self.folder, seed=seed, cache=self.cache)


def _named_source(name: str, folder: Path | None, cache: Path | None) -> Any:
    from .tasks import datasets

    if name not in datasets.DATASETS:
        known = ", ".join(datasets.DATASETS)
        raise HetgraphError(f"no manifest {name}, and no data set of that name; known: {known}")
    return _Named(name, folder, cache)


@contextmanager
def _runs_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the runs of a comparison."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=common.console) as bar:
        task = bar.add_task("", total=None)
        yield lambda title, done, total: bar.update(task, description=title, completed=done, total=total)

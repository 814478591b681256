"""The command line: ``hetgraph demo | fit | evaluate | embed | compare | encode | show | doctor | kg | task``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from .cli_kg import app as kg_app
from .cli_task import app as task_app
from .errors import HetgraphError

app = typer.Typer(
    help="Multimodal fusion through heterogeneous graphs: images, texts, sounds and knowledge in one representation.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(kg_app, name="kg")
app.add_typer(task_app, name="task")
# no emoji: a column called audio:x and a colon are no cross mark
console = Console(highlight=False, emoji=False)

ManifestPath = Annotated[Path, typer.Argument(help="A .jsonl, .csv or .parquet file with a row for each sample.")]
Target = Annotated[str, typer.Option(help="The column to predict.")]
Knowledge = Annotated[
    Path | None, typer.Option(help="A knowledge graph (RDF, a table, or a saved .npz); its entities become nodes.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder that keeps encoded media. Default: .hetgraph beside the manifest.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Encode everything anew and keep nothing.")]
Model = Annotated[Path, typer.Option(help="A folder that `hetgraph fit` wrote.")]


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


class Engine(StrEnum):
    local = "local"
    ray = "ray"


class ShardFormat(StrEnum):
    safetensors = "safetensors"
    webdataset = "webdataset"


class Task(StrEnum):
    auto = "auto"
    classification = "classification"
    multilabel = "multilabel"
    regression = "regression"


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the model and the picture go.")] = Path("outputs/demo"),
    train: Annotated[int | None, typer.Option(min=1, help="How many scenes to train on.")] = None,
    seed: Annotated[int, typer.Option(help="Of the scenes, the weights and the training.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Of the processor; on graphs this small one is fastest.")] = 1,
) -> None:
    """Train on generated scenes that need picture, sound, words and knowledge; take each away; draw a graph."""
    import torch

    from .tasks import demo as scenes

    torch.set_num_threads(threads)
    console.print("Scenes: a picture of coloured shapes, the sound of one of them, a question, a knowledge graph.")
    console.print("The words to be looked up in the graph are other ones in the test than in training.\n")
    result = scenes.run(output, train=train or scenes.TRAIN, seed=seed)
    table = Table(
        title="Accuracy on test questions, by what they need",
        caption="in brackets: the best guess that is left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("", no_wrap=True)
    kinds = list(next(iter(result.rows.values())).accuracy)
    for kind in kinds:
        table.add_column(kind.replace("knowledge", "known").replace("+", "\n"), justify="right", no_wrap=True)
    table.add_column("all", justify="right")
    for name, row in result.rows.items():
        cells = [_cell(scenes.chance(kind, row.removed), row.accuracy[kind]) for kind in kinds]
        table.add_row(name.replace(" ", "\n"), *cells, f"{row.overall:.2f}")
    console.print(table)
    console.print(
        f"\nmodel     {output}\npicture   {result.drawing}   one sample's graph, edges by attention weight",
        markup=False,
    )
    for line in scenes.within_chance(result.rows):
        console.print(f"not as expected: {line}")


def _cell(level: float, accuracy: float) -> str:
    return f"{accuracy:.2f}" if level == 1.0 else f"{accuracy:.2f}\n({level:.2f})"


@app.command()
def fit(
    manifest: ManifestPath,
    output: Annotated[Path, typer.Option(help="Folder for the model. An interrupted run goes on from there.")],
    target: Target = "label",
    use: Annotated[list[str] | None, typer.Option(help="A media column to use; repeat. Default: all.")] = None,
    task: Annotated[Task, typer.Option(help="auto: decided by the labels.")] = Task.auto,
    knowledge: Knowledge = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many; stops early on the validation split.")] = 40,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    lr: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 1e-3,
    width: Annotated[int, typer.Option(min=1, help="Width of Z.")] = 128,
    layers: Annotated[int, typer.Option(min=0, help="Message passing layers.")] = 2,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 4,
    dropout: Annotated[float, typer.Option(min=0.0, max=1.0)] = 0.3,
    modality_dropout: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Probability of leaving a node type out while training.")
    ] = 0.1,
    seed: Annotated[int, typer.Option()] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that build graphs while the model trains; the result is the same.")
    ] = 0,
    cache: Cache = None,
    no_cache: NoCache = False,
    on_error: Skip = OnError.stop,
    report: Report = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
) -> None:
    """Train on your own files.

    The manifest has the columns id, image, boxes, text, words, audio, video, table, entities, label and split
    (train, valid, test); all but the label may be missing, and any sample may lack any medium. `audio:NAME` is a
    second medium of a kind. Paths are relative to the manifest.
    """
    from .training import TrainingSettings
    from .workflow import ModelSettings, fit_manifest

    rows = _labelled(manifest, target, on_error)
    with _skipping(on_error, manifest, report) as quarantine, _bars() as encoding:
        done = fit_manifest(
            rows,
            output,
            task=task.value,
            columns=use,
            graph=_graph(knowledge),
            cache=_cache_folder(manifest, cache, no_cache),
            model_settings=ModelSettings(width, layers, heads, dropout),
            training=TrainingSettings(
                epochs=epochs, batch_size=batch_size, lr=lr, modality_dropout=modality_dropout, patience=8, seed=seed
            ),
            encoding=encoding,
            progress=True,
            workers=workers,
            quarantine=quarantine,
        )
        for note in done.notes:
            console.print(note, markup=False)
        best = done.history.best_epoch
        kept = "" if best is None else f", epoch {best + 1} kept"
        console.print(f"{len(done.history.loss)} epochs{kept}, {sum(done.history.seconds):.0f} s of training")
        _print_scores(done.scores)
        console.print(f"model in {output}", markup=False)
        if json_file:
            _write_json(json_file, done.scores)


@app.command()
def evaluate(
    manifest: ManifestPath,
    model: Model,
    split: Annotated[str, typer.Option(help="train, valid, test or all.")] = "test",
    target: Target = "label",
    knowledge: Knowledge = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    on_error: Skip = OnError.stop,
    report: Report = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
) -> None:
    """Score a model on a split of a manifest."""
    from .workflow import evaluate_manifest, load_model, with_splits

    rows = with_splits(_read(manifest, target, on_error), model)
    loaded, pipeline = load_model(model, graph=_graph(knowledge), cache=_cache_folder(manifest, cache, no_cache))
    with _skipping(on_error, manifest, report) as quarantine, _bars() as encoding:
        scores = evaluate_manifest(rows, loaded, pipeline, split, encoding, quarantine)
        _print_scores({split: scores})
        if json_file:
            _write_json(json_file, scores)


@app.command()
def embed(
    manifest: ManifestPath,
    model: Model,
    output: Annotated[Path, typer.Option(help="A .safetensors or .parquet file.")],
    split: Annotated[str, typer.Option(help="train, valid, test or all.")] = "all",
    knowledge: Knowledge = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    on_error: Skip = OnError.stop,
    report: Report = None,
) -> None:
    """Write the joint representation Z of every sample, and the states of its nodes.

    Safetensors: `z` [B, width]; for every node type `nodes/TYPE` [N, width] and `sample/TYPE` [N]; the ids are in
    the header. Parquet: a row per sample with `id`, `z` and a list of node states per node type.
    """
    from .embeddings import write_embeddings
    from .workflow import embed_samples, encode_rows, load_model, rows_for, with_splits

    rows = with_splits(_read(manifest, "label", on_error), model)
    loaded, pipeline = load_model(model, graph=_graph(knowledge), cache=_cache_folder(manifest, cache, no_cache))
    chosen = rows_for(rows, pipeline, split)
    with _skipping(on_error, manifest, report) as quarantine, _bars() as encoding:
        samples = encode_rows(pipeline, chosen, None, encoding, split, quarantine)
        z, nodes, owner = embed_samples(loaded, samples)
        write_embeddings(output, [str(sample.id) for sample in samples], z, nodes, owner)
        console.print(
            f"{len(samples)} samples, Z {list(z.shape)}, {sum(map(len, nodes.values()))} nodes in {output}",
            markup=False,
        )


_OWN = "Default: what suits a built-in data set, else "


@app.command()
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
    target: Target = "label",
    use: Annotated[list[str] | None, typer.Option(help="A media column to use; repeat. Default: all.")] = None,
    task: Annotated[Task, typer.Option(help="auto: decided by the labels.")] = Task.auto,
    knowledge: Knowledge = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    on_error: Skip = OnError.stop,
    report: Report = None,
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
    with _skipping(OnError.stop if named else on_error, Path(data), report) as quarantine:
        if named:
            # loaded several times for every seed: encoding once is enough
            source = _named_source(data, folder, None if no_cache else cache or output / "cache")
        else:
            source = _manifest_source(Path(data), target, use, task, knowledge, cache, no_cache, quarantine)
        try:
            with _runs_bar() as watch:
                result = run(source, settings, output, workers=workers, watch=watch)
        except KeyboardInterrupt:
            console.print(f"interrupted; the finished runs are in {output}, the same command goes on", markup=False)
            raise typer.Exit(130) from None
        _show_comparison(result)
        console.print(f"all runs in {output}", markup=False)
        if json_file:
            _write_json(json_file, result)
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
    wide = Console(highlight=False, emoji=False, width=max(WIDTH, console.width))
    for shown in (table(result), *subset_tables(result)):
        wide.print(shown)
    for line in remarks(result):
        console.print(line, markup=False)


def _manifest_source(
    manifest: Path,
    target: str,
    use: list[str] | None,
    task: Task,
    knowledge: Path | None,
    cache: Path | None,
    no_cache: bool,
    quarantine: Any,
) -> Any:
    """The samples of a manifest; its split is the same for every seed."""
    from .comparison_runs import Always, Parts
    from .workflow import prepare

    rows = _labelled(manifest, target, OnError.stop if quarantine is None else OnError.skip)
    with _bars() as encoding:
        made = prepare(
            rows,
            task=task.value,
            columns=use,
            graph=_graph(knowledge),
            cache=_cache_folder(manifest, cache, no_cache),
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
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda title, done, total: bar.update(task, description=title, completed=done, total=total)


@app.command()
def encode(
    manifest: ManifestPath,
    use: Annotated[list[str] | None, typer.Option(help="A media column to encode; repeat. Default: all.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, of a thread each. Default: a process per core.")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="local: processes of this machine; ray: Ray Data, here or on a cluster.")
    ] = Engine.local,
    output: Annotated[Path | None, typer.Option(help="Also write the encoded samples into this folder.")] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Files of the output. Default: a thousand samples each.")
    ] = None,
    form: Annotated[
        ShardFormat, typer.Option("--format", help="Of the output: safetensors, or tar files as WebDataset reads them.")
    ] = ShardFormat.safetensors,
    target: Target = "label",
    knowledge: Knowledge = None,
    cache: Cache = None,
    on_error: Skip = OnError.stop,
    report: Report = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what was done here.")] = None,
) -> None:
    """Encode all media ahead, so that training need not.

    They go into the cache that the other commands read. Interrupted or killed, the same command goes on.
    """
    from .encoding import default_workers, encode_manifest, engine_running, write_samples
    from .pipeline import Pipeline
    from .workflow import choose_columns

    if shards is not None and output is None:
        raise HetgraphError("--shards is about the files of --output, and there is none")
    rows = _read(manifest, target, on_error)
    _about(rows)
    folder = _cache_folder(manifest, cache, False)
    with _skipping(on_error, manifest, report) as quarantine, _bars() as encoding:
        pipeline = Pipeline.for_columns(choose_columns(rows, use), graph=_graph(knowledge), cache=folder)
        total = sum(rows.counts[medium.column] for medium in pipeline.media)
        processes = workers or default_workers(total)
        with engine_running(engine.value, processes):
            done = encode_manifest(
                *(rows, pipeline),
                workers=processes,
                engine=engine.value,
                quarantine=quarantine,
                progress=encoding("media", total),
            )
            for column, computed in done.computed.items():
                lost = 0 if quarantine is None else sum(one.column == column for one in quarantine.found)
                console.print(
                    f"{column}: {computed} encoded, {done.found[column]} known already"
                    + (f", {lost} unreadable" if lost else ""),
                    markup=False,
                )
            console.print(f"cache in {folder}", markup=False)
            if output is not None:
                samples = write_samples(
                    *(rows, pipeline, output),
                    shards=shards,
                    format=form.value,
                    workers=processes,
                    engine=engine.value,
                    skip=quarantine is not None,
                    progress=encoding("samples", len(rows.rows)),
                )
                console.print(f"{samples} samples in {output}", markup=False)
        if json_file:
            _write_json(json_file, {"computed": done.computed, "found": done.found})


@app.command()
def show(
    manifest: ManifestPath,
    name: Annotated[str, typer.Option("--id", help="Which sample.")],
    output: Annotated[Path | None, typer.Option(help="A .png file. Default: outputs/show/ID.png.")] = None,
    use: Annotated[list[str] | None, typer.Option(help="A media column to show; repeat. Default: all.")] = None,
    target: Target = "label",
    knowledge: Knowledge = None,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """Draw one sample: its media, the nodes they become, and the edges between them."""
    from .pipeline import Pipeline
    from .showing import show_sample
    from .workflow import choose_columns

    rows = _read(manifest, target, OnError.skip)
    pipeline = Pipeline.for_columns(
        choose_columns(rows, use), graph=_graph(knowledge), cache=_cache_folder(manifest, cache, no_cache)
    )
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100].lstrip(".") or "sample"
    path = show_sample(rows, name, pipeline, output or Path("outputs/show") / f"{safe}.png")
    console.print(f"picture in {path}", markup=False)


@app.command()
def doctor() -> None:
    """Versions, devices, broken or missing packages, each with the command that mends it."""
    from . import __version__
    from .doctor import examine

    table = Table(title=f"hetgraph {__version__}")
    for name in ("what", "state", "detail"):
        table.add_column(name, overflow="fold")
    found = examine()
    for finding in found:
        colour = {"ok": "green", "missing": "yellow", "broken": "red"}[finding.status]
        table.add_row(finding.name, f"[{colour}]{finding.status}[/]", finding.detail)
    console.print(table)
    for finding in found:
        if finding.mend:
            console.print(f"{finding.name}: {finding.mend}", markup=False, soft_wrap=True)
    if any(
        finding.status == "broken" or (finding.status == "missing" and not finding.name.startswith("extra"))
        for finding in found
    ):
        raise typer.Exit(1)


def _read(manifest: Path, target: str, on_error: OnError) -> Any:
    """A manifest; with skip, files that are not there are left to their reader."""
    from .manifest import read_manifest

    return read_manifest(manifest, target=target, check_files=on_error is OnError.stop)


@contextmanager
def _skipping(on_error: OnError, manifest: Path, report: Path | None) -> Iterator[Any]:
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


def _labelled(manifest: Path, target: str, on_error: OnError) -> Any:
    """The rows of a manifest of which some have a label, with a word about them.

    Raises:
        HetgraphError: the manifest is wrong, or no row has a label.
    """
    rows = _read(manifest, target, on_error)
    if all(row.label is None for row in rows.rows):
        raise HetgraphError(f"{manifest}: no sample has a value in the column {target!r}; --target names another")
    _about(rows)
    return rows


def _about(rows: Any) -> None:
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


def _graph(path: Path | None) -> Any:
    if path is None:
        return None
    from .kg import load_kg

    return load_kg(path)


def _cache_folder(manifest: Path, cache: Path | None, off: bool) -> Path | None:
    return None if off else cache or manifest.parent / ".hetgraph" / "cache"


@contextmanager
def _bars() -> Iterator[Callable[[str, int], Callable[[int], object]]]:
    """Progress bars for encoding; they are gone before the training's own bar appears."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bars: list[Progress] = []

    def start(title: str, total: int) -> Callable[[int], object]:
        bar = Progress(
            TextColumn("[bold]encoding {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        bars.append(bar)
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
        for bar in bars:
            bar.stop()


def _print_scores(scores: dict[str, dict[str, float]]) -> None:
    if not scores:
        return
    table = Table()
    table.add_column("split")
    names = list(next(iter(scores.values())))
    for name in names:
        table.add_column(name, justify="right")
    for split, values in scores.items():
        table.add_row(split, *(f"{values[n]:.4f}" if n in values else "-" for n in names))
    console.print(table)


def _write_json(path: Path, data: Any) -> None:
    from .files import write_atomically

    write_atomically(path, json.dumps(data, indent=2) + "\n")


def main() -> None:
    """Run the command line; errors of the user's input are one message and exit code 2."""
    try:
        app()
    except HetgraphError as error:
        Console(stderr=True, highlight=False, emoji=False).print(
            f"[red]error:[/] {_escaped(str(error))}", soft_wrap=True
        )
        sys.exit(2)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()

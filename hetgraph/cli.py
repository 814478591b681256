"""The command line: ``hetgraph demo | fit | evaluate | embed | compare | encode | show | doctor | kg | task``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from . import cli_common as common
from .cli_compare import compare
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

ManifestPath = Annotated[Path, typer.Argument(help="A .jsonl, .csv or .parquet file with a row for each sample.")]
Model = Annotated[Path, typer.Option(help="A folder that `hetgraph fit` wrote.")]


class Engine(StrEnum):
    local = "local"
    ray = "ray"


class ShardFormat(StrEnum):
    safetensors = "safetensors"
    webdataset = "webdataset"


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
    common.console.print(
        "Scenes: a picture of coloured shapes, the sound of one of them, a question, a knowledge graph."
    )
    common.console.print("The words to be looked up in the graph are other ones in the test than in training.\n")
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
    common.console.print(table)
    common.console.print(
        f"\nmodel     {output}\npicture   {result.drawing}   one sample's graph, edges by attention weight",
        markup=False,
    )
    for line in scenes.within_chance(result.rows):
        common.console.print(f"not as expected: {line}")


def _cell(level: float, accuracy: float) -> str:
    return f"{accuracy:.2f}" if level == 1.0 else f"{accuracy:.2f}\n({level:.2f})"


@app.command()
def fit(
    manifest: ManifestPath,
    output: Annotated[Path, typer.Option(help="Folder for the model. An interrupted run goes on from there.")],
    target: common.Target = "label",
    use: Annotated[list[str] | None, typer.Option(help="A media column to use; repeat. Default: all.")] = None,
    task: Annotated[common.Task, typer.Option(help="auto: decided by the labels.")] = common.Task.auto,
    knowledge: common.Knowledge = None,
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
    cache: common.Cache = None,
    no_cache: common.NoCache = False,
    on_error: common.Skip = common.OnError.stop,
    report: common.Report = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
) -> None:
    """Train on your own files.

    The manifest has the columns id, image, boxes, text, words, audio, video, table, entities, label and split
    (train, valid, test); all but the label may be missing, and any sample may lack any medium. `audio:NAME` is a
    second medium of a kind. Paths are relative to the manifest.
    """
    from .training import TrainingSettings
    from .workflow import ModelSettings, fit_manifest

    rows = common.labelled(manifest, target, on_error)
    with common.skipping(on_error, manifest, report) as quarantine, common.bars() as encoding:
        done = fit_manifest(
            rows,
            output,
            task=task.value,
            columns=use,
            graph=common.graph(knowledge),
            cache=common.cache_folder(manifest, cache, no_cache),
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
            common.console.print(note, markup=False)
        best = done.history.best_epoch
        kept = "" if best is None else f", epoch {best + 1} kept"
        common.console.print(f"{len(done.history.loss)} epochs{kept}, {sum(done.history.seconds):.0f} s of training")
        _print_scores(done.scores)
        common.console.print(f"model in {output}", markup=False)
        if json_file:
            common.write_json(json_file, done.scores)


@app.command()
def evaluate(
    manifest: ManifestPath,
    model: Model,
    split: Annotated[str, typer.Option(help="train, valid, test or all.")] = "test",
    target: common.Target = "label",
    knowledge: common.Knowledge = None,
    cache: common.Cache = None,
    no_cache: common.NoCache = False,
    on_error: common.Skip = common.OnError.stop,
    report: common.Report = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
) -> None:
    """Score a model on a split of a manifest."""
    from .workflow import evaluate_manifest, load_model, with_splits

    rows = with_splits(common.read(manifest, target, on_error), model)
    loaded, pipeline = load_model(
        model, graph=common.graph(knowledge), cache=common.cache_folder(manifest, cache, no_cache)
    )
    with common.skipping(on_error, manifest, report) as quarantine, common.bars() as encoding:
        scores = evaluate_manifest(rows, loaded, pipeline, split, encoding, quarantine)
        _print_scores({split: scores})
        if json_file:
            common.write_json(json_file, scores)


@app.command()
def embed(
    manifest: ManifestPath,
    model: Model,
    output: Annotated[Path, typer.Option(help="A .safetensors or .parquet file.")],
    split: Annotated[str, typer.Option(help="train, valid, test or all.")] = "all",
    knowledge: common.Knowledge = None,
    cache: common.Cache = None,
    no_cache: common.NoCache = False,
    on_error: common.Skip = common.OnError.stop,
    report: common.Report = None,
) -> None:
    """Write the joint representation Z of every sample, and the states of its nodes.

    Safetensors: `z` [B, width]; for every node type `nodes/TYPE` [N, width] and `sample/TYPE` [N]; the ids are in
    the header. Parquet: a row per sample with `id`, `z` and a list of node states per node type.
    """
    from .embeddings import write_embeddings
    from .workflow import embed_samples, encode_rows, load_model, rows_for, with_splits

    rows = with_splits(common.read(manifest, "label", on_error), model)
    loaded, pipeline = load_model(
        model, graph=common.graph(knowledge), cache=common.cache_folder(manifest, cache, no_cache)
    )
    chosen = rows_for(rows, pipeline, split)
    with common.skipping(on_error, manifest, report) as quarantine, common.bars() as encoding:
        samples = encode_rows(pipeline, chosen, None, encoding, split, quarantine)
        z, nodes, owner = embed_samples(loaded, samples)
        write_embeddings(output, [str(sample.id) for sample in samples], z, nodes, owner)
        common.console.print(
            f"{len(samples)} samples, Z {list(z.shape)}, {sum(map(len, nodes.values()))} nodes in {output}",
            markup=False,
        )


app.command()(compare)


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
    target: common.Target = "label",
    knowledge: common.Knowledge = None,
    cache: common.Cache = None,
    on_error: common.Skip = common.OnError.stop,
    report: common.Report = None,
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
    rows = common.read(manifest, target, on_error)
    common.about(rows)
    folder = common.cache_folder(manifest, cache, False)
    with common.skipping(on_error, manifest, report) as quarantine, common.bars() as encoding:
        pipeline = Pipeline.for_columns(choose_columns(rows, use), graph=common.graph(knowledge), cache=folder)
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
                common.console.print(
                    f"{column}: {computed} encoded, {done.found[column]} known already"
                    + (f", {lost} unreadable" if lost else ""),
                    markup=False,
                )
            common.console.print(f"cache in {folder}", markup=False)
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
                common.console.print(f"{samples} samples in {output}", markup=False)
        if json_file:
            common.write_json(json_file, {"computed": done.computed, "found": done.found})


@app.command()
def show(
    manifest: ManifestPath,
    name: Annotated[str, typer.Option("--id", help="Which sample.")],
    output: Annotated[Path | None, typer.Option(help="A .png file. Default: outputs/show/ID.png.")] = None,
    use: Annotated[list[str] | None, typer.Option(help="A media column to show; repeat. Default: all.")] = None,
    target: common.Target = "label",
    knowledge: common.Knowledge = None,
    cache: common.Cache = None,
    no_cache: common.NoCache = False,
) -> None:
    """Draw one sample: its media, the nodes they become, and the edges between them."""
    from .pipeline import Pipeline
    from .showing import show_sample
    from .workflow import choose_columns

    rows = common.read(manifest, target, common.OnError.skip)
    pipeline = Pipeline.for_columns(
        choose_columns(rows, use), graph=common.graph(knowledge), cache=common.cache_folder(manifest, cache, no_cache)
    )
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100].lstrip(".") or "sample"
    path = show_sample(rows, name, pipeline, output or Path("outputs/show") / f"{safe}.png")
    common.console.print(f"picture in {path}", markup=False)


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
    common.console.print(table)
    for finding in found:
        if finding.mend:
            common.console.print(f"{finding.name}: {finding.mend}", markup=False, soft_wrap=True)
    if any(
        finding.status == "broken" or (finding.status == "missing" and not finding.name.startswith("extra"))
        for finding in found
    ):
        raise typer.Exit(1)


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
    common.console.print(table)


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

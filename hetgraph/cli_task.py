"""``hetgraph task NAME``: train on a named data set, score its test part, and keep model and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import cli_task_common as common
from .cli_task_classification import classification, sentiment
from .cli_task_detection import detection
from .cli_task_fewshot import fewshot
from .cli_task_generation import generation
from .cli_task_retrieval import retrieval

app = typer.Typer(
    help="Tasks on named data sets: train, score, and keep the model and what it answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _tasks() -> None:
    """A group also while there is a single task in it."""


@app.command()
def vqa(
    name: Annotated[
        str, typer.Argument(help="One of daquar, daquar_all, daquar_recall, vqa_rad, vqa_rad_disjoint, shapes, scenes.")
    ],
    folder: common.Folder = None,
    output: common.Output = None,
    method: common.Method = "graph",
    seeds: common.Seeds = 1,
    epochs: common.Epochs = None,
    width: common.Width = None,
    layers: common.Layers = None,
    heads: common.Heads = None,
    lr: common.Rate = None,
    dropout: common.Dropout = None,
    cache: common.Cache = None,
    picture: Annotated[Path | None, typer.Option(help="Draw some answers over their pictures into this .png.")] = None,
    json_file: common.Json = None,
) -> None:
    """Answer questions about pictures.

    Prints accuracy over all test questions and by kind (open and closed), mean and standard deviation over the seeds.
    """
    from .tasks import vqa as task

    common.check_name(name, task.DATA, "questions")
    given = {"epochs": epochs, "width": width, "layers": layers, "heads": heads, "lr": lr, "dropout": dropout}
    wanted = common.Wanted("vqa", name, folder, output, method, seeds, cache, json_file, given)
    done = common.per_seed(wanted, task, lambda model, data, answered: task.score(answered))

    def line(one: task.Answered) -> str:
        right = "" if one.right else f"   (right: {one.target})"
        return f"{one.question}   {one.answer} {one.confidence:.0%}{right}"

    common.tell(wanted, done, line)
    if picture:
        from .tasks.vqa.picture import draw

        drawn = draw(common.some(done.answered, 12), picture)
        common.console.print(f"picture   {drawn}", markup=False)


app.command()(detection)
app.command()(classification)
app.command()(sentiment)
app.command()(fewshot)
app.command()(retrieval)
app.command()(generation)

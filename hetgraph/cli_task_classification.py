"""``hetgraph task classification`` and ``hetgraph task sentiment``: classes and numbers of samples and utterances."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import cli_task_common as common


def classification(
    name: Annotated[str, typer.Argument(help="A data set without questions: av_digits, msrc_v1, tuxpaint, ...")],
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
    json_file: common.Json = None,
) -> None:
    """Tell the class of every sample, or its number where the data set has numbers.

    Prints the metrics of the data set on its test part, mean and standard deviation over the seeds.
    """
    from .tasks import classification as task

    common.check_name(name, task.DATA, "classes or numbers")
    given = {"epochs": epochs, "width": width, "layers": layers, "heads": heads, "lr": lr, "dropout": dropout}
    _run(common.Wanted("classification", name, folder, output, method, seeds, cache, json_file, given), task)


def sentiment(
    name: Annotated[str, typer.Argument(help="mosi_bclstm or mosi_standard.")],
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
    json_file: common.Json = None,
) -> None:
    """Tell the sentiment of every utterance: negative or positive, or how strong it is from -3 to 3.

    Prints the metrics of the data set on its test part, mean and standard deviation over the seeds.
    """
    from .tasks import sentiment as task

    common.check_name(name, task.DATA, "sentiments")
    given = {"epochs": epochs, "width": width, "layers": layers, "heads": heads, "lr": lr, "dropout": dropout}
    _run(common.Wanted("sentiment", name, folder, output, method, seeds, cache, json_file, given), task)


def _run(wanted: common.Wanted, task: Any) -> None:
    done = common.per_seed(wanted, task, lambda model, data, answered: task.evaluate(model, data))
    common.tell(wanted, done, line)


def line(one: Any) -> str:
    """An answer as it is printed."""
    if one.confidence is None:
        known = "" if one.target is None else f"   (right: {_plain(one.target)})"
        return f"{one.id}   {_plain(one.answer)}{known}"
    right = "" if one.right or one.target is None else f"   (right: {_plain(one.target)})"
    return f"{one.id}   {_plain(one.answer)} {one.confidence:.0%}{right}"


def _plain(answer: Any) -> str:
    if isinstance(answer, list):
        return ", ".join(map(_plain, answer)) or "none"
    return f"{answer:.2f}" if isinstance(answer, float) else str(answer)

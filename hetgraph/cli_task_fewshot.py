"""``hetgraph task fewshot``: a few labelled samples of speakers, or of digits, that training has not met."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import cli_task_common as common
from .cli_common import write_json
from .files import write_atomically


def fewshot(
    name: Annotated[str, typer.Argument(help="speakers (new speakers) or digits (new speakers and new digits).")],
    folder: Annotated[
        Path | None, typer.Option("--data", help="Where the files of av_digits lie. Default: in $HETGRAPH_DATA.")
    ] = None,
    output: common.Output = None,
    method: common.Method = "graph",
    regime: Annotated[
        str,
        typer.Option(help="prototypes, prior_prototypes, anil, maml, conventional (then fine-tuned) or untrained."),
    ] = "prototypes",
    shots: Annotated[int, typer.Option(min=1, max=20, help="Labelled samples of every class.")] = 5,
    seeds: common.Seeds = 1,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 300,
    width: Annotated[int, typer.Option(min=1)] = 32,
    layers: Annotated[int, typer.Option(min=0)] = 1,
    lr: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 1e-2,
    json_file: common.Json = None,
) -> None:
    """Learn to learn from a few samples.

    Prints accuracy on the test speakers, for all of them and for each, mean and standard deviation over the seeds. Each
    seed holds out other speakers.
    """
    import torch

    from .tasks import fewshot as task

    common.check_name(name, task.NAMES, "episodes")
    settings = task.MetaSettings(regime=regime, method=method, steps=steps, width=width, layers=layers, lr=lr)
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    wanted = common.Wanted("fewshot", name, folder, output, method, seeds, json_file=json_file)
    runs, notes = [], []
    for seed in range(seeds):
        data = task.load(name, folder, seed=seed)
        own = replace(settings, seed=seed)
        learner = task.train(data, own, vary=task.invent_voices)
        how = task.adaptation(learner, data, own, shots)
        runs.append(task.evaluate(learner, data, how, shots=shots, seed=seed))
        answered = [
            one
            for episode in task.episodes_of(data, "test", seed=seed, count=1)
            for one in task.predict(learner, episode.fewer(shots).support, episode.query, how)
        ]
        target = wanted.target / f"seed-{seed}"
        learner.save_pretrained(target)
        lines = [json.dumps(one.to_json(), ensure_ascii=False) for one in answered]
        write_atomically(target / "answers.jsonl", "\n".join(lines) + "\n")
        notes.append(data.notes)
    common.show(replace(wanted, method=f"{method}, {regime}, {shots} shots"), task.summary(runs))
    for seed, note in enumerate(notes):
        common.console.print(f"seed {seed}: {note}", markup=False)
    common.console.print(f"models and answers   {wanted.target}", markup=False)
    if json_file:
        result = {"data": name, "method": method, "regime": regime, "shots": shots, "notes": notes, "runs": runs}
        write_json(json_file, result)

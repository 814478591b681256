"""What an absent modality costs, and how much of it comes back when made nodes stand in.

A classifier hears all modalities. Of the test part one is taken away, and in its place comes nothing, the mean of the
training part, or what a translator makes of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ...comparison_runs import score
from ...errors import HetgraphError
from ...predictor import Predictor
from ...sample import Sample
from ...thinning import without
from ..datasets import Dataset
from . import generate
from .settings import GenerationSettings, suggested
from .translations import Translation, translation
from .translator import Translator

CONDITIONS = ("present", "absent", "mean", "generated")
CASES = {
    "digits_picture": ("av_digits", "region", True),
    "digits_speech": ("av_digits", "frame", True),
    "tuxpaint_picture": ("tuxpaint", "region", False),
    "tuxpaint_caption": ("tuxpaint", "token", False),
}
"""Name -> data set, modality that is absent, and whether its targets are exchanged within classes."""


def case(name: str, folder: str | Path | None = None, *, seed: int = 0, cache: str | Path | None = None) -> Dataset:
    """The data set of one of :data:`CASES`.

    Raises:
        HetgraphError: an unknown name, or as :func:`hetgraph.tasks.datasets.load`.
    """
    from .. import datasets

    if name not in CASES:
        raise HetgraphError(f"no case {name!r}; known: {', '.join(CASES)}")
    return datasets.load(CASES[name][0], folder, seed=seed, cache=cache)


def absent_from(name: str, data: Dataset) -> Translation:
    """The translation that makes what is absent in a case from all other modalities."""
    _, target, exchange = CASES[name]
    return translation(data, target, exchange=exchange, name=f"{data.name} without {target}")


def settings_of(name: str, method: str = "graph") -> GenerationSettings:
    """What suits a case's translation."""
    if not CASES[name][2]:
        return suggested("tuxpaint", method=method)
    # a stretch makes sense of frames, not of the cells of a picture
    plain = {} if CASES[name][1] == "region" else {"stretch": 0.0, "mask": 0}
    return suggested("digits", method=method, steps=600, views=1, **plain)


def stand_ins(
    model: Translator, source: Translation, samples: Sequence[Sample], *, seed: int = 0
) -> dict[str, list[Sample]]:
    """Condition -> the samples under it; samples without the target, or with nothing else, are left out of all.

    Args:
        model: makes the target.
        source: what the model was trained on; gives the mean.
        samples: with all their modalities.
        seed: of the noise.

    Raises:
        HetgraphError: no sample is left.
    """
    held = [s for s in samples if model.target in s.nodes and any(n in s.nodes for n in model.schema.nodes)]
    if not held:
        raise HetgraphError(f"no sample has {model.target!r} and one of {list(model.schema.nodes)}")
    bare = [without(s, model.target) for s in held]
    places = {name: value.cpu().clone() for name, value in model.places.items()}
    mean = source.train.mean(0).view(source.nodes, source.dim)
    made = generate(model, bare, seed=seed).clone()

    def put(sample: Sample, x: torch.Tensor) -> Sample:
        nodes = {**sample.nodes, model.target: {"x": x, **places}}
        return Sample(id=sample.id, target=sample.target, nodes=nodes, edges=sample.edges)

    return {
        "present": held,
        "absent": bare,
        "mean": [put(s, mean) for s in bare],
        "generated": [put(s, x) for s, x in zip(bare, made, strict=True)],
    }


def measure(
    classifier: Predictor, model: Translator, source: Translation, samples: Sequence[Sample], *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Condition -> metrics of the classifier over the same samples; for ``seed`` and errors see :func:`stand_ins`."""
    found = stand_ins(model, source, samples, seed=seed)
    return {name: score(classifier, chosen, (), None) for name, chosen in found.items()}

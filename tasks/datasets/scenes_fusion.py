"""Generated scenes in the form in which fusion models are compared: question, picture, sound and knowledge graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import HetgraphError
from ...objectives import Classification
from ...sample import Sample
from ...thinning import without
from ..demo import NODE_TYPES, scene_pipeline, scene_samples
from . import Dataset
from .scenes import QUESTIONS, Scene, Scenes, generate

PER_KIND = {"train": 512, "valid": 64, "test": 128}
BARE = "-bare"
"""What the id of a training question with nothing but what it needs ends with."""
KINDS = ("text", "image", "sound", "knowledge", "image+sound")
"""What a small model learns in a minute or two without a curriculum; the demo teaches the other kinds step by step."""


def scenes(
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    kinds: tuple[str, ...] = KINDS,
) -> Dataset:
    """Questions of some kinds, each kind and each of its answers equally often; see :mod:`.scenes`.

    Every training question is there twice: with nothing but its words and what it needs, then with all there is.
    Without the first form a model of this size hardly learns more than the questions one modality answers by itself.
    Validation and test questions come with all there is.

    Args:
        folder: nothing is read.
        seed: of the scenes and of the invented words, which differ between the parts.
        cache: the encoders are quick and keep nothing.
        kinds: keys of ``QUESTIONS``.

    Raises:
        HetgraphError: an unknown kind of question, or none.
    """
    unknown = sorted(set(kinds) - set(QUESTIONS))
    if unknown or not kinds:
        raise HetgraphError(f"scenes: kinds of questions are some of {list(QUESTIONS)}, got {kinds}")
    return questions(generated(seed), kinds)


def generated(seed: int = 0) -> Scenes:
    """The scenes behind the samples of :func:`scenes`, all kinds of questions."""
    sizes = {part: count * len(QUESTIONS) for part, count in PER_KIND.items()}
    return generate(train=sizes["train"], valid=sizes["valid"], test=sizes["test"], seed=seed)


def questions(made: Scenes, kinds: tuple[str, ...] = KINDS) -> Dataset:
    """The data set :func:`scenes` of given scenes."""
    pipeline = scene_pipeline(made)
    chosen = {part: [scene for scene in made.split(part) if scene.kind in kinds] for part in PER_KIND}
    train, valid, test = (scene_samples(pipeline, chosen[part]) for part in PER_KIND)
    bare = [_bare(sample, scene) for sample, scene in zip(train, chosen["train"], strict=True)]
    return Dataset(
        "scenes",
        pipeline.schema,
        bare + train,
        valid,
        test,
        Classification(tuple(dict.fromkeys(answer for kind in kinds for answer in QUESTIONS[kind].answers))),
        notes="generated. Training questions come twice: with what they need alone, and with everything. Invented "
        "words occur in questions and the graph only, and differ between the parts.",
        about={scene.id: _about(scene) for part in ("valid", "test") for scene in chosen[part]},
    )


def _about(scene: Scene) -> dict[str, Any]:
    return {
        "question": scene.question,
        "image": scene.id,
        "answers": (scene.answer,),
        "kind": scene.kind,
        "picture": scene.picture,
    }


def _bare(sample: Sample, scene: Scene) -> Sample:
    out = without(sample, *(node for modality, node in NODE_TYPES.items() if modality not in scene.needs))
    out.id = f"{sample.id}{BARE}"
    return out

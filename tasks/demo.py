"""The demo: train a graph model on generated scenes, take every modality away in turn, draw one graph.

Each scene needs up to three things besides the words of its question: the picture, the sound, and a knowledge
graph that defines invented words. Test questions use words that never occur in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..builder import GraphBuilder
from ..drawing import draw_sample
from ..encoders import HashWords, ImagePatches, LogMel
from ..fusion import Fusion
from ..kg import TripleGraph, read_triples
from ..objectives import Classification
from ..pipeline import Medium, Pipeline, Record, label_of
from ..predictor import Predictor
from ..sample import Sample
from ..training import TrainingSettings, fit, predict, without
from .datasets.scenes import ANSWERS, QUESTIONS, Scene, Scenes, chance, generate
from .datasets.scenes_media import CELLS

ABLATIONS: dict[str, tuple[str, ...]] = {
    "all modalities": (),
    "without sound": ("sound",),
    "without image": ("image",),
    "without knowledge": ("knowledge",),
    "question only": ("image", "sound", "knowledge"),
}
NODE_TYPES = {"image": "region", "sound": "frame", "knowledge": "entity"}
TRAIN, VALID, TEST = 8064, 768, 768
_MISSING = {"region": 0.1, "frame": 0.1, "entity": 0.1}
_BASE = TrainingSettings(epochs=3, batch_size=36, lr=2e-3, weight_decay=1e-2)


class Stage(NamedTuple):
    """A stage of the curriculum.

    Attributes:
        needs: how many modalities its questions need at most.
        bare: the samples have nothing but what their question needs.
    """

    needs: int
    bare: bool
    settings: TrainingSettings


_LATER = replace(_BASE, standardize=False)
# Questions that need one thing first, then two, then all three: with everything at once, no single skill is
# asked for often enough to be found (Bengio et al., ICML 2009). Before all that, questions with nothing but what
# they need: the way from a word over the graph to what it denotes is otherwise found in some runs only.
CURRICULUM: tuple[Stage, ...] = (
    Stage(1, True, _BASE),
    Stage(1, False, _LATER),
    Stage(2, False, replace(_LATER, epochs=4)),
    Stage(3, False, replace(_LATER, epochs=8, modality_dropout=_MISSING)),
)
# how soon the kind of question that joins all three is found depends on the last bit of a sum, and so on the
# processor: training goes on until validation scenes say that it was
ENOUGH = 0.95
"""Accuracy of every kind of question on validation scenes at which training ends."""
MORE = replace(_LATER, epochs=4, modality_dropout=_MISSING)
MOST = 4
"""How often training goes on by ``MORE``, at most."""


@dataclass(frozen=True)
class Ablation:
    """Accuracy by kind of question, and over all, with some modalities taken away at test time."""

    removed: tuple[str, ...]
    accuracy: dict[str, float]
    overall: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        rows: name of the ablation -> its accuracies on the test scenes.
        drawing: where the picture of one sample's graph is.
        model: the trained model.
    """

    rows: dict[str, Ablation]
    drawing: Path
    model: Predictor


def scene_pipeline(scenes: Scenes) -> Pipeline:
    """Encoders without any pretrained weights: picture cells, words, log-mel frames; the scenes' knowledge graph."""
    return Pipeline(
        [
            Medium("image", "image", "region", ImagePatches(grid=CELLS, size=10)),
            Medium("text", "text", "token", HashWords(64)),
            Medium("audio", "audio", "frame", LogMel(stack=10)),
        ],
        graph=read_triples(scenes.ntriples().encode(), format="nt"),
    )


def scene_samples(pipeline: Pipeline, scenes: Sequence[Scene]) -> list[Sample]:
    """Samples with the answer as target."""
    return pipeline(
        [
            Record(
                id=scene.id,
                media={"image": scene.picture, "text": scene.question, "audio": (scene.sound, scene.rate)},
                entities=[entity.iri for entity in scene.entities],
                target=scene.answer,
            )
            for scene in scenes
        ]
    )


def build_model(pipeline: Pipeline, seed: int = 0) -> Predictor:
    """Four layers, because word -> entity -> what it denotes -> region -> answer are four steps; one set of weights,
    because a match learnt for a plain word has to serve, some steps later, for a word that had to be looked up."""
    torch.manual_seed(seed)
    return Predictor(
        Fusion(pipeline.schema, width=64, layers=4, heads=4, shared=True), Classification(ANSWERS), dropout=0.0
    )


def ablate(model: Predictor, scenes: Sequence[Scene], samples: Sequence[Sample]) -> dict[str, Ablation]:
    """Accuracy of one trained model with modalities taken away from the samples."""
    out = {}
    for name, removed in ABLATIONS.items():
        types = [NODE_TYPES[m] for m in removed]
        right = _right(model, scenes, [without(s, *types) for s in samples])
        out[name] = Ablation(removed, _by_kind(right, scenes), _mean(right))
    return out


def _right(model: Predictor, scenes: Sequence[Scene], samples: Sequence[Sample]) -> list[bool]:
    answers = predict(model, samples, batch_size=128).answers
    return [answer == scene.answer for answer, scene in zip(answers, scenes, strict=True)]


def _by_kind(right: Sequence[bool], scenes: Sequence[Scene]) -> dict[str, float]:
    return {
        kind: _mean([r for r, s in zip(right, scenes, strict=True) if s.kind == kind])
        for kind in QUESTIONS
        if any(s.kind == kind for s in scenes)
    }


def draw_scene(model: Predictor, pipeline: Pipeline, scene: Scene, sample: Sample, path: Path) -> Path:
    """Draw the graph of one scene with its edges by attention weight (mean over layers and heads)."""
    graph = GraphBuilder(model.schema)([sample])
    model.eval()
    with torch.inference_mode():
        layers = model.fusion.attention(graph)
        answer = model.objective.decode(model(graph).scores)[0]
    edges = []
    for key, index in graph.edge_index.items():
        if not index.shape[1]:
            continue
        weight = torch.stack([layer[key].mean(1) for layer in layers]).mean(0)
        edges += [
            (key[0], int(i), key[1], key[2], int(j), float(w))
            for (i, j), w in zip(index.T.tolist(), weight.tolist(), strict=True)
        ]
    names = [entity.label for entity in scene.entities]
    assert isinstance(pipeline.graph, TripleGraph)
    if [label_of(pipeline.graph, pipeline.graph.index[e.iri]) for e in scene.entities] != names:
        raise AssertionError("the entities of the sample are not in the order of the scene")
    return draw_sample(
        path,
        picture=scene.picture,
        boxes=_array(sample, "region", "box"),
        sound=scene.sound,
        rate=scene.rate,
        frames=_array(sample, "frame", "time"),
        words=list(scene.words),
        entities=names,
        edges=edges,
        title=scene.question,
        answer=f"{answer} (right: {scene.answer})",
    )


def train_in_stages(
    model: Predictor,
    scenes: Sequence[Scene],
    samples: Sequence[Sample],
    *,
    curriculum: Sequence[Stage] = CURRICULUM,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Fit stage by stage: first on the questions that need at most one modality, then two, then all."""
    for number, stage in enumerate(curriculum):
        some = [
            _bare(sample, scene) if stage.bare else sample
            for sample, scene in zip(samples, scenes, strict=True)
            if len(scene.needs) <= stage.needs
        ]
        fit(model, some, settings=replace(stage.settings, seed=seed * len(curriculum) + number), progress=progress)


def go_on(
    model: Predictor,
    samples: Sequence[Sample],
    held: Sequence[Scene],
    held_samples: Sequence[Sample],
    *,
    settings: TrainingSettings = MORE,
    most: int = MOST,
    seed: int = 0,
    progress: bool = True,
) -> int:
    """Fit again on all samples while some kind of question is answered rightly less often than ``ENOUGH``.

    Args:
        held, held_samples: what decides; neither trained on nor tested on. With none of them nothing is done.
        most: how often, at most.
        seed: of the training.

    Returns:
        How often it was fitted again.
    """
    if not held:
        return 0
    for number in range(most):
        if min(_by_kind(_right(model, held, held_samples), held).values()) >= ENOUGH:
            return number
        fit(model, samples, settings=replace(settings, seed=100 + seed * most + number), progress=progress)
    return most


def _bare(sample: Sample, scene: Scene) -> Sample:
    """The words of the question, and what it needs."""
    return without(sample, *(node for modality, node in NODE_TYPES.items() if modality not in scene.needs))


def run(
    folder: str | Path,
    *,
    train: int = TRAIN,
    valid: int = VALID,
    test: int = TEST,
    seed: int = 0,
    curriculum: Sequence[Stage] = CURRICULUM,
    progress: bool = True,
) -> DemoResult:
    """Generate scenes, train, ablate, draw.

    Args:
        folder: where the model and the drawing go.
        train, valid, test: how many scenes; those of ``valid`` say how long to train (:func:`go_on`).
        seed: of the scenes, the weights and the training.
        curriculum: stage after stage.
    """
    folder = Path(folder)
    scenes = generate(train=train, valid=valid, test=test, seed=seed)
    pipeline = scene_pipeline(scenes)
    learnt, judging, held = (scenes.split(part) for part in ("train", "valid", "test"))
    train_samples, valid_samples, test_samples = (scene_samples(pipeline, part) for part in (learnt, judging, held))
    model = build_model(pipeline, seed)
    train_in_stages(model, learnt, train_samples, curriculum=curriculum, seed=seed, progress=progress)
    go_on(model, train_samples, judging, valid_samples, seed=seed, progress=progress)
    rows = ablate(model, held, test_samples)
    model.save_pretrained(folder)
    pipeline.save(folder)
    shown = next(i for i, scene in enumerate(held) if scene.kind == "image+sound+knowledge")
    drawing = draw_scene(model, pipeline, held[shown], test_samples[shown], folder / "graph.png")
    return DemoResult(rows, drawing, model)


def within_chance(rows: dict[str, Ablation], margin: float = 0.10) -> list[str]:
    """Which cells of the table are not as they should be: needed modality gone but better than chance + margin,
    or nothing needed gone but worse than 0.90."""
    wrong = []
    for name, row in rows.items():
        for kind, accuracy in row.accuracy.items():
            level = chance(kind, row.removed)
            if level == 1.0 and accuracy < 0.90:
                wrong.append(f"{name}, {kind}: {accuracy:.2f}, expected at least 0.90")
            if level < 1.0 and accuracy > level + margin:
                wrong.append(f"{name}, {kind}: {accuracy:.2f}, expected about {level:.2f}")
    return wrong


def _array(sample: Sample, node: str, field: str) -> object:
    value: Tensor = sample.nodes[node][field]
    return value.numpy()


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")

"""Generation and translation between modalities: Z of what is there, and a conditional GAN from it to what is not.

    from hetgraph.tasks import generation

    source = generation.load("digits", "AV_DIGITS")            # a spoken digit -> its picture
    model = generation.train(source)
    print(generation.evaluate(model, source))
    pictures = generation.generate(model, source.data.test)    # [S, 16, 49]

``translation(data, "region")`` makes one of any data set, :func:`impute` puts what is made in the place of an absent
modality. ``docs/tasks/generation.md`` says what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...errors import HetgraphError
from ...sample import Sample
from ..running import summary
from .fitting import train
from .settings import GenerationSettings, suggested
from .translations import NAMES, Translation, load, translation
from .translator import Translator

__all__ = [
    "NAMES",
    "GenerationSettings",
    "Translation",
    "Translator",
    "evaluate",
    "generate",
    "impute",
    "load",
    "suggested",
    "summary",
    "train",
    "translation",
]


def generate(model: Translator, samples: Sequence[Sample], *, draws: int | None = None, seed: int = 0) -> Tensor:
    """Nodes of the target for samples; nodes of the target that they have are not looked at.

    Args:
        model: trained by :func:`train`.
        samples: with at least one node that the model hears.
        draws: made for every sample, each with other noise (all alike if ``model.kept_start``); None: one, without an
            axis for it.
        seed: of the noise.

    Returns:
        ``[S, N, d]``, or ``[S, draws, N, d]``, on the CPU.

    Raises:
        HetgraphError: a sample has nothing that the model hears; no samples, or less than one draw.
    """
    if draws is not None and draws < 1:
        raise HetgraphError(f"expected at least one draw, got {draws}")
    heard = model.hear([_heard(model, sample) for sample in samples])
    made = model.decode(model.draw(heard, draws or 1, seed)).cpu()
    return made[:, 0] if draws is None else made


def impute(model: Translator, sample: Sample, *, seed: int = 0) -> Sample:
    """The sample with made nodes of the target, with their usual places, where it has none; else as it is.

    Args:
        model: trained by :func:`train`.
        sample: with at least one node that the model hears.
        seed: of the noise.

    Raises:
        HetgraphError: the sample has nothing that the model hears.
    """
    own = sample.nodes.get(model.target)
    if own is not None and len(own["x"]):
        return sample
    made = generate(model, [sample], seed=seed)[0]
    places = {name: value.cpu().clone() for name, value in model.places.items()}
    nodes = {**sample.nodes, model.target: {"x": made.clone(), **places}}
    return Sample(id=sample.id, target=sample.target, nodes=nodes, edges=sample.edges)


def _heard(model: Translator, sample: Sample) -> Sample:
    """What of a sample the model hears."""
    nodes = {name: value for name, value in sample.nodes.items() if name in model.schema.nodes and len(value["x"])}
    if not nodes:
        raise HetgraphError(f"{sample.label}: expected some of the node types {list(model.schema.nodes)}, got none")
    edges = {key: value for key, value in sample.edges.items() if key in model.schema.edges}
    return Sample(id=sample.id, target=sample.target, nodes=nodes, edges=edges)


def evaluate(model: Translator, source: Translation, part: str = "test", *, seed: int = 0) -> dict[str, float]:
    """Scores of what is made for a part: as pictures where targets are exchanged within classes, else by retrieval.

    Pictures: :func:`.judging.pictures_compared`, and ``accuracy_heard``, the accuracy of the head on Z: an upper bound
    of what the pictures can show. Retrieval: :func:`.judging.retrieval` of the mean of the made nodes among the means
    of the real ones, one item per group, and ``cosine``, of made and real mean.

    Args:
        model: trained by :func:`train`.
        source: what it was trained on.
        part: "valid" or "test".
        seed: of the noise.

    Raises:
        HetgraphError: the part is empty, or the pictures are no squares of cells.
    """
    from . import scoring

    return (
        scoring.pictures(model, source, part, seed) if source.exchange else scoring.features(model, source, part, seed)
    )

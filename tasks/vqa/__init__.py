"""Questions about pictures: words, picture regions and objects as one graph, answers out of a closed vocabulary.

    from hetgraph.tasks import vqa
    from hetgraph.tasks.datasets import load

    data = load("daquar", "DAQUAR")
    model = vqa.train(data)
    print(vqa.evaluate(model, data))
    for answered in vqa.predict(model, data)[:5]:
        print(answered.question, answered.answer, answered.target)

Every data set whose samples come with a question (:attr:`~hetgraph.tasks.datasets.Dataset.about`) will do: daquar,
daquar_all, daquar_recall, vqa_rad, vqa_rad_disjoint, shapes and scenes. ``docs/tasks/vqa.md`` says what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ... import training
from ...errors import HetgraphError
from ...objectives import Classification
from ...predictor import Predictor
from ...sample import Sample
from ..datasets import Dataset
from ..running import TaskSettings, suggested, summary, train
from .wups import Taxonomy, wups

__all__ = [
    "DATA",
    "Answered",
    "TaskSettings",
    "Taxonomy",
    "evaluate",
    "predict",
    "score",
    "suggested",
    "summary",
    "train",
    "wups",
]

DATA = ("daquar", "daquar_all", "daquar_recall", "vqa_rad", "vqa_rad_disjoint", "shapes", "scenes")
THRESHOLDS = (0.9, 0.0)
"""Of WUPS, as the field reports it."""
MOST = 5


@dataclass(frozen=True)
class Answered:
    """A question with the model's answer.

    Attributes:
        id: of the sample.
        question: its words.
        image: id of its picture.
        answer: the model's; several words have commas between them.
        confidence: the model's probability of it.
        others: the next best answers with their probabilities.
        target: the right answer, written likewise; None where it is not known.
        kind: as which the question is scored apart; "" for none.
        picture: the file or the pixels, where at hand.
    """

    id: str
    question: str
    image: str
    answer: str
    confidence: float
    others: tuple[tuple[str, float], ...]
    target: str | None
    kind: str = ""
    picture: Any = None

    @property
    def right(self) -> bool:
        return self.answer == self.target

    def to_json(self) -> dict[str, Any]:
        """Without the picture."""
        said = {name: getattr(self, name) for name in ("id", "image", "question", "answer", "target", "right")}
        others = [[name, round(p, 4)] for name, p in self.others]
        return said | {"confidence": round(self.confidence, 4), "others": others}


def predict(
    model: Predictor, data: Dataset, samples: Sequence[Sample] | None = None, *, batch_size: int = 64
) -> list[Answered]:
    """Answers to questions.

    Args:
        model: trained by :func:`train`.
        data: where the samples are from; it knows their questions.
        samples: which; default: the test part.
        batch_size: samples at once.

    Raises:
        HetgraphError: a sample comes without a question, or the model does not choose one of several answers.
    """
    if not isinstance(model.objective, Classification):
        raise HetgraphError(f"expected a model that chooses an answer, got one for {type(model.objective).__name__}")
    chosen = data.test if samples is None else samples
    missing = [sample.label for sample in chosen if sample.id not in data.about]
    if missing:
        raise HetgraphError(f"{data.name}: {missing[0]} comes without a question; data sets with questions: {DATA}")
    chances = training.predict(model, chosen, batch_size=batch_size).scores.softmax(-1)
    best = chances.topk(min(MOST, chances.shape[1]), dim=-1)
    found = []
    for sample, places, values in zip(chosen, best.indices.tolist(), best.values.tolist(), strict=True):
        about = data.about[str(sample.id)]
        first, *others = ((model.objective.classes[i], p) for i, p in zip(places, values, strict=True))
        said = {name: about[name] for name in ("question", "image", "kind", "picture")}
        found.append(
            Answered(
                id=str(sample.id),
                answer=first[0],
                confidence=first[1],
                others=tuple(others),
                target=sample.target,
                **said,
            )
        )
    return found


def evaluate(
    model: Predictor, data: Dataset, samples: Sequence[Sample] | None = None, *, taxonomy: Taxonomy | None = None
) -> dict[str, float]:
    """:func:`score` of the answers to the test part, or to ``samples``."""
    return score(predict(model, data, samples), taxonomy)


def score(answered: Sequence[Answered], taxonomy: Taxonomy | None = None) -> dict[str, float]:
    """Shares of questions, from 0 to 1.

    Returns:
        ``accuracy``; ``accuracy_KIND`` for every kind of question; with a taxonomy ``wups_0.9`` and ``wups_0.0``.

    Raises:
        HetgraphError: no questions, or a right answer is not known.
    """
    unknown = [one.id for one in answered if one.target is None]
    if unknown or not answered:
        raise HetgraphError(f"question {unknown[0]!r}: no right answer" if unknown else "no questions to score")
    out = {"accuracy": fmean(one.right for one in answered)}
    for kind in sorted({one.kind for one in answered} - {""}):
        out[f"accuracy_{kind}"] = fmean(one.right for one in answered if one.kind == kind)
    if taxonomy is not None:
        for threshold in THRESHOLDS:
            out[f"wups_{threshold}"] = fmean(
                wups(one.answer.split(", "), str(one.target).split(", "), taxonomy, threshold) for one in answered
            )
    return out

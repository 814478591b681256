"""Little data: a few labelled samples of a domain, or of classes, that training has not seen.

    from hetgraph.tasks import fewshot

    data = fewshot.load("speakers", "AV_DIGITS")
    learner = fewshot.train(data, fewshot.MetaSettings(regime="prototypes"), vary=fewshot.invent_voices)
    print(fewshot.evaluate(learner, data, shots=5))
    for answered in fewshot.predict(learner, support, query)[:5]:
        print(answered.id, answered.answer, answered.confidence)

Prototypical networks and MAML (also first-order, and ANIL) over Z of any fusion method, beside plain training and
fine-tuning; and :func:`pretrain`, which teaches a fusion model from samples without labels. ``docs/tasks/fewshot.md``
says more.
"""

from __future__ import annotations

from ..running import summary
from .adapting import Adaptation, adaptation, episodes_of, evaluate, predict
from .episodes import Episode, FewShot, draw
from .learner import Learner
from .pretraining import OBJECTIVES, PretrainingSettings, pretrain
from .speakers import NAMES, invent_voices, load
from .training import REGIMES, MetaSettings, train

__all__ = [
    "NAMES",
    "OBJECTIVES",
    "REGIMES",
    "Adaptation",
    "Episode",
    "FewShot",
    "Learner",
    "MetaSettings",
    "PretrainingSettings",
    "adaptation",
    "draw",
    "episodes_of",
    "evaluate",
    "invent_voices",
    "load",
    "predict",
    "pretrain",
    "summary",
    "train",
]

"""PyKEEN's evaluator on scores of ours, as the other opinion on ranks; imported only where PyKEEN is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pykeen.evaluation import RankBasedEvaluator
from pykeen.models import Model
from pykeen.triples import CoreTriplesFactory

from hetgraph.kg.ranking import Scorer


class Scored(Model):
    """A model of PyKEEN that asks a scorer of ours."""

    def __init__(self, triples_factory: CoreTriplesFactory, scorer: Scorer) -> None:
        super().__init__(triples_factory=triples_factory)
        self.entities, self.scorer = triples_factory.num_entities, scorer
        self.device_of = torch.nn.Parameter(torch.empty(1))  # PyKEEN asks a parameter which device a model is on

    def collect_regularization_term(self) -> Any:
        return 0.0

    def _get_entity_len(self, *, mode: Any) -> int:
        return self.entities

    def _reset_parameters_(self) -> None:
        pass

    def score_t(self, hr_batch: Any, **_: Any) -> Any:
        return self.scorer(hr_batch[:, 0], hr_batch[:, 1], "tail")

    def score_h(self, rt_batch: Any, **_: Any) -> Any:
        return self.scorer(rt_batch[:, 1], rt_batch[:, 0], "head")

    def score_hrt(self, hrt_batch: Any, **_: Any) -> Any:
        return self.score_t(hrt_batch[:, :2]).gather(1, hrt_batch[:, 2:])

    def score_r(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def metrics_of(
    scorer: Scorer, asked: np.ndarray, others: np.ndarray, entities: int, relations: int
) -> dict[str, float]:
    """The filtered metrics of triples ``asked``, beside which ``others`` are known, ties at the mean ("realistic")."""
    factory = CoreTriplesFactory(torch.from_numpy(others), num_entities=entities, num_relations=relations)
    found = RankBasedEvaluator(filtered=True).evaluate(
        Scored(factory, scorer),
        torch.from_numpy(asked),
        additional_filter_triples=[torch.from_numpy(others)],
        batch_size=64,
        use_tqdm=False,
    )
    theirs = {f"hits@{k}": f"both.realistic.hits_at_{k}" for k in (1, 3, 10)}
    names = {
        "mrr": "both.realistic.inverse_harmonic_mean_rank",
        **theirs,
        "mean_rank": "both.realistic.arithmetic_mean_rank",
    }
    return {ours: float(found.get_metric(name)) for ours, name in names.items()}

"""Training embeddings of a knowledge graph: by which loss, for how long, and which epoch is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..progress import TrainingBar
from .csr import KnowledgeGraph
from .embedding_losses import Negatives, Softmax
from .embeddings import EmbeddingConfig, LinkPredictor
from .errors import KnowledgeError
from .ranking import rank_triples
from .splits import Splits


@dataclass(frozen=True)
class Trained:
    """What training gave.

    Attributes:
        predictor: the model, of the epoch with the best MRR on valid where that was looked at.
        history: for each look the metrics of valid, ``epoch``, ``loss``, ``seconds`` and ``cpu_seconds`` so far.
        seconds: spent on training, without the looks at valid.
        cpu_seconds: the same in time of the processor, which does not count what other programs take.
        epoch: that the model is from, counted from 1.
    """

    predictor: LinkPredictor
    history: list[dict[str, float]]
    seconds: float
    cpu_seconds: float
    epoch: int


def fit_embeddings(
    splits: Splits,
    config: EmbeddingConfig | None = None,
    *,
    features: Tensor | None = None,
    check_every: int = 0,
    patience: int | None = None,
    sample: int = 2000,
    keep: str = "best",
    save: str | Path | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
    progress: bool = False,
) -> Trained:
    """Train on ``splits.train``.

    Args:
        splits: the triples.
        config: what to train; ``None`` takes ComplEx.
        features: float ``[N, F]`` of the entities, see :class:`LinkPredictor`.
        check_every: epochs between two looks at valid; 0 never looks.
        patience: stop after so many looks without a better MRR.
        sample: so many triples of valid are looked at, at most, always the same.
        keep: "best" gives the model of the best look, "last" that of the last epoch: looks then only inform.
        save: the model that would be kept so far is written here at every look, and at the end.
        report: is called with every record of the history.
        progress: show a bar.

    Raises:
        KnowledgeError: a look at valid is asked for and there is none, or the loss is not a number any more.
    """
    if keep not in ("best", "last"):
        raise KnowledgeError(f"keep must be 'best' or 'last', got {keep!r}")
    config = (config or EmbeddingConfig()).filled()
    if check_every and not len(splits.valid):
        raise KnowledgeError("check_every needs a valid part, and the splits have none")
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        seen = torch.from_numpy(splits.seen.copy())
        predictor = LinkPredictor(splits.entities, splits.relations, config, features, seen)
    steps = (
        Softmax(predictor, splits, generator) if config.loss == "softmax" else Negatives(predictor, splits, generator)
    )
    optimiser: torch.optim.Optimizer
    if config.loss == "softmax":
        optimiser = torch.optim.Adagrad(predictor.parameters(), lr=config.lr or 0.1)
    else:
        optimiser = torch.optim.Adam(predictor.parameters(), lr=config.lr or 0.003)
    looked = _sample(splits.valid, sample, config.seed)
    history: list[dict[str, float]] = []
    best, kept, kept_epoch, waited = -1.0, None, config.epochs, 0
    spent = {"seconds": 0.0, "cpu_seconds": 0.0}
    # Adagrad makes sparse tensors of ours, which are sound; torch warns unless it is told not to look
    unchecked = torch.sparse.check_sparse_tensor_invariants(False)
    with unchecked, TrainingBar(progress, config.epochs, len(steps)) as bar:
        for epoch in range(config.epochs):
            begin, total = (time.perf_counter(), time.process_time()), 0.0
            for i, loss in enumerate(steps.losses()):
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += float(loss.detach())
                bar.step(epoch, total / (i + 1), history[-1] if history else {})
            spent["seconds"] += time.perf_counter() - begin[0]
            spent["cpu_seconds"] += time.process_time() - begin[1]
            if not np.isfinite(total):
                raise KnowledgeError(f"the loss is {total} in epoch {epoch + 1}; a lower lr may help")
            if not check_every or ((epoch + 1) % check_every and epoch + 1 < config.epochs):
                continue
            predictor.eval()
            found = rank_triples(predictor.scorer(), looked, len(splits.entities), known=splits.known).metrics()
            history.append({**found, "epoch": epoch + 1, "loss": total / len(steps), **spent})
            if report is not None:
                report(history[-1])
            waited += 1
            if found["mrr"] > best:
                best, waited = found["mrr"], 0
            if keep == "last" or not waited:
                kept, kept_epoch = deepcopy(predictor.state_dict()), epoch + 1
                if save is not None:
                    predictor.save(save)
            if patience is not None and waited >= patience:
                break
    if kept is not None:
        predictor.load_state_dict(kept)
    elif save is not None:
        predictor.save(save)
    return Trained(predictor.eval(), history, **spent, epoch=kept_epoch)


def embed_kg(
    kg: KnowledgeGraph,
    config: EmbeddingConfig | None = None,
    *,
    features: Tensor | None = None,
    valid: float = 0.0,
    patience: int = 3,
    progress: bool = False,
) -> Tensor:
    """Vectors of all entities of a graph ``[N, D]``, in the order of ``kg.entities``.

    Args:
        kg: the graph; an entity without any arc keeps what it began with, or what its features say.
        config: what to train; ``dim`` is D.
        features: float ``[N, F]`` in the same order.
        valid: the share of arcs that is kept apart to stop in time; 0 trains on all, for all epochs.
        patience: looks at them (one in five epochs) without a better MRR before it stops.
        progress: show a bar.

    Raises:
        KnowledgeError: a graph without arcs, or as :func:`fit_embeddings`.
    """
    used = config or EmbeddingConfig()
    splits = Splits.of(kg, valid=valid, seed=used.seed)
    often = 5 if len(splits.valid) else 0
    found = fit_embeddings(
        splits, used, features=features, check_every=often, patience=patience if often else None, progress=progress
    )
    return found.predictor.vectors()


def _sample(triples: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    if len(triples) <= most:
        return triples
    return triples[np.sort(np.random.default_rng(seed).choice(len(triples), most, replace=False))]

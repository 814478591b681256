"""Entities and relations as vectors: TransE, DistMult, ComplEx and RotatE, with the features of entities fused in.

The parameters and what a triple scores are PyTorch Geometric's (``torch_geometric.nn.kge``). Here every model is put
in one form that scores all entities at once: a question (entity, relation) is a vector, an entity is a vector, and a
score is their product or their negative distance. Questions for a head are questions for a tail of the reciprocal
relation (Lacroix et al. 2018), so a model has 2 R relations.

Shapes: N entities, R relations, D width of an entity's vector, F width of the features, B questions, M candidates.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..files import write_atomically
from .errors import KnowledgeError
from .ranking import SIDES

COMPLEX = ("complex", "rotate")
"""Models whose vectors have a real and an imaginary half."""
DISTANCES = {"transe": 2.0, "rotate": 2.0}
"""Models that score by a negative distance, and its norm."""
MODELS = ("transe", "distmult", "complex", "rotate")
LOSSES = ("softmax", "negatives")
FORMAT = "hetgraph.kg.embeddings"


@dataclass(frozen=True)
class EmbeddingConfig:
    """What to train and how; fields that are ``None`` take what suits the model.

    Args:
        model: "transe", "distmult", "complex" or "rotate".
        dim: D, the width of an entity's vector; for complex models both halves together.
        loss: "softmax" is cross entropy against all entities (Lacroix et al. 2018), grouped so that all answers to a
            question cost one row of scores; "negatives" is self-adversarial sampling (Sun et al. 2019).
        epochs: passes over the questions.
        batch: questions (softmax) or triples (negatives) in a step.
        lr: of Adagrad (softmax) or Adam (negatives).
        candidates: "softmax" against so many drawn entities, and all answers in a step, in place of against all: for
            graphs whose rows of scores cost too much. Only the rows in a step are updated.
        n3: weight of the cubes of the factors (Lacroix et al. 2018, N3), softmax with products only.
        negatives: entities drawn in a step, shared by its triples.
        margin: gamma in the loss with negatives.
        temperature: alpha in the loss with negatives; 0 weighs all alike.
        scale: scores are multiplied with it in the loss; TransE's vectors have length one.
        feature_dropout: how often an entity with features goes without its learned part for a step.
        bfloat16: products in bfloat16; twice as fast or more where the CPU has instructions for it.
        seed: of everything random.

    Raises:
        KnowledgeError: a value out of range.
    """

    model: str = "complex"
    dim: int = 256
    loss: str | None = None
    epochs: int = 30
    batch: int = 512
    lr: float | None = None
    candidates: int | None = None
    n3: float = 0.0
    negatives: int = 256
    margin: float | None = None
    temperature: float = 1.0
    scale: float | None = None
    feature_dropout: float = 0.3
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise KnowledgeError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        if self.loss is not None and self.loss not in LOSSES:
            raise KnowledgeError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.dim < 1 or (self.model in COMPLEX and self.dim % 2):
            raise KnowledgeError(f"dim must be positive, and even for complex models, got {self.dim}")
        for name in ("epochs", "batch", "negatives"):
            if getattr(self, name) < 1:
                raise KnowledgeError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.candidates is not None and (self.candidates < 1 or self._loss() != "softmax"):
            raise KnowledgeError(f"candidates must be at least 1 and go with softmax, got {self.candidates}")
        for name in ("lr", "scale"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise KnowledgeError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.n3 >= 0 or not self.temperature >= 0 or not 0 <= self.feature_dropout < 1:
            raise KnowledgeError("n3 and temperature must be >= 0, feature_dropout in [0, 1)")
        if self.n3 and (self.model in DISTANCES or self.loss == "negatives"):
            raise KnowledgeError(f"n3 goes with products and softmax, not with {self.model} and {self.loss}")

    def _loss(self) -> str:
        return self.loss or ("negatives" if self.model in DISTANCES else "softmax")

    def filled(self) -> EmbeddingConfig:
        """The same with nothing left open."""
        usual: dict[str, Any] = {
            "loss": self._loss(),
            "lr": 0.1 if self._loss() == "softmax" else 0.003,
            "margin": {"transe": 6.0, "rotate": 6.0}.get(self.model, 0.0),
            "scale": 8.0 if self.model == "transe" else 1.0,
        }
        return replace(self, **{name: value for name, value in usual.items() if getattr(self, name) is None})


class LinkPredictor(nn.Module):
    """A model of which triples are true; scores every entity as the answer to a question.

    Args:
        entities: N names.
        relations: R names.
        config: the model and its width.
        features: float ``[N, F]``, for example of the labels by a text encoder. A vector is then learned + projected;
            entities that are not ``seen`` have the projected part alone.
        seen: bool ``[N]``, entities that the train part holds; ``None`` means all.

    Raises:
        KnowledgeError: features of another shape or not finite.
    """

    def __init__(
        self,
        entities: Any,
        relations: Any,
        config: EmbeddingConfig,
        features: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.entities, self.relations, self.config = entities, relations, config
        n, width = len(entities), config.dim // 2 if config.model in COMPLEX else config.dim
        self.model = kge_model(config.model, n, 2 * len(relations), width)
        self.names = ("node_emb", "node_emb_im") if config.model in COMPLEX else ("node_emb",)
        self.features: Tensor | None
        self.seen: Tensor | None
        self.register_buffer("features", None if features is None else _checked(features, n))
        self.register_buffer("seen", None if features is None or seen is None else seen.bool())
        if self.features is not None:
            f = self.features.shape[1]
            self.projections = nn.ModuleList(nn.Linear(f, width, bias=False) for _ in self.names)

    def parts(self, keep: Tensor | None = None, index: Tensor | None = None) -> list[Tensor]:
        """The vectors before the model's own normalisation, ``[N, width]`` for each half.

        Args:
            keep: ``[N]``, one where an entity has its learned part; only with features.
            index: int64, only these entities; gradients of learned parts are sparse then.
        """
        learned: list[Tensor] = [getattr(self.model, name).weight for name in self.names]
        if index is not None:
            learned = [F.embedding(index, part, sparse=True) for part in learned]
        if self.features is None:
            return learned
        mask = self.seen if keep is None else keep if self.seen is None else keep * self.seen
        if mask is not None:
            learned = [part * (mask if index is None else mask[index])[:, None] for part in learned]
        features = self.features if index is None else self.features[index]
        return [part + project(features) for part, project in zip(learned, self.projections, strict=True)]

    def table(self, keep: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """What questions are compared with ``[N, D]``; arguments as for :meth:`parts`."""
        parts = self.parts(keep, index)
        if self.config.model == "transe":
            return F.normalize(parts[0], p=self.model.p_norm, dim=-1)  # type: ignore[arg-type]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def questions(self, heads: Tensor, relations: Tensor) -> Tensor:
        """Heads, rows of the table ``[B, D]``, and relations int64 ``[B]`` (of 2 R) -> questions ``[B, D]``."""
        model, kind = self.model, self.config.model
        table: Any = model.rel_emb
        relation: Tensor = table(relations)
        if kind == "distmult":
            return heads * relation
        if kind == "transe":
            return heads + relation
        if kind == "rotate":
            real, imaginary = relation.cos(), relation.sin()
        else:
            real, imaginary = relation, model.rel_emb_im(relations)  # type: ignore[operator]
        re, im = heads.chunk(2, dim=1)
        return torch.cat([re * real - im * imaginary, re * imaginary + im * real], dim=1)

    def against(self, questions: Tensor, candidates: Tensor) -> Tensor:
        """Scores ``[B, M]`` of questions ``[B, D]`` and candidates ``[M, D]``, up to PyG's constant margin."""
        norm = DISTANCES.get(self.config.model)
        return questions @ candidates.T if norm is None else -torch.cdist(questions, candidates, norm)

    @torch.no_grad()
    def score_all(self, given: Tensor, relations: Tensor, side: str = "tail") -> Tensor:
        """Scores of all entities ``[B, N]`` in the place that is asked for.

        Args:
            given: int64 ``[B]``, heads for the side "tail", tails for the side "head".
            relations: int64 ``[B]``, under R.
            side: "tail" or "head".

        Raises:
            KnowledgeError: another side.
        """
        return self.scorer()(given, relations, side)

    @torch.no_grad()
    def scorer(self) -> Any:
        """:meth:`score_all` for many calls in a row: the table is made once."""
        table = self.table()

        @torch.no_grad()
        def score(given: Tensor, relations: Tensor, side: str) -> Tensor:
            if side not in SIDES:
                raise KnowledgeError(f"side must be one of {', '.join(SIDES)}, got {side!r}")
            kinds = relations if side == "tail" else relations + len(self.relations)
            return self.against(self.questions(table[given], kinds), table)

        return score

    @torch.no_grad()
    def to_pyg(self) -> nn.Module:
        """A model of PyG alone with the same vectors, features included: ``model(heads, relations, tails)``."""
        width = self.config.dim // len(self.names)
        with torch.random.fork_rng(devices=[]):  # PyG draws vectors first
            made = kge_model(self.config.model, len(self.entities), 2 * len(self.relations), width)
        made.load_state_dict(self.model.state_dict())
        for name, part in zip(self.names, self.parts(), strict=True):
            getattr(made, name).weight.copy_(part)
        return made

    @torch.no_grad()
    def vectors(self) -> Tensor:
        """The vectors of all entities ``[N, D]``."""
        return self.table().clone()

    def save(self, path: str | Path) -> None:
        """Write one ``.safetensors`` file, whole or not at all, with names and configuration in it.

        Raises:
            KnowledgeError: it could not be written.
        """
        tensors = {f"state.{name}": value.contiguous() for name, value in self.state_dict().items()}
        for kind in ("entities", "relations"):
            lengths, text = _packed(getattr(self, kind))
            tensors |= {f"{kind}.text": text, f"{kind}.lengths": lengths}
        meta = {"format": FORMAT, "version": "1", "config": json.dumps(asdict(self.config))}
        write_atomically(path, safetensors.torch.save(tensors, meta), KnowledgeError)

    @classmethod
    def load(cls, path: str | Path) -> LinkPredictor:
        """Read what :meth:`save` wrote.

        Raises:
            KnowledgeError: no such file, or one that is damaged or something else.
        """
        try:
            with safetensors.safe_open(path, "pt") as file:
                meta = file.metadata() or {}
                if meta.get("format") != FORMAT or meta.get("version") != "1":
                    raise KnowledgeError(f"{path}: no embeddings of version 1 of a knowledge graph")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            entities, relations = (
                _unpacked(tensors.pop(f"{k}.lengths"), tensors.pop(f"{k}.text")) for k in ("entities", "relations")
            )
            state = {name.removeprefix("state."): value for name, value in tensors.items()}
            with torch.random.fork_rng(devices=[]):
                made = cls(
                    entities,
                    relations,
                    EmbeddingConfig(**json.loads(meta["config"])),
                    features=state.get("features"),
                    seen=state.get("seen"),
                )
            made.load_state_dict(state)
        except KnowledgeError:
            raise
        except OSError as error:
            raise KnowledgeError(f"{path}: {error.strerror or error}") from error
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise KnowledgeError(f"{path}: no saved embeddings, or damaged ones ({error})") from error
        return made.eval()


def kge_model(name: str, entities: int, relations: int, width: int) -> nn.Module:
    """A model of PyG; ``width`` is that of one half for complex models."""
    from torch_geometric.nn import kge

    if name == "transe":
        return kge.TransE(entities, relations, width, p_norm=DISTANCES[name])
    return {"distmult": kge.DistMult, "complex": kge.ComplEx, "rotate": kge.RotatE}[name](entities, relations, width)


def _checked(features: Tensor, entities: int) -> Tensor:
    if features.dim() != 2 or len(features) != entities or not features.isfinite().all():
        raise KnowledgeError(f"features: expected finite numbers [{entities}, F], got {list(features.shape)}")
    return features.detach().float()


def _packed(names: Any) -> tuple[Tensor, Tensor]:
    encoded = [name.encode() for name in names]
    lengths = torch.tensor([len(name) for name in encoded], dtype=torch.int64)
    return lengths, torch.from_numpy(np.frombuffer(b"".join(encoded), np.uint8).copy())


def _unpacked(lengths: Tensor, text: Tensor) -> list[str]:
    data, ends = text.numpy().tobytes(), lengths.cumsum(0).tolist()
    if not ends or ends[-1] != len(data):
        raise ValueError("the names do not fit their lengths")
    return [data[end - length : end].decode() for end, length in zip(ends, lengths.tolist(), strict=True)]

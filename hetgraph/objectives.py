"""What is predicted from Z: the loss, how targets are read, how scores become answers, which metrics count.

Shapes: S rows of Z (samples or groups), C classes or outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from .errors import HetgraphError
from .sample import as_tensor

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class Objective:
    """Base. ``main`` is the metric that model selection looks at, ``larger`` whether more is better."""

    main: ClassVar[str] = "loss"
    larger: ClassVar[bool] = False

    @property
    def outputs(self) -> int:
        """Width of the head."""
        raise NotImplementedError

    def encode(self, targets: Sequence[Any], ids: Sequence[str]) -> Tensor:
        """Targets of samples as one tensor with a row per row of Z.

        Raises:
            HetgraphError: a target is missing or is none that this objective knows; the message names the
                sample.
        """
        raise NotImplementedError

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Loss of every row, ``[S, C], [S, ...] -> [S]``."""
        raise NotImplementedError

    def decode(self, scores: Tensor) -> list[Any]:
        """Answers of ``scores [S, C]``, JSON-able."""
        raise NotImplementedError

    def metrics(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        """Metrics over all rows."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, **asdict(self)}


@lru_cache(maxsize=64)
def _places(names: tuple[str, ...]) -> Mapping[str, int]:
    """Name -> its number. Kept, because targets are read sample by sample and there may be hundreds of names."""
    return {name: i for i, name in enumerate(names)}


def _present(targets: Sequence[Any], ids: Sequence[str]) -> None:
    for target, name in zip(targets, ids, strict=True):
        if target is None:
            raise HetgraphError(f"sample {name!r}: no target")


@dataclass(frozen=True)
class Classification(Objective):
    """One of several classes; cross-entropy.

    Args:
        classes: their names (strings) in the order of the outputs. A target is a name, or an array of class
            numbers (one per group) or one class number.
        smoothing: share of the target that is spread over all classes (Szegedy et al., CVPR 2016).
    """

    classes: tuple[str, ...] = ()
    smoothing: float = 0.0
    main: ClassVar[str] = "accuracy"
    larger: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(str(c) for c in self.classes))
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise HetgraphError(f"classification needs at least two different classes, got {self.classes}")

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def encode(self, targets: Sequence[Any], ids: Sequence[str]) -> Tensor:
        _present(targets, ids)
        place = _places(self.classes)
        rows = []
        for target, name in zip(targets, ids, strict=True):
            if isinstance(target, str):
                if target not in place:
                    raise HetgraphError(
                        f"sample {name!r}: label {target!r} was not seen in training; known: {_few(self.classes)}"
                    )
                rows.append(torch.tensor([place[target]]))
                continue
            value = as_tensor(target, f"sample {name!r}: target")
            if value.is_floating_point() or value.dim() > 1:
                raise HetgraphError(
                    f"sample {name!r}: target must be a class name or class numbers, "
                    f"got {value.dtype} {list(value.shape)}"
                )
            value = value.long().reshape(-1)
            if len(value) and not 0 <= int(value.min()) <= int(value.max()) < len(self.classes):
                raise HetgraphError(
                    f"sample {name!r}: class numbers must lie in 0 .. {len(self.classes) - 1}, got {value.tolist()}"
                )
            rows.append(value.cpu())
        return torch.cat(rows)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(scores, target, reduction="none", label_smoothing=self.smoothing)

    def decode(self, scores: Tensor) -> list[str]:
        return [self.classes[i] for i in scores.argmax(-1).tolist()]

    def metrics(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

        count = len(self.classes)
        return {
            "accuracy": float(multiclass_accuracy(scores, target, count, average="micro")),
            "f1_macro": float(multiclass_f1_score(scores, target, count, average="macro")),
            "f1_weighted": float(multiclass_f1_score(scores, target, count, average="weighted")),
            "loss": float(self.losses(scores, target).mean()),
        }


@dataclass(frozen=True)
class Answering(Classification):
    """Classification into the answers of the training part, scored on questions that may have other answers.

    A target that is no class is encoded as the number of classes: it counts as wrong, and nothing is learnt from it.
    The metrics are accuracy and loss; that of the rows with an unknown answer is zero.
    """

    def encode(self, targets: Sequence[Any], ids: Sequence[str]) -> Tensor:
        known = _places(self.classes)
        beyond = [isinstance(target, str) and target not in known for target in targets]
        # an unknown answer stands in as the first class, until its place is overwritten
        rows = super().encode([self.classes[0] if b else t for t, b in zip(targets, beyond, strict=True)], ids)
        sizes = [1 if isinstance(target, str) else as_tensor(target, "target").numel() for target in targets]
        rows[torch.tensor(beyond).repeat_interleave(torch.tensor(sizes))] = len(self.classes)
        return rows

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(
            scores, target, reduction="none", label_smoothing=self.smoothing, ignore_index=len(self.classes)
        )

    def metrics(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        return {
            "accuracy": float((scores.argmax(-1) == target).double().mean()),
            "loss": float(self.losses(scores, target).mean()),
        }


@dataclass(frozen=True)
class MultiLabel(Objective):
    """Any number of labels at once; binary cross-entropy per label.

    Args:
        labels: their names. A target is a list of names, or a 0/1 array ``[C]`` (``[groups, C]``).
    """

    labels: tuple[str, ...] = ()
    main: ClassVar[str] = "f1_micro"
    larger: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(str(c) for c in self.labels))
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise HetgraphError(f"multi-label needs different label names, got {self.labels}")

    @property
    def outputs(self) -> int:
        return len(self.labels)

    def encode(self, targets: Sequence[Any], ids: Sequence[str]) -> Tensor:
        _present(targets, ids)
        place = _places(self.labels)
        rows = []
        for target, name in zip(targets, ids, strict=True):
            if isinstance(target, (list, tuple, set)) and all(isinstance(t, str) for t in target):
                unknown = sorted(set(target) - set(place))
                if unknown:
                    raise HetgraphError(
                        f"sample {name!r}: label {unknown[0]!r} was not seen in training; known: {_few(self.labels)}"
                    )
                row = torch.zeros(1, len(place))
                row[0, [place[t] for t in target]] = 1.0
            else:
                value = as_tensor(target, f"sample {name!r}: target").float().cpu()
                if value.dim() not in (1, 2) or value.shape[-1] != len(place):
                    raise HetgraphError(
                        f"sample {name!r}: target must hold {len(place)} zeros and ones, got {list(value.shape)}"
                    )
                row = value.reshape(-1, len(place))
                if not bool(((row == 0) | (row == 1)).all()):
                    raise HetgraphError(
                        f"sample {name!r}: a multi-label target holds zeros and ones, got {row.tolist()}"
                    )
            rows.append(row)
        return torch.cat(rows)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(scores, target, reduction="none").mean(-1)

    def decode(self, scores: Tensor) -> list[list[str]]:
        return [[name for name, on in zip(self.labels, row, strict=True) if on] for row in (scores > 0).tolist()]

    def metrics(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        from torchmetrics.functional.classification import multilabel_accuracy, multilabel_f1_score

        count, truth = len(self.labels), target.long()
        return {
            "f1_micro": float(multilabel_f1_score(scores.sigmoid(), truth, count, average="micro")),
            "f1_macro": float(multilabel_f1_score(scores.sigmoid(), truth, count, average="macro")),
            "accuracy": float(multilabel_accuracy(scores.sigmoid(), truth, count, average="micro")),
            "loss": float(self.losses(scores, target).mean()),
        }


@dataclass(frozen=True)
class Regression(Objective):
    """One or several numbers; mean absolute error, on targets scaled to mean 0 and std 1.

    Args:
        names: one name per number.
        mean, std: scale of each number; :meth:`fitted` reads them off training targets.
    """

    names: tuple[str, ...] = ("value",)
    mean: tuple[float, ...] = field(default=())
    std: tuple[float, ...] = field(default=())
    main: ClassVar[str] = "mae"
    larger: ClassVar[bool] = False

    def __post_init__(self) -> None:
        names = tuple(self.names)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "mean", tuple(self.mean) or (0.0,) * len(names))
        object.__setattr__(self, "std", tuple(self.std) or (1.0,) * len(names))
        if not names or len(self.mean) != len(names) or len(self.std) != len(names) or min(self.std) <= 0:
            raise HetgraphError(f"regression: {len(names)} names, mean {self.mean}, std {self.std} do not fit")

    def fitted(self, targets: Sequence[Any], ids: Sequence[str]) -> Self:
        """The same with the scale of these targets."""
        values = self.encode(targets, ids).double()
        std = values.std(0, unbiased=False)
        # a spread that float32 cannot divide by is none
        safe = torch.where(std > torch.finfo(torch.float32).tiny, std, torch.ones_like(std))
        return replace(self, mean=tuple(values.mean(0).tolist()), std=tuple(safe.tolist()))

    @property
    def outputs(self) -> int:
        return len(self.names)

    def encode(self, targets: Sequence[Any], ids: Sequence[str]) -> Tensor:
        _present(targets, ids)
        rows = []
        for target, name in zip(targets, ids, strict=True):
            value = as_tensor(target, f"sample {name!r}: target").float().cpu()
            if value.numel() % len(self.names):
                raise HetgraphError(
                    f"sample {name!r}: target must hold {len(self.names)} numbers, got {list(value.shape)}"
                )
            if not bool(value.isfinite().all()):
                raise HetgraphError(f"sample {name!r}: target is not finite: {value.tolist()}")
            rows.append(value.reshape(-1, len(self.names)))
        return torch.cat(rows)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        scaled = (target - target.new_tensor(self.mean)) / target.new_tensor(self.std)
        return (scores - scaled).abs().mean(-1)

    def values(self, scores: Tensor) -> Tensor:
        """Scores in the unit of the targets."""
        return scores * scores.new_tensor(self.std) + scores.new_tensor(self.mean)

    def decode(self, scores: Tensor) -> list[Any]:
        rows = self.values(scores).tolist()
        return [row[0] for row in rows] if len(self.names) == 1 else rows

    def metrics(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error

        value = self.values(scores)
        out = {
            "mae": float(mean_absolute_error(value, target)),
            "rmse": float(mean_squared_error(value, target, squared=False)),
        }
        steady = [bool((v.amax(0) == v.amin(0)).any()) for v in (value, target)]
        if not any(steady):
            out["pearson"] = float(_pearson(value.double(), target.double()).mean())
        out["loss"] = float(self.losses(scores, target).mean())
        return out


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of every column, ``[S, C], [S, C] -> [C]``.

    That of torchmetrics is NaN with a warning for some thousand rows with an outlier.
    """
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))


@dataclass(frozen=True)
class Sentiment(Regression):
    """One sentiment per row, from -3 (very negative) to 3 (very positive); all conventions of its metrics side by side.

    The loss is that of :class:`Regression`. Beside its metrics there are

    * ``acc2_neg_nonneg``, ``f1_neg_nonneg``: negative against the rest, zero being the rest (Zadeh et al., AAAI 2018);
    * ``acc2_neg_pos``, ``f1_neg_pos``: negative against positive over the rows whose target is not zero (Tsai et al.,
      ACL 2019); left out where there are none;
    * ``acc7``: both sides clipped to -3 .. 3 and rounded to whole numbers, halves to the even one.

    F1 is the mean over both classes weighted by their number of targets. ``docs/metrics.md`` has the formulas.
    """

    names: tuple[str, ...] = ("sentiment",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.names) != 1:
            raise HetgraphError(f"a sentiment is one number, got the names {self.names}")

    def metrics(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        value, truth = self.values(scores).reshape(-1), target.reshape(-1)
        polar = truth != 0
        out = {
            **super().metrics(scores, target),
            **_two_classes("neg_nonneg", value >= 0, truth >= 0),
            "acc7": float((_seven(value) == _seven(truth)).float().mean()),
        }
        if bool(polar.any()):
            out |= _two_classes("neg_pos", value[polar] > 0, truth[polar] > 0)
        return out


def _two_classes(name: str, guess: Tensor, truth: Tensor) -> dict[str, float]:
    """Accuracy and weighted F1 of booleans, ``[S], [S]``."""
    from torchmetrics.functional.classification import binary_accuracy, multiclass_f1_score

    return {
        f"acc2_{name}": float(binary_accuracy(guess.long(), truth.long())),
        f"f1_{name}": float(multiclass_f1_score(guess.long(), truth.long(), 2, average="weighted")),
    }


def _seven(value: Tensor) -> Tensor:
    return value.clamp(-3, 3).round()


@dataclass(frozen=True)
class Ranking(Objective):
    """Order samples by a relevance: the RankNet loss over all pairs of a batch (Burges et al., ICML 2005).

    ``loss_i = mean over j with y_i != y_j of log(1 + exp(-sign(y_i - y_j) (s_i - s_j)))``. A target is one
    number; only its order counts. The pairs are those of the global batch, also over several processes.
    """

    main: ClassVar[str] = "kendall"
    larger: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        return 1

    def encode(self, targets: Sequence[Any], ids: Sequence[str]) -> Tensor:
        return Regression(("relevance",)).encode(targets, ids).squeeze(-1)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        score = scores.squeeze(-1)
        sign = (target[:, None] - target[None, :]).sign()
        pair = functional.softplus(-sign * (score[:, None] - score[None, :])) * sign.abs()
        return pair.sum(1) / sign.abs().sum(1).clamp(min=1)

    def decode(self, scores: Tensor) -> list[float]:
        return scores.squeeze(-1).tolist()

    def metrics(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        from torchmetrics.functional.regression import kendall_rank_corrcoef

        score = scores.squeeze(-1)
        out = {"loss": float(self.losses(scores, target).mean())}
        if len(target) > 1 and bool(target.std() > 0) and bool(score.std() > 0):
            out["kendall"] = float(torch.as_tensor(kendall_rank_corrcoef(score, target)))
        else:
            out["kendall"] = 0.0
        return out


_KINDS: dict[str, type[Objective]] = {
    c.__name__: c for c in (Classification, Answering, MultiLabel, Regression, Sentiment, Ranking)
}


def objective_from_json(data: Mapping[str, Any]) -> Objective:
    """The inverse of :meth:`Objective.to_json`.

    Raises:
        HetgraphError: unknown kind or wrong settings.
    """
    settings = dict(data)
    kind = settings.pop("kind", None)
    if kind not in _KINDS:
        raise HetgraphError(f"unknown objective {kind!r}; known: {sorted(_KINDS)}")
    try:
        return _KINDS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
    except TypeError as error:
        raise HetgraphError(f"objective {kind}: {error}") from error


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f", ... ({len(names)} in all)" if len(names) > 10 else "")

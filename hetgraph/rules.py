"""Edge rules: who is connected to whom.

A rule is a function of two node sets, ``rule(src, dst)``, called once per batch on padded fields. It
returns a boolean mask ``[B, N_src, N_dst]`` and optionally a dict of edge features
``[B, N_src, N_dst, width]``. What it says about padding is ignored, so a rule need not know which
places are real; one that ranks (nearest, similar) reads ``src.valid``.

Structured rules (:data:`all_pairs`, :func:`window`, :data:`following`) are never evaluated as a mask:
they know their sparse form, so that 5,000 frames do not cost 25 million pairs.

Fields the geometric rules read: ``box`` ``[N, 4]`` as x1, y1, x2, y2 (any unit, y down), ``pos``
``[N, 2 or 3]``, ``time`` ``[N, 2]`` as start, end in seconds. What they are is in :mod:`hetgraph.rules_geometry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .compiled import compiled
from .errors import HetgraphError
from .rules_base import NodeSet as NodeSet
from .rules_base import Rule as Rule
from .rules_base import centre_of, not_self, rows_of
from .rules_geometry import SPATIAL as SPATIAL
from .rules_geometry import After, Before, Direction, Inside, Overlapping, Spatial
from .rules_geometry import spatial_classes as spatial_classes


@dataclass(frozen=True)
class Structure(Rule):
    """A rule that depends on nothing but the places of the nodes in their sample.

    ``connects(i, j)`` says whether source place ``i`` goes to destination place ``j`` (broadcasting).
    """

    def connects(self, i: Tensor, j: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        i = torch.arange(src.valid.shape[-1], device=src.valid.device)[:, None]
        j = torch.arange(dst.valid.shape[-1], device=dst.valid.device)[None, :]
        return self.connects(i, j).expand(*src.valid.shape[:-1], -1, -1)


@dataclass(frozen=True)
class AllPairs(Structure):
    """Every source node to every destination node (a node of the same type to itself too)."""

    def connects(self, i: Tensor, j: Tensor) -> Tensor:
        return torch.ones(torch.broadcast_shapes(i.shape, j.shape), dtype=torch.bool, device=i.device)


@dataclass(frozen=True)
class Window(Structure):
    """Destination ``j`` hears the sources ``j - before ... j + after``, itself only if ``loops``."""

    before: int
    after: int
    loops: bool = True

    def __post_init__(self) -> None:
        for name in ("before", "after"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise HetgraphError(f"window: {name} must be an integer, got {value!r}")
        if self.before + self.after < 0:
            raise HetgraphError(f"window: before={self.before} and after={self.after} leave no node in reach")

    def connects(self, i: Tensor, j: Tensor) -> Tensor:
        step = i - j
        inside = (step >= -self.before) & (step <= self.after)
        return inside if self.loops else inside & (step != 0)


@dataclass(frozen=True)
class Given(Rule):
    """The sample brings the edges: ``Sample(edges={(src, relation, dst): index})``."""

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        raise HetgraphError("given edges come with the sample; this rule is never evaluated")


@dataclass(frozen=True)
class Nearest(Rule):
    """Every destination hears its ``k`` nearest sources by Euclidean distance; ties are all kept.

    A node is not its own neighbour. Ties are kept because dropping some would make the result depend on
    the order of the nodes.
    """

    k: int
    field: str = "pos"

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise HetgraphError(f"nearest: k must be a positive integer, got {self.k!r}")

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        a, b = centre_of(src, self.field), centre_of(dst, self.field)
        pairs = a.shape[-2] * b.shape[0:-1].numel()
        # of more axes torch may sum in another order
        if a.shape[-1] == b.shape[-1] <= 3 and _worth_compiling(a, pairs, self.k):
            kept = torch.empty(*a.shape[:-1], b.shape[-2], dtype=torch.bool)
            arrays = [value.detach().contiguous().numpy() for value in (a, b, src.valid)]
            compiled().keep_nearest(*arrays, min(self.k, a.shape[-2]), src is dst, kept.numpy())
            return kept
        return _keep_k((a[..., :, None, :] - b[..., None, :, :]).square().sum(-1), self.k, src, dst)


@dataclass(frozen=True)
class Similar(Rule):
    """Every destination hears its ``k`` most similar sources by cosine of a field (``x`` by default).

    Args:
        k: how many; ties are all kept.
        threshold: sources below this cosine are never connected.
    """

    k: int
    threshold: float = -1.0
    field: str = "x"

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise HetgraphError(f"similar: k must be a positive integer, got {self.k!r}")
        try:
            object.__setattr__(self, "threshold", float(self.threshold))
        except (TypeError, ValueError) as error:
            raise HetgraphError(f"similar: threshold must be a number, got {self.threshold!r}") from error
        if self.threshold != self.threshold:
            raise HetgraphError("similar: threshold must be a number, got nan")

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        widths = [rows_of(nodes, self.field).shape[-1] for nodes in (src, dst)]
        if widths[0] != widths[1]:
            raise HetgraphError(
                f"similar: field {self.field!r} has {widths[0]} numbers in {src.name!r}, {widths[1]} in {dst.name!r}; "
                "expected vectors of one space"
            )
        a = torch.nn.functional.normalize(rows_of(src, self.field), dim=-1)
        b = torch.nn.functional.normalize(rows_of(dst, self.field), dim=-1)
        # rounding leaves cosines just outside -1 .. 1, which a threshold of -1 must not cut off
        cosine = (a @ b.transpose(-1, -2)).clamp(-1.0, 1.0)
        return _keep_k(1 - cosine, self.k, src, dst) & (cosine >= self.threshold)


_LEAST_PAIRS, _MOST_KEPT = 1 << 14, 16
"""Below so many pairs the compiled loop is not worth waking; beyond so many neighbours torch's selection is faster."""


def _worth_compiling(value: Tensor, pairs: int, k: int) -> bool:
    known = value.device.type == "cpu" and value.dtype == torch.float32 and value.dim() == 3
    return known and k <= _MOST_KEPT and pairs >= _LEAST_PAIRS


def _keep_k(distance: Tensor, k: int, src: NodeSet, dst: NodeSet) -> Tensor:
    """Mask ``[B, N_src, N_dst]`` of the ``k`` smallest per destination, padding and self left out."""
    if not _worth_compiling(distance, distance.numel(), k):
        return _keep_k_plain(distance, k, src, dst)
    kept = torch.empty(distance.shape, dtype=torch.bool)
    arrays = [value.detach().contiguous().numpy() for value in (distance, src.valid)]
    compiled().keep_k(*arrays, min(k, distance.shape[-2]), src is dst, kept.numpy())
    return kept


def _keep_k_plain(distance: Tensor, k: int, src: NodeSet, dst: NodeSet) -> Tensor:
    blocked = ~src.valid[..., :, None] | distance.isnan()
    if src is dst:
        blocked = blocked | torch.eye(distance.shape[-1], dtype=torch.bool, device=distance.device)
    distance = distance.masked_fill(blocked, torch.inf)
    if distance.shape[-2] == 0:
        return ~blocked
    kth = distance.kthvalue(min(k, distance.shape[-2]), dim=-2, keepdim=True).values
    return (distance <= kth) & ~blocked


@dataclass(frozen=True)
class Same(Rule):
    """The two nodes carry the same value of a field (a group number, a speaker); itself does not count."""

    field: str = "group"

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        a, b = src[self.field], dst[self.field]
        equal = a.unsqueeze(-2 if a.dim() > 2 else -1) == b.unsqueeze(-3 if b.dim() > 2 else -2)
        return not_self(equal.all(-1) if a.dim() > 2 else equal, src, dst)


all_pairs = AllPairs()
following = Window(before=1, after=-1)
preceding = Window(before=-1, after=1)
given = Given()
left_of = Direction("left")
right_of = Direction("right")
above = Direction("above")
below = Direction("below")
inside = Inside()
overlapping = Overlapping()
during = Overlapping("time")


def window(size: int | None = None, *, before: int = 0, after: int = 0, loops: bool = True) -> Window:
    """Neighbours in the order of the sample: ``size`` on both sides, or ``before`` and ``after``."""
    if size is not None:
        if before or after:
            raise HetgraphError("window: give size, or before and after, not both")
        return Window(size, size, loops)
    return Window(before, after, loops)


def nearest(k: int, field: str = "pos") -> Nearest:
    """The ``k`` nearest sources of every destination; see :class:`Nearest`."""
    return Nearest(k, field)


def similar(k: int, threshold: float = -1.0, field: str = "x") -> Similar:
    """The ``k`` most similar sources of every destination; see :class:`Similar`."""
    return Similar(k, threshold, field)


def spatial(aspect: float = 1.0, field: str = "box") -> dict[str, Spatial]:
    """The 11 spatial relations of ReGAT, name -> rule: edge types that no pair of boxes has two of.

    One edge type with 11 relations instead: :func:`hetgraph.relations.spatial_edges`.
    """
    return {name: Spatial(name, aspect, field) for name in SPATIAL}


def before(within: float | None = None, field: str = "time") -> Before:
    """Sources that end before the destination begins; see :class:`Before`."""
    return Before(within, field)


def after(within: float | None = None, field: str = "time") -> After:
    """Sources that begin after the destination ends; see :class:`After`."""
    return After(within, field)


def same(field: str = "group") -> Same:
    """Nodes that carry the same value of ``field``; see :class:`Same`."""
    return Same(field)


_BUILT_IN: dict[str, type[Rule]] = {
    cls.__name__: cls
    for cls in (
        *(AllPairs, Window, Given, Nearest, Similar, Same),
        *(Direction, Inside, Overlapping, Spatial, Before, After),
    )
}


def spec_of(rule: Callable[..., Any]) -> dict[str, Any]:
    """JSON form of a rule: the whole of a built-in one, the name of any other."""
    if type(rule) in _BUILT_IN.values():
        return rule.spec()  # type: ignore[attr-defined]
    return {"user": getattr(rule, "__qualname__", type(rule).__qualname__)}


def from_spec(
    spec: Mapping[str, Any], user: Callable[..., Any] | None, key: tuple[str, str, str]
) -> Callable[..., Any]:
    """The rule of a JSON form; a user-made one must be passed in again under the same name.

    Raises:
        HetgraphError: the user-made rule is missing or has another name, or a rule is passed where a
            built-in one was saved, or the built-in rule is unknown.
    """
    if "user" in spec:
        if user is None:
            raise HetgraphError(f"edge type {key}: its rule {spec['user']!r} is user-made; pass rules={{{key}: ...}}")
        name = spec_of(user).get("user")
        if name != spec["user"]:
            raise HetgraphError(f"edge type {key}: saved with rule {spec['user']!r}, got {name or spec_of(user)!r}")
        return user
    if user is not None and spec_of(user) != dict(spec):
        raise HetgraphError(f"edge type {key}: saved with built-in rule {dict(spec)}, got {spec_of(user)}")
    arguments = dict(spec)
    name = arguments.pop("rule", None)
    if name not in _BUILT_IN:
        raise HetgraphError(f"edge type {key}: unknown built-in rule {name!r}; known: {sorted(_BUILT_IN)}")
    try:
        return _BUILT_IN[name](**arguments)
    except TypeError as error:
        raise HetgraphError(f"edge type {key}: rule {name!r} does not take {arguments}") from error

"""What all edge rules share: how they see nodes, their base class, and fields as numbers, centres and axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import HetgraphError


class NodeSet(Mapping[str, Tensor]):
    """The nodes of one type in a batch, as a rule sees them: field name -> ``[B, N, width]``.

    Args:
        fields: name -> function that gives the padded tensor; called on first use.
        valid: bool ``[B, N]``, which places hold a node.
    """

    def __init__(self, fields: Mapping[str, Callable[[], Tensor]], valid: Tensor, name: str = "") -> None:
        self._make = dict(fields)
        self._made: dict[str, Tensor] = {}
        self.valid = valid
        self.name = name

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._make:
            raise HetgraphError(f"node type {self.name!r} has no field {key!r}; it has {sorted(self._make)}")
        if key not in self._made:
            self._made[key] = self._make[key]()
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


@dataclass(frozen=True)
class Rule:
    """Base of the built-in rules: frozen values with a JSON form."""

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        return {"rule": type(self).__name__, **asdict(self)}


def rows_of(nodes: NodeSet, field: str) -> Tensor:
    """A field as ``[B, N, width]``; one number per node (width 0) becomes width 1."""
    value = nodes[field].float()
    return value[..., None] if value.dim() == nodes.valid.dim() else value


def centre_of(nodes: NodeSet, field: str) -> Tensor:
    """Centres ``[B, N, 2 or 3]`` of a box, an interval (``[.., 1]``) or a point field."""
    value = rows_of(nodes, field)
    if field == "time":
        return value.mean(-1, keepdim=True)
    if value.shape[-1] == 4:
        return (value[..., :2] + value[..., 2:]) / 2
    return value


def axes_first(value: Tensor) -> Tensor:
    """``[B, N, d]`` -> ``[d, B, N]``, in whose last dimension pairs of nodes are compared several times faster."""
    return value.movedim(-1, 0).contiguous()


def not_self(mask: Tensor, src: NodeSet, dst: NodeSet) -> Tensor:
    if src is dst:
        mask = mask & ~torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    return mask

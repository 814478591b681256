"""The edges of one type in a batch, in whichever form they came, turned into another on demand.

Shapes: B samples, E edges, S and D the largest number of source and destination nodes in a sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .rules import AllPairs, Structure, Window


class Made(dict[Any, Any]):
    """What was derived and is kept.

    An entry made under inference mode does not count outside of it: autograd refuses such tensors.
    """

    _inference: frozenset[Any] = frozenset()

    def __setitem__(self, key: Any, value: Any) -> None:
        if torch.is_inference_mode_enabled():
            self._inference |= {key}
        else:
            self._inference -= {key}
        super().__setitem__(key, value)

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(key) and (key not in self._inference or torch.is_inference_mode_enabled())

    def __reduce__(self) -> tuple[Any, ...]:
        # entry by entry: tensors of a copy are of the mode in which it is made
        return type(self), (), None, None, iter(self.items())


@dataclass
class Counts:
    """How many nodes of a type each sample has, with what follows from it."""

    per_sample: Tensor
    """int64 ``[B]``."""
    longest: int
    """The largest entry, as a Python number (so that shapes need no device synchronisation)."""
    total: int
    _made: Made = field(default_factory=Made, repr=False)

    @classmethod
    def of(cls, per_sample: Tensor) -> Counts:
        numbers = per_sample.tolist()
        return cls(per_sample, max(numbers, default=0), sum(numbers))

    @property
    def uniform(self) -> bool:
        """Every sample has the same number of nodes, so that padding is a mere view."""
        return self.longest * len(self.per_sample) == self.total

    @property
    def offset(self) -> Tensor:
        """Packed id of the first node of every sample, int64 ``[B]``."""
        if "offset" not in self._made:
            self._made["offset"] = self.per_sample.cumsum(0) - self.per_sample
        return self._made["offset"]

    @property
    def batch(self) -> Tensor:
        """Sample of every node, int64 ``[N]``."""
        if "batch" not in self._made:
            samples = torch.arange(len(self.per_sample), device=self.per_sample.device)
            self._made["batch"] = samples.repeat_interleave(self.per_sample, output_size=self.total)
        return self._made["batch"]

    @property
    def place(self) -> Tensor:
        """Place of every node inside its sample, int64 ``[N]``."""
        if "place" not in self._made:
            nodes = torch.arange(self.total, device=self.per_sample.device)
            self._made["place"] = nodes - self.offset[self.batch]
        return self._made["place"]

    @property
    def slot(self) -> Tensor:
        """Row of every node in the padded form flattened to ``[B * longest]``, int64 ``[N]``."""
        if "slot" not in self._made:
            self._made["slot"] = self.batch * self.longest + self.place
        return self._made["slot"]

    @property
    def valid(self) -> Tensor:
        """bool ``[B, longest]``: which places of the padded form hold a node."""
        if "valid" not in self._made:
            places = torch.arange(self.longest, device=self.per_sample.device)
            self._made["valid"] = places < self.per_sample[:, None]
        return self._made["valid"]

    def pad(self, packed: Tensor) -> Tensor:
        """``[N, ...]`` -> ``[B, longest, ...]``, zeros where there is no node. Differentiable."""
        rest = packed.shape[1:]
        if self.uniform:
            return packed.reshape(len(self.per_sample), self.longest, *rest)
        out = packed.new_zeros(len(self.per_sample) * self.longest, *rest)
        return out.index_copy(0, self.slot, packed).view(len(self.per_sample), self.longest, *rest)

    def unpad(self, padded: Tensor) -> Tensor:
        """``[B, longest, ...]`` -> ``[N, ...]``. Differentiable."""
        flat = padded.reshape(-1, *padded.shape[2:])
        return flat if self.uniform else flat.index_select(0, self.slot)

    def to(self, device: torch.device | str) -> Counts:
        return Counts(self.per_sample.to(device), self.longest, self.total)


class Edges:
    """Edges of one type between the nodes of a batch.

    Exactly one form is primary: a ``structure`` (nothing stored), a padded ``mask`` bool ``[B, S, D]``
    with features ``[B, S, D, width]``, or a list ``index`` int64 ``[2, E]`` of packed node ids with
    features ``[E, width]`` and, for edge types with relations, ``relation`` int64 ``[E]``.
    """

    def __init__(
        self,
        src: Counts,
        dst: Counts,
        *,
        structure: Structure | None = None,
        mask: Tensor | None = None,
        index: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
        relation: Tensor | None = None,
    ) -> None:
        if sum(form is not None for form in (structure, mask, index)) != 1:
            raise TypeError("edges have exactly one primary form: structure, mask or index")
        self.src = src
        self.dst = dst
        self.structure = structure
        self._mask = mask
        self._index = index
        self._features = dict(features or {})
        self.relation = relation
        self._made = Made()

    @property
    def listed(self) -> bool:
        """The primary form is an edge list (it may repeat edges)."""
        return self.structure is None and self._mask is None

    @property
    def index(self) -> Tensor:
        """int64 ``[2, E]``: packed ids of source and destination nodes, sample by sample."""
        if self._index is not None:
            return self._index
        if "index" not in self._made:
            self._made["index"] = self._list()
        return self._made["index"]

    @property
    def _steps(self) -> range | list[int]:
        """The steps of a window that the longest sample can take, so that a window may be wider than any sample."""
        assert isinstance(self.structure, Window)
        low = max(-self.structure.before, 1 - self.dst.longest)
        high = min(self.structure.after, self.src.longest - 1)
        steps = range(low, high + 1)
        return steps if self.structure.loops else [s for s in steps if s != 0]

    def _list(self) -> Tensor:
        src, dst = self.src, self.dst
        if type(self.structure) is AllPairs:
            fan_in = src.per_sample[dst.batch]
            count = int((src.per_sample * dst.per_sample).sum())
            heads = torch.arange(dst.total, device=fan_in.device).repeat_interleave(fan_in, output_size=count)
            first = fan_in.cumsum(0) - fan_in
            step = torch.arange(count, device=fan_in.device) - first[heads]
            return torch.stack([src.offset[dst.batch[heads]] + step, heads])
        if type(self.structure) is Window:
            pairs = []
            nodes = torch.arange(dst.total, device=dst.per_sample.device)
            limit = src.per_sample[dst.batch]
            for shift in self._steps:
                place = dst.place + shift
                inside = (place >= 0) & (place < limit)
                pairs.append(torch.stack([(src.offset[dst.batch] + place)[inside], nodes[inside]]))
            empty = nodes.new_zeros(2, 0)
            index = torch.cat([empty, *pairs], 1)
            return index[:, torch.argsort(index[1], stable=True)]
        sample, i, j = self.mask.nonzero(as_tuple=True)
        return torch.stack([src.offset[sample] + i, dst.offset[sample] + j])

    @property
    def mask(self) -> Tensor:
        """bool ``[B, S, D]``: which pairs are connected at least once."""
        if self._mask is not None:
            return self._mask
        if "mask" not in self._made:
            shape = (len(self.src.per_sample), self.src.longest, self.dst.longest)
            if self.structure is not None:
                i = torch.arange(self.src.longest, device=self.src.per_sample.device)[:, None]
                j = torch.arange(self.dst.longest, device=self.src.per_sample.device)[None, :]
                connected = self.structure.connects(i, j)
                made = connected & self.src.valid[:, :, None] & self.dst.valid[:, None, :]
            else:
                flat = torch.zeros(shape, dtype=torch.bool, device=self.src.per_sample.device).view(-1)
                made = flat.index_fill(0, self.cell, True).view(shape)
            self._made["mask"] = made
        return self._made["mask"]

    @property
    def cell(self) -> Tensor:
        """int64 ``[E]``: where each listed edge lies in the padded form flattened to ``[B * S * D]``."""
        if "cell" not in self._made:
            src, dst = self.index
            row = self.src.slot[src] if not self.src.uniform else src
            self._made["cell"] = row * self.dst.longest + self.dst.place[dst]
        return self._made["cell"]

    @property
    def multiplicity(self) -> Tensor | None:
        """float ``[B, S, D]``, how often each pair is connected; ``None`` where none repeats."""
        if not self.listed:
            return None
        if "multiplicity" not in self._made:
            cells = len(self.src.per_sample) * self.src.longest * self.dst.longest
            times = torch.bincount(self.cell, minlength=cells) if cells else self.cell.new_zeros(0)
            shape = (len(self.src.per_sample), self.src.longest, self.dst.longest)
            repeats = bool((times > 1).any())
            self._made["multiplicity"] = times.view(shape).float() if repeats else None
        return self._made["multiplicity"]

    @property
    def features(self) -> dict[str, Tensor]:
        """Features by name, ``[E, width]`` in the order of :attr:`index`."""
        if self._mask is None:
            return self._features
        if "features" not in self._made:
            self._made["features"] = {name: value[self._mask] for name, value in self._features.items()}
        return self._made["features"]

    def feature_matrix(self) -> Tensor | None:
        """All features side by side, ``[E, sum of widths]`` in the order of :attr:`index`; None without any."""
        if not self._features:
            return None
        if "matrix" not in self._made:
            flat = [f.reshape(f.shape[0], math.prod(f.shape[1:])) for f in self.features.values()]
            self._made["matrix"] = torch.cat(flat, -1)
        return self._made["matrix"]

    def __len__(self) -> int:
        """How many edges, without listing them."""
        if "count" not in self._made:
            self._made["count"] = int(self.per_sample.sum()) if self._index is None else self._index.shape[1]
        return self._made["count"]

    @property
    def per_sample(self) -> Tensor:
        """How many edges each sample has, int64 ``[B]``, without listing them."""
        src, dst = self.src.per_sample, self.dst.per_sample
        if self._index is not None:
            return torch.bincount(self.dst.batch[self._index[1]], minlength=len(dst))
        if type(self.structure) is AllPairs:
            return src * dst
        if type(self.structure) is Window:
            step = torch.tensor(self._steps, dtype=torch.long, device=src.device)[:, None]
            # destinations j with 0 <= j + step < src, for every step and sample
            return (torch.minimum(dst, src - step) - (-step).clamp(min=0)).clamp(min=0).sum(0)
        return self.mask.flatten(1).sum(1)

    def of_sample(self, i: int) -> tuple[Tensor, Tensor]:
        """The edges of sample ``i``: their places in the list, int64 ``[e]``, and the index ``[2, e]`` inside it."""
        inside = (self.dst.batch[self.index[1]] == i).nonzero().squeeze(1)
        first = torch.stack([self.src.offset[i], self.dst.offset[i]])
        return inside, self.index[:, inside] - first[:, None]

    def map(self, move: Any, src: Counts, dst: Counts) -> Edges:
        """The same edges with every stored tensor replaced by ``move(tensor)``."""

        def maybe(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else move(tensor)

        return Edges(
            src,
            dst,
            structure=self.structure,
            mask=maybe(self._mask),
            index=maybe(self._index),
            features={name: move(value) for name, value in self._features.items()},
            relation=maybe(self.relation),
        )

    def __repr__(self) -> str:
        form = self.structure if self.structure is not None else "mask" if self._mask is not None else "list"
        return f"Edges({form}, {self.src.total} -> {self.dst.total} nodes)"

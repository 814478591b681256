"""The interface of every encoder: raw media in, the nodes of one node type out."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from hetgraph.errors import HetgraphError

from .media import Item, content_hash, is_array, is_bytes

if TYPE_CHECKING:
    from typing import Self

    from hetgraph.schema import NodeType

Nodes = dict[str, torch.Tensor]


class Encoder(ABC):
    """Turns pictures, texts, sounds, videos or tables into nodes.

    ``encoder(items)`` gives one dict per item, in order: ``x`` float32 ``[N, dim]`` and, for every entry of
    ``fields``, a float32 tensor ``[N, d]``, or whole numbers ``[N]`` where the width is 0. N differs from item to
    item and is at least ``least``. All tensors are on the CPU and can be trained on.

    A subclass sets ``dim`` and ``fields`` and writes :meth:`encode` and :meth:`settings`.

    Attributes:
        dim: width of ``x``.
        fields: positional fields that come with every node: name -> width (0: one whole number per node).
        weights: which learnt weights are inside (a hash or a package version); None if there are none.
        least: fewest nodes of an item: 1, or 0 where an item may rightly hold nothing (a video without sound).
    """

    dim: int
    fields: dict[str, int]
    weights: str | None = None
    least: int = 1

    edition: ClassVar[int] = 1
    """Raised whenever the same settings and input give another output, so that old caches are not used."""

    neutral: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not influence the output and therefore stay out of the fingerprint."""

    nested: ClassVar[tuple[str, ...]] = ()
    """Settings that are the config of an encoder inside, or a list of them; in the constructor, and as attributes of
    the same names, they are the encoders themselves."""

    def __call__(self, items: Iterable[Any], names: Sequence[str] | None = None) -> list[Nodes]:
        """Encode a list of items.

        Args:
            items: what the encoder's class says; a list, or anything that can be iterated over.
            names: what error messages call the items (sample ids, say). Without them a file is called by its
                path, anything else ``item 3``, counted from 0.

        Raises:
            MediaError: an item cannot be read or holds nothing usable; the message names it.
            HetgraphError: ``items`` is a single item instead of a list of them.
        """
        return self.run(self._entries(items, names))

    def run(self, items: Sequence[Item]) -> list[Nodes]:
        """:meth:`encode`, and a check of what came; for wrappers, which hold named items already."""
        encoded = self.encode(items) if items else []
        if len(encoded) != len(items):
            raise HetgraphError(f"{type(self).__name__}: {len(items)} items gave {len(encoded)} results")
        return [self._checked(nodes, item) for nodes, item in zip(encoded, items, strict=True)]

    @abstractmethod
    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        """One node dict per item, in order. Called with at least one item."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as JSON-able values; ``cls.from_settings`` takes them back."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The encoder of :meth:`settings`; those that are ``nested`` may be encoders already.

        Raises:
            HetgraphError: as :func:`hetgraph.encoders.encoder_from_config` and the constructor do.
        """
        from .configs import encoders_of

        return cls(**{name: encoders_of(value) if name in cls.nested else value for name, value in settings.items()})

    @property
    def inside(self) -> list[Encoder]:
        """The encoders that this one uses."""
        found = [getattr(self, name) for name in self.nested]
        return [one for part in found for one in (part if isinstance(part, Sequence) else [part])]

    def fitted(self, items: Sequence[Any], names: Sequence[str] | None = None) -> Encoder:
        """The encoder with the statistics of these training items, for kinds that need any (tables).

        Others, and those that are fitted already, give themselves.

        Raises:
            MediaError: an item cannot be read.
        """
        return self

    def path_of(self, value: Any) -> Path | None:
        """The file that an item stands for; None if the item is the content itself."""
        return Path(value) if isinstance(value, str | PathLike) else None

    def digest(self, item: Item) -> str:
        """Hash of the item's content; two items with the same digest give the same nodes."""
        return content_hash(item, self.path_of(item.value))

    def config(self) -> dict[str, Any]:
        """JSON-able description from which :func:`hetgraph.encoders.encoder_from_config` rebuilds an equal
        encoder. With ``weights``, so that other weights in the same place are noticed."""
        config = {"encoder": type(self).__name__, **self.settings()}
        return config if self.weights is None else {**config, "weights": self.weights}

    @property
    def fingerprint(self) -> str:
        """Sha256 over all that decides the output: class, edition, settings and weights."""
        kept = {name: value for name, value in self.config().items() if name not in self.neutral}
        text = json.dumps({**kept, "edition": self.edition}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def node_type(self, name: str) -> NodeType:
        """The node type that these nodes have in a schema; the fields are optional there."""
        from hetgraph.schema import NodeType

        return NodeType(name, self.dim, fields={}, optional=self.fields)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({settings})"

    def _entries(self, items: Iterable[Any], names: Sequence[str] | None) -> list[Item]:
        single = isinstance(items, str | PathLike | Mapping) or is_bytes(items)
        if not single and is_array(items):
            single = isinstance(items, torch.Tensor) or np.asarray(items).dtype.kind not in "OUT"
        if single or not isinstance(items, Iterable):
            raise HetgraphError(f"{type(self).__name__} takes a list of items, got a single {type(items).__name__}")
        values = list(items)
        if names is not None and len(names) != len(values):
            raise HetgraphError(f"{type(self).__name__}: {len(values)} items but {len(names)} names")
        entries = []
        for i, value in enumerate(values):
            path = self.path_of(value)
            parts = [] if names is None else [str(names[i])]
            parts += [] if path is None else [repr(str(path))]
            name = ": ".join(parts) or f"item {i}"
            entries.append(Item(value, name))
        return entries

    def _checked(self, nodes: Nodes, item: Item) -> Nodes:
        widths = {"x": self.dim, **self.fields}
        if set(nodes) != set(widths):
            raise HetgraphError(f"{type(self).__name__}: expected {sorted(widths)} of a node, got {sorted(nodes)}")
        count = len(nodes["x"])
        checked = {}
        for name, tensor in nodes.items():
            width = widths[name]
            shape = (count, width) if width else (count,)
            if count < self.least or tuple(tensor.shape) != shape:
                expected = f"[N >= {self.least}, {width}]" if width else f"[N >= {self.least}]"
                raise HetgraphError(
                    f"{type(self).__name__}: expected {name!r} of shape {expected} with the same "
                    f"N for all, got {list(tensor.shape)}"
                )
            tensor = tensor.detach().to("cpu", torch.float32 if width else torch.int64)
            # Autograd refuses to save tensors made in inference mode; a copy is an ordinary tensor.
            tensor = tensor.clone(memory_format=torch.contiguous_format) if tensor.is_inference() else tensor
            checked[name] = tensor.contiguous()
        if not bool(torch.isfinite(checked["x"]).all()):
            raise item.error(f"{type(self).__name__} gave features that are not finite")
        return checked


def fingerprint_with(own: str, parts: Iterable[Encoder]) -> str:
    """Sha256 over an encoder's own fingerprint and those of the encoders inside, which know their own edition."""
    return hashlib.sha256(" ".join([own, *(part.fingerprint for part in parts)]).encode()).hexdigest()


def whole(owner: str, name: str, value: Any, low: int, high: int | None = None) -> int:
    """A whole number within bounds.

    Raises:
        HetgraphError: another type, or out of bounds.
    """
    good = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not good or value < low or (high is not None and value > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise HetgraphError(f"{owner}: {name} must be a whole number {bounds}, got {value!r}")
    return int(value)


def number(owner: str, name: str, value: Any, low: float, high: float) -> float:
    """A finite number within bounds, ``low`` itself excluded.

    Raises:
        HetgraphError: another type, or out of bounds.
    """
    good = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not low < value <= high:
        raise HetgraphError(f"{owner}: {name} must be a number above {low} and up to {high}, got {value!r}")
    return float(value)

"""One example: the nodes of each type that it has, and the edges that only it can know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import HetgraphError

EdgeKey = tuple[str, str, str]


def as_tensor(value: Any, where: str) -> Tensor:
    """A tensor of any library's numeric array: torch, NumPy, DLPack, the array protocol, nested lists.

    Args:
        value: the array.
        where: what to call it in an error.

    Raises:
        HetgraphError: not an array of real numbers.
    """
    if isinstance(value, Tensor):
        tensor = value.detach()
    elif isinstance(value, (str, bytes)) or value is None:
        raise HetgraphError(f"{where}: expected an array of numbers, got {type(value).__name__}")
    elif hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        try:
            tensor = torch.from_dlpack(value if hasattr(value, "__dlpack_device__") else value.__dlpack__())
        except (RuntimeError, TypeError, BufferError) as error:
            raise HetgraphError(f"{where}: cannot read a {type(value).__name__} through DLPack: {error}") from error
    else:
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, RuntimeError) as error:
            got = "ragged rows" if "inhomogeneous" in str(error) else f"{type(value).__name__} ({error})"
            raise HetgraphError(f"{where}: expected an array of numbers, got {got}") from error
        if array.dtype.kind not in "fiub":
            raise HetgraphError(f"{where}: expected an array of numbers, got dtype {array.dtype}")
        # a copy where torch cannot share the memory (read-only, negative strides, foreign byte order)
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise HetgraphError(f"{where}: {array.max()} does not fit a 64-bit signed integer")
        if array.dtype in (np.uint16, np.uint32, np.uint64):
            array = array.astype(np.int64)
        elif array.dtype == np.longdouble:
            array = array.astype(np.float64)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    if tensor.is_complex():
        raise HetgraphError(f"{where}: expected real numbers, got {tensor.dtype}")
    return tensor


class Sample:
    """One multimodal example. Any node type may be absent.

    Args:
        id: a name for messages and outputs; made from the position in the batch if left out.
        target: what is to be predicted: a number, a string (class name), or an array.
        edges: for edge types whose rule is ``rules.given``: ``(src, relation, dst)`` -> index ``[2, E]``
            of places inside this sample, or a dict ``{"index": [2, E], "relation": [E], feature: [E, d]}``.
        nodes: node types whose names are no Python identifiers (or clash with ``id``, ``target``,
            ``edges``, ``nodes``), as a mapping; joined with the keywords.
        **types: one keyword per node type: ``region={"x": [N, dim], "box": [N, 4]}``. A bare array is
            taken as ``x``. ``None`` means absent.

    Raises:
        HetgraphError: no ``x``, wrong number of axes, fields of different length, not numbers.

    Example:
        >>> Sample(region={"x": torch.rand(9, 64), "box": torch.rand(9, 4)}, token={"x": torch.rand(5, 32)})
        Sample(region: 9, token: 5)
    """

    __slots__ = ("edges", "id", "nodes", "target")

    def __init__(
        self,
        /,
        *,
        id: str | None = None,
        target: Any = None,
        edges: Mapping[EdgeKey, Any] | None = None,
        nodes: Mapping[str, Any] | None = None,
        **types: Any,
    ) -> None:
        self.id = None if id is None else str(id)
        self.target = target
        self.nodes: dict[str, dict[str, Tensor]] = {}
        self.edges: dict[EdgeKey, dict[str, Any]] = {}
        given = dict(nodes or {})
        repeated = sorted(set(given) & set(types))
        if repeated:
            raise HetgraphError(f"{self.label}: node types {repeated} are given twice")
        for name, value in {**given, **types}.items():
            if type(value) is dict and _ready(value):
                self.nodes[name] = value.copy()
            elif value is not None:
                self.nodes[name] = self._read_nodes(name, value)
        for key, value in (edges or {}).items():
            if value is None:
                continue
            # neither key nor index need a closer look if they are as they are kept, as most are
            if not (type(key) is tuple and len(key) == 3 and type(key[0]) is type(key[1]) is type(key[2]) is str):
                _check_key(self.label, key)
            if type(value) is Tensor and value.dtype is _INT64 and value.dim() == 2 and value.size(0) == 2:
                self.edges[key] = {"index": value}
            else:
                self.edges[key] = self._read_edges(key, value)

    @property
    def label(self) -> str:
        """How messages call this sample."""
        return "sample" if self.id is None else f"sample {self.id!r}"

    def _read_nodes(self, name: str, value: Any) -> dict[str, Tensor]:
        where = f"{self.label}: node type {name!r}"
        if not isinstance(value, Mapping):
            value = {"x": value}
        if value.get("x") is None:
            raise HetgraphError(f"{where}: no 'x', got {sorted(map(str, value))}")
        out = {key: as_tensor(v, f"{where}: field {key!r}") for key, v in value.items() if v is not None}
        if out["x"].dim() != 2:
            raise HetgraphError(f"{where}: 'x' must be [N, dim], got shape {list(out['x'].shape)}")
        count = out["x"].shape[0]
        for key, tensor in out.items():
            if tensor.dim() == 0 or tensor.shape[0] != count:
                raise HetgraphError(
                    f"{where}: field {key!r} must have {count} rows like 'x', got shape {list(tensor.shape)}"
                )
        return out

    def _read_edges(self, key: EdgeKey, value: Any) -> dict[str, Any]:
        where = f"{self.label}: edges {key}"
        if not isinstance(value, Mapping):
            value = {"index": value}
        if "index" not in value:
            raise HetgraphError(f"{where}: no 'index', got {sorted(map(str, value))}")
        index = as_tensor(value["index"], f"{where}: index")
        if index.numel() == 0:
            index = index.reshape(2, 0).long()
        if index.dim() != 2 or index.shape[0] != 2 or index.is_floating_point() or index.dtype == torch.bool:
            raise HetgraphError(
                f"{where}: index must be integers [2, E], got {index.dtype} with shape {list(index.shape)}"
            )
        out: dict[str, Any] = {"index": index.long()}
        for name, feature in value.items():
            if name == "index":
                continue
            several = isinstance(feature, (list, tuple)) or getattr(feature, "ndim", 0) == 1
            if name == "relation" and several and all(isinstance(n, str) for n in feature):
                out[name] = list(feature)
                size = len(feature)
            else:
                out[name] = as_tensor(feature, f"{where}: {name!r}")
                size = out[name].shape[0] if out[name].dim() else -1
            if size != index.shape[1]:
                raise HetgraphError(
                    f"{where}: {name!r} must have one row for each of {index.shape[1]} edges, got {size}"
                )
        return out

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}: {len(value['x'])}" for name, value in self.nodes.items())
        return f"Sample({'' if self.id is None else self.id + '; '}{inside})"


_INT64 = torch.int64


def _ready(values: dict[str, Any]) -> bool:
    """Whether a node set is as a sample keeps it: tensors of real numbers without a gradient, with equally many rows.

    Most are, and this is quicker to see than to make them so.
    """
    x = values.get("x")
    if type(x) is not Tensor or x.dim() != 2:
        return False
    rows = x.size(0)
    for value in values.values():
        if type(value) is not Tensor or value.requires_grad or value.is_complex():
            return False
        if value is not x and (value.dim() == 0 or value.size(0) != rows):
            return False
    return True


def _check_key(label: str, key: Any) -> None:
    if not (isinstance(key, tuple) and len(key) == 3 and all(isinstance(part, str) for part in key)):
        raise HetgraphError(f"{label}: an edge key is (src, relation, dst), got {key!r}")

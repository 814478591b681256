"""One block of shared memory for a whole object full of tensors, to hand it from process to process.

Sent tensor by tensor, a graph costs a file descriptor and a round trip between the processes for each of its
hundred tensors, and a tensor that is a slice of a large one takes the large one with it. Parcels travel between
processes of one program only; nothing from outside is ever unpacked.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_ALIGNMENT = 64

Parcel = tuple[Tensor, int]
"""uint8 ``[bytes]`` in shared memory, and how many of them the header takes."""


class _Packer(pickle.Pickler):
    """Puts tensors aside, and names instead of what both sides have."""

    def __init__(self, file: io.BytesIO, shared: Mapping[str, Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []
        self._places: dict[int, int | str] = {id(value): name for name, value in shared.items()}

    def persistent_id(self, thing: Any) -> int | str | None:
        place = self._places.get(id(thing))
        if place is None and type(thing) is Tensor and thing.device.type == "cpu" and thing.layout is torch.strided:
            place = self._places[id(thing)] = len(self.tensors)
            self.tensors.append(thing)
        return place


class _Unpacker(pickle.Unpickler):
    def __init__(self, body: bytes, tensors: list[Tensor], shared: Mapping[str, Any]) -> None:
        super().__init__(io.BytesIO(body))
        self._tensors, self._shared = tensors, shared

    def persistent_load(self, place: int | str) -> Any:
        return self._shared[place] if isinstance(place, str) else self._tensors[place]


def pack(thing: Any, shared: Mapping[str, Any] | None = None) -> Parcel:
    """Anything that can be pickled, as one block.

    Args:
        thing: what to send; tensors on the CPU at any depth of it are copied into the block once.
        shared: objects by name that the receiver has too; they are not sent (rules need not be picklable then).

    Raises:
        pickle.PicklingError, AttributeError, TypeError: something in it cannot be pickled.
        RuntimeError: there is not as much shared memory.
    """
    body = io.BytesIO()
    packer = _Packer(body, shared or {})
    packer.dump(thing)
    sizes = [_aligned(value.numel() * value.element_size()) for value in packer.tensors]
    shapes = [(value.dtype, tuple(value.shape)) for value in packer.tensors]
    header = pickle.dumps((body.getvalue(), shapes), pickle.HIGHEST_PROTOCOL)
    block = torch.empty(_aligned(len(header)) + sum(sizes), dtype=torch.uint8).share_memory_()
    block[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
    for value, view in zip(packer.tensors, _views(block, len(header), shapes), strict=True):
        view.copy_(value.detach())
    return block, len(header)


def unpack(parcel: Parcel, shared: Mapping[str, Any] | None = None) -> Any:
    """The inverse of :func:`pack`; its tensors are views of the block."""
    block, length = parcel
    body, shapes = pickle.loads(block[:length].numpy().data)
    return _Unpacker(body, _views(block, length, shapes), shared or {}).load()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _views(block: Tensor, length: int, shapes: list[tuple[torch.dtype, tuple[int, ...]]]) -> list[Tensor]:
    views = []
    start = _aligned(length)
    for dtype, shape in shapes:
        count = torch.Size(shape).numel()
        end = start + count * dtype.itemsize
        views.append(block[start:end].view(dtype).view(shape))
        start += _aligned(end - start)
    return views

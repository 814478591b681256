"""Encoders that take an item apart and leave the parts to an encoder inside."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .base import Encoder, Nodes, fingerprint_with
from .media import Item

if TYPE_CHECKING:
    from typing import Self


class Around(Encoder):
    """An encoder around another one, which is its only ``nested`` setting; item by item."""

    @property
    def fingerprint(self) -> str:
        return fingerprint_with(super().fingerprint, self.inside)

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        return [self._nodes(item) for item in items]

    @abstractmethod
    def _nodes(self, item: Item) -> Nodes:
        """The nodes of one item."""


class AroundPictures(Around):
    """The same around an encoder of pictures, the setting ``image``."""

    nested = ("image",)
    image: Encoder

    def to(self, device: str | torch.device) -> Self:
        """Move the network of the encoder of pictures, if it has one. Gives the encoder itself."""
        if hasattr(self.image, "to"):
            self.image.to(device)
        return self

"""Sounds to nodes: what every description of short frames shares, and several of them side by side."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hetgraph.errors import HetgraphError

from .base import Encoder, Nodes, fingerprint_with, number, whole
from .media import Item
from .read_audio import read_audio

CHUNK = 4096
"""Frames worked on at once, so that an hour of sound fits in memory."""

FLOOR = 1e-10
"""The least power that is told from silence: -100 dB of full scale."""


def decibels(power: np.ndarray) -> np.ndarray:
    """Power on a scale of about -1 to 1: ``10 log10(max(power, 1e-10)) / 50 + 1``.

    Silence is -1, -50 dB is 0, 0 dB is 1; a loud voice reaches about 1 in its strongest bands.
    """
    return 10.0 * np.log10(np.maximum(power, FLOOR)) / 50.0 + 1.0


class FrameEncoder(Encoder):
    """Base of the encoders of sounds: F successive frames, ``stack`` of them to a node.

    Items are paths (str or Path), bytes of a sound file, ``(array, rate)`` pairs, or bare arrays ``[samples]`` or
    ``[samples, channels]`` at the encoder's rate; see :func:`hetgraph.encoders.read_audio.read_audio`.
    The field ``time [N, 2]`` holds start and end of each node in seconds.

    Frame i covers the samples from ``i * hop`` on, ``window`` long; what is left at the end and fills no window
    is dropped, and a sound shorter than one window is padded with zeros to one.
    With ``stack = 1`` a node is a frame. With more, it is ``stack`` successive frames (fewer at the end) as their
    means followed by their standard deviations, so that ``dim`` doubles and a second of speech at ``stack = 10``
    makes 10 nodes instead of 98.

    Args:
        rate: samples per second that the sound is resampled to.
        window, hop: length of a frame and distance from one to the next, in seconds.
        stack: frames per node.
        max_seconds: only the beginning of a longer sound is used; the attribute ``truncated`` counts how
            many sounds were cut, since the encoder was made.

    Raises:
        HetgraphError: a setting out of range.
    """

    def __init__(self, rate: int, window: float, hop: float, stack: int, max_seconds: float | None) -> None:
        owner = type(self).__name__
        self.rate = whole(owner, "rate", rate, 1_000, 1_000_000)
        self.window = number(owner, "window", window, 0, 10)
        self.hop = number(owner, "hop", hop, 0, 10)
        self.stack = whole(owner, "stack", stack, 1)
        self.max_seconds = None if max_seconds is None else number(owner, "max_seconds", max_seconds, 0, 1e6)
        self.window_samples = round(self.window * self.rate)
        self.hop_samples = round(self.hop * self.rate)
        if self.window_samples < 2 or self.hop_samples < 1:
            raise HetgraphError(
                f"{owner}: a window of {self.window} s or a hop of {self.hop} s is too short at {self.rate} Hz"
            )
        self.truncated = 0
        self.fields = {"time": 2}

    @property
    @abstractmethod
    def frame_dim(self) -> int:
        """Width of one frame."""

    @abstractmethod
    def frames(self, sound: np.ndarray) -> np.ndarray:
        """Describe a sound: ``[samples]`` (at least one window of them) to ``[F, frame_dim]``."""

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.frame_dim if self.stack == 1 else 2 * self.frame_dim

    def settings(self) -> dict[str, Any]:
        return {**self.framing(), "stack": self.stack, "max_seconds": self.max_seconds}

    def framing(self) -> dict[str, Any]:
        """What decides where frames begin and end."""
        return {"rate": self.rate, "window": self.window, "hop": self.hop}

    def count(self, sound: np.ndarray) -> int:
        """How many frames a sound of at least one window has."""
        return 1 + (len(sound) - self.window_samples) // self.hop_samples

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        return [self._nodes(item) for item in items]

    def _nodes(self, item: Item) -> Nodes:
        sound, cut = read_audio(item, self.path_of(item.value), self.rate, self.max_seconds)
        self.truncated += cut
        sound = np.pad(sound, (0, max(0, self.window_samples - len(sound))))
        x = self.frames(sound)
        first = np.arange(0, len(x), self.stack)
        last = np.minimum(first + self.stack, len(x)) - 1
        if self.stack > 1:
            groups = [x[a : b + 1] for a, b in zip(first, last, strict=True)]
            x = np.stack([np.concatenate([group.mean(axis=0), group.std(axis=0)]) for group in groups])
        time = np.stack([first * self.hop_samples, last * self.hop_samples + self.window_samples], axis=1)
        return {
            "x": torch.from_numpy(x.astype(np.float32)),
            "time": torch.from_numpy((time / self.rate).astype(np.float32)),
        }


class AudioFeatures(FrameEncoder):
    """Several descriptions of the same frames side by side; ``dim`` is the sum of theirs.

    Args:
        parts: encoders of sounds that agree in rate, window, hop, stack and max_seconds.

    Raises:
        HetgraphError: no parts, something else than encoders of sounds, or parts of different frames.
    """

    nested = ("parts",)

    def __init__(self, parts: Sequence[FrameEncoder]) -> None:
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, FrameEncoder) for part in parts):
            raise HetgraphError(f"AudioFeatures: expected a list of encoders of sounds, got {parts!r}")
        first = parts[0]
        shared = {**first.framing(), "stack": first.stack, "max_seconds": first.max_seconds}
        super().__init__(**shared)
        for part in parts[1:]:
            own = {**part.framing(), "stack": part.stack, "max_seconds": part.max_seconds}
            if own != shared:
                raise HetgraphError(f"AudioFeatures: expected parts with the same frames, got {shared} and {own}")
        self.parts = list(parts)

    @property
    def frame_dim(self) -> int:
        return sum(part.frame_dim for part in self.parts)

    def settings(self) -> dict[str, Any]:
        return {"parts": [part.config() for part in self.parts]}

    @property
    def fingerprint(self) -> str:
        """Sha256 over the fingerprints of the parts, which know their own edition."""
        return fingerprint_with(super().fingerprint, self.inside)

    def frames(self, sound: np.ndarray) -> np.ndarray:
        return np.concatenate([part.frames(sound) for part in self.parts], axis=1)

"""Videos to nodes: their pictures by any encoder of pictures, their sound by any encoder of sounds, on one clock."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import Any

import torch

from hetgraph.errors import HetgraphError

from .around import Around, AroundPictures
from .base import Encoder, Nodes, number, whole
from .media import Item
from .read_video import MOST_PIXELS, needs_av, pictures, sound_track

BATCH = 16
"""Pictures that are held and encoded at once."""


class VideoFrames(AroundPictures):
    """Pictures of a video at a steady rate, each encoded by an encoder of pictures; needs PyAV.

    Items are paths (str or Path) or bytes of whatever FFmpeg decodes in one file (MP4, WebM, MKV, AVI, MPEG ...).
    The field ``time [N, 2]`` holds start and end in seconds. Pictures are those shown at the video's beginning and
    every 1 / ``rate`` seconds after it; each stands for the time up to the next one, the last for the time up to the
    end. Seconds count from where the first stream of the file begins, for :class:`VideoSound` too.

    Args:
        image: encoder of pictures (it gets PIL images).
        rate: pictures per second.
        regions: a node per node of the picture, with its fields (``box``) beside ``time``; otherwise a node per
            picture, the mean of its nodes.
        max_frames: only the beginning of a longer video is used; the attribute ``truncated`` counts how many were
            cut, since the encoder was made.
        max_pixels: a video of more pixels (width times height) is refused; no influence on the result.

    Raises:
        HetgraphError: PyAV is not installed, a setting out of range, or ``image`` is no encoder of pictures.
    """

    neutral = frozenset({"max_pixels"})

    def __init__(
        self,
        image: Encoder,
        rate: float = 1.0,
        regions: bool = False,
        max_frames: int = 300,
        max_pixels: int = 40_000_000,
    ) -> None:
        needs_av("VideoFrames")
        if not isinstance(image, Encoder) or "time" in image.fields or "span" in image.fields:
            raise HetgraphError(f"VideoFrames: expected an encoder of pictures as image, got {image!r}")
        if not isinstance(regions, bool):
            raise HetgraphError(f"VideoFrames: regions must be True or False, got {regions!r}")
        self.image = image
        self.rate = number("VideoFrames", "rate", rate, 1e-4, 1000)
        self.regions = regions
        self.max_frames = whole("VideoFrames", "max_frames", max_frames, 1)
        self.max_pixels = whole("VideoFrames", "max_pixels", max_pixels, 1, MOST_PIXELS)
        self.truncated = 0
        self.dim = image.dim
        self.fields = {**(image.fields if regions else {}), "time": 2}

    def settings(self) -> dict[str, Any]:
        return {
            "image": self.image.config(),
            "rate": self.rate,
            "regions": self.regions,
            "max_frames": self.max_frames,
            "max_pixels": self.max_pixels,
        }

    def _nodes(self, item: Item) -> Nodes:
        parts: list[Nodes] = []
        with closing(pictures(item, self.path_of(item.value), self.rate, self.max_pixels)) as stream:
            wanted = islice(stream, self.max_frames)
            while some := list(islice(wanted, BATCH)):
                named = [Item(p.image, f"{item.name}: picture at {p.start:.2f} s") for p in some]
                for picture, nodes in zip(some, self.image.run(named), strict=True):
                    kept = nodes if self.regions else {"x": nodes["x"].mean(dim=0, keepdim=True)}
                    time = torch.tensor([[picture.start, picture.end]]).repeat(len(kept["x"]), 1)
                    parts.append({**kept, "time": time})
            self.truncated += next(stream, None) is not None
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class VideoSound(Around):
    """The sound track of a video by an encoder of sounds; needs PyAV. A video without sound has no nodes.

    Items are those of :class:`VideoFrames`. The field ``time [N, 2]`` counts from the same zero: a track that begins
    later than the pictures has later times. Channels are averaged; of several tracks the first is taken.

    Args:
        audio: encoder of sounds with the field ``time`` (it gets a pair of samples and rate).
        max_seconds: only the beginning of a longer track is used; the attribute ``truncated`` counts how many were
            cut, since the encoder was made.

    Raises:
        HetgraphError: PyAV is not installed, a setting out of range, or ``audio`` is no encoder of sounds.
    """

    nested = ("audio",)
    least = 0

    def __init__(self, audio: Encoder, max_seconds: float = 300.0) -> None:
        needs_av("VideoSound")
        if not isinstance(audio, Encoder) or audio.fields.get("time") != 2:
            raise HetgraphError(f"VideoSound: expected an encoder of sounds as audio, got {audio!r}")
        self.audio = audio
        self.max_seconds = number("VideoSound", "max_seconds", max_seconds, 0, 1e6)
        self.truncated = 0
        self.dim = audio.dim
        self.fields = dict(audio.fields)

    def settings(self) -> dict[str, Any]:
        return {"audio": self.audio.config(), "max_seconds": self.max_seconds}

    def _nodes(self, item: Item) -> Nodes:
        track = sound_track(item, self.path_of(item.value), self.max_seconds)
        if track is None:
            widths = {"x": self.dim, **self.fields}
            return {name: torch.zeros((0, width) if width else (0,)) for name, width in widths.items()}
        self.truncated += track.cut
        [nodes] = self.audio.run([Item((track.samples, track.rate), f"{item.name}: sound track")])
        return {**nodes, "time": nodes["time"] + track.start}

"""Reading a video as it streams by: pictures at a steady rate, and the sound on the same clock.

Nothing is held but what is being worked on, and nothing but the file itself is opened: FFmpeg would follow a
playlist or a list of files, whatever its name ends in, to other files and to the network.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from hetgraph.errors import HetgraphError, MediaError

from .media import Item, is_bytes, open_file
from .pretrained import is_installed
from .read_audio import checked_rate, sound_array

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,mxf,nut,rm,ivf,gif"
"""Containers that hold their content themselves."""

MOST_PIXELS = 200_000_000
"""Width times height that FFmpeg may try while it looks at a file."""

_JITTER = 0.05
"""Seconds between two packets of sound that are not yet a gap."""

_SLACK = Fraction(1, 4)
"""Seconds that a file may end before the time it announces."""

_EXACT = ("mov", "matroska")
"""Containers that say how long they are; what ends earlier was cut off."""


@dataclass(frozen=True)
class Picture:
    """A frame, upright, and the seconds it stands for; 0 is where the first stream of the file begins."""

    image: Image
    start: float
    end: float


@dataclass(frozen=True)
class SoundTrack:
    """Mono samples of full scale 1, their rate, when the first one sounds, and whether the rest was left out."""

    samples: np.ndarray
    rate: int
    start: float
    cut: bool


def needs_av(owner: str) -> None:
    """Refuse early if PyAV is not there.

    Raises:
        HetgraphError: saying what to install.
    """
    if not is_installed("av"):
        raise HetgraphError(f"{owner}: the package av is not installed: pip install 'hetgraph[video]'")


def pictures(item: Item, path: Path | None, rate: float, max_pixels: int) -> Generator[Picture, None, None]:
    """The frames shown at s, s + 1 / rate, s + 2 / rate, ..., where s is when the first frame is shown.

    Each stands for the time up to the next one, the last for the time up to the end of the last frame. A frame
    that is shown for longer comes several times.

    Args:
        item: a path, bytes, or what ``path`` stands for.
        path: the file that the item stands for, if it does.
        rate: pictures per second.
        max_pixels: width times height of a larger video is refused before it is decoded.

    Raises:
        MediaError: not a video, no stream of pictures, too large, damaged, or cut off.
    """
    step = 1 / Fraction(rate).limit_denominator(1_000_000)
    with _opened(item, path) as container:
        stream = next((s for s in container.streams.video if not _is_cover(s)), None)
        if stream is None:
            kinds = sorted({s.type for s in container.streams}) or ["nothing"]
            raise item.error(f"expected a video, found no stream of pictures in it, but {', '.join(kinds)}")
        _check_decoder(stream, item)
        _check_size(stream.codec_context, item, max_pixels)
        # should the size change on the way; FFmpeg counts the padding of its buffers too
        stream.codec_context.options = {"max_pixels": str(2 * max_pixels + 1_000_000)}
        shown_now: Any = None
        waiting: tuple[Image, Fraction] | None = None
        due = end = Fraction(0)
        for frame in _frames(container, stream, item):
            _check_size(frame, item, max_pixels)
            start = _seconds(container, frame, end)
            due = start if shown_now is None else due
            while shown_now is not None and due < start:
                if waiting is not None:
                    yield Picture(waiting[0], float(waiting[1]), float(due))
                waiting, due = (_image(shown_now, item), due), due + step
            shown_now = frame
            end = max(end, start + (frame.duration or 0) * Fraction(frame.time_base))
        if shown_now is None:
            raise item.error("the video has no frames")
        while due < end or waiting is None:
            if waiting is not None:
                yield Picture(waiting[0], float(waiting[1]), float(due))
            waiting, due = (_image(shown_now, item), due), due + step
        image, start = waiting
        yield Picture(image, float(start), float(min(due, end) if end > start else due))


def sound_track(item: Item, path: Path | None, max_seconds: float) -> SoundTrack | None:
    """The first sound track; None if there is none. Gaps between its packets are silence.

    Args:
        item, path: see :func:`pictures`.
        max_seconds: leave out what comes later than that after the track's beginning.

    Raises:
        MediaError: not a video, damaged, or cut off.
    """
    with _opened(item, path) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None:
            return None
        _check_decoder(stream, item)
        rate = checked_rate(stream.codec_context.sample_rate, item)
        most = max(1, round(max_seconds * rate))
        blocks: list[np.ndarray] = []
        count, first = 0, Fraction(0)
        for frame in _frames(container, stream, item):
            now = _seconds(container, frame, first + Fraction(count, rate))
            first = first if blocks else now
            gap = min(round((now - first) * rate), most + 1) - count
            if gap > rate * _JITTER:
                blocks.append(np.zeros(gap, np.float32))
                count += gap
            array = frame.to_ndarray()
            if not frame.format.is_planar:
                array = array.reshape(-1, len(frame.layout.channels)).T
            blocks.append(sound_array(array.T, item).mean(axis=1, dtype=np.float32))
            count += len(blocks[-1])
            if count > most:
                break
        if not blocks:
            return None
        return SoundTrack(np.concatenate(blocks)[:most], rate, max(0.0, float(first)), count > most)


@contextmanager
def _opened(item: Item, path: Path | None) -> Iterator[Any]:
    """An open container of FFmpeg; its errors and those of Python's file become MediaErrors."""
    import av

    if path is None and not is_bytes(item.value):
        raise item.error(f"expected a path or the bytes of a video, got {type(item.value).__name__}")
    source: BinaryIO = open_file(path, item) if path is not None else io.BytesIO(bytes(item.value))
    with source:
        if not source.read(1):
            raise item.error("expected a video, got 0 bytes")
        source.seek(0)
        safe = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
        bounds = {"max_pixels": str(MOST_PIXELS)}
        try:
            container = av.open(source, container_options=safe, options=bounds, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
            raise item.error(f"expected a video ({FORMATS}), but it cannot be opened: {_reason(error)}") from error
        with container:
            try:
                yield container
            except MediaError:
                raise
            except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
                raise item.error(f"the video is damaged or truncated: {_reason(error)}") from error


def _frames(container: Any, stream: Any, item: Item) -> Iterator[Any]:
    """Decoded frames of a stream, in order.

    All streams are followed, because a file that was cut off shows in the last packet of any of them.
    """
    followed = [s for s in (*container.streams.video, *container.streams.audio) if not _is_cover(s)]
    reached = Fraction(0)
    for packet in container.demux(followed):
        if packet.pts is not None:
            reached = max(reached, (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base))
        if packet.stream.index == stream.index:
            yield from packet.decode()
    length = container.duration
    if length is not None and container.format.name.startswith(_EXACT):
        end = Fraction((container.start_time or 0) + length, 1_000_000)
        if reached < end - _SLACK - end / 100:
            raise item.error(f"the video is truncated: it ends at {float(reached):.2f} s of {float(end):.2f} s")


def _seconds(container: Any, frame: Any, otherwise: Fraction) -> Fraction:
    """When a frame is shown, on the clock of the file; ``otherwise`` if it does not say."""
    if frame.pts is None:
        return otherwise
    return frame.pts * Fraction(frame.time_base) - Fraction(container.start_time or 0, 1_000_000)


def _image(frame: Any, item: Item) -> Image:
    if frame.is_corrupt:
        raise item.error("the video is damaged: a frame cannot be decoded in full")
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _check_decoder(stream: Any, item: Item) -> None:
    if stream.codec_context is None:
        raise item.error(f"the video is damaged, or its stream of {stream.type} is of a kind that cannot be decoded")


def _check_size(sized: Any, item: Item, max_pixels: int) -> None:
    if sized.width * sized.height > max_pixels:
        raise item.error(
            f"the video is too large: {sized.width} x {sized.height} pixels are more than max_pixels = {max_pixels}"
        )


def _is_cover(stream: Any) -> bool:
    """Whether a stream is the cover picture of a piece of music."""
    return "attached_pic" in (stream.disposition.name or "")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

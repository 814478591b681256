"""Small videos that tests make themselves: moving colours and a tone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, RATE = 64, 48, 16_000


def colour_of(number: int) -> tuple[int, int, int]:
    """The colour of a frame by its number: far apart for frames near each other."""
    return (number * 40) % 256, 255 - (number * 40) % 256, 128


def save_video(
    path: Path,
    frames: int = 25,
    fps: int = 10,
    *,
    tone: float | None = 440.0,
    sound_start: float = 0.0,
    video_start: int = 0,
    form: str = "mp4",
    codec: str = "mpeg4",
    rotation: int = 0,
    head_first: bool = False,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Path:
    """Write frames of one colour each (:func:`colour_of`), with a white corner top left, and a tone of equal length.

    Args:
        tone: in Hz; None: no sound track.
        sound_start: seconds that the sound begins after zero.
        video_start: frames that the pictures begin after zero.
        rotation: degrees against the clock that the pictures are to be turned when they are shown.
        head_first: the index of an MP4 before its content.
    """
    import av

    options = {"movflags": "faststart"} if head_first else {}
    with av.open(str(path), "w", format=form, options=options) as container:
        video = container.add_stream(codec, rate=fps) if frames else None
        if video is not None:
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            if rotation:
                video.set_display_rotation(rotation)
        sound = None if tone is None else container.add_stream("aac", rate=RATE)
        if sound is not None:
            sound.layout = "mono"
        for number in range(frames):
            array = np.full((size[1], size[0], 3), colour_of(number), np.uint8)
            array[: size[1] // 2, : size[0] // 2] = 255
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = number + video_start, Fraction(1, fps)
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode())
        if sound is not None:
            length = max(frames, fps) / fps
            wave = 0.5 * np.sin(2 * np.pi * tone * np.arange(round(length * RATE)) / RATE)
            for start in range(0, len(wave), 1024):
                block = wave[None, start : start + 1024].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                frame.sample_rate = RATE
                frame.pts, frame.time_base = start + round(sound_start * RATE), Fraction(1, RATE)
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path

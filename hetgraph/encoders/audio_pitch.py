"""Sounds to nodes by their pitch, as a description of prosody."""

from __future__ import annotations

from typing import Any

import numpy as np

from hetgraph.errors import HetgraphError

from .audio import CHUNK, FLOOR, FrameEncoder, decibels
from .base import number


class Pitch(FrameEncoder):
    """Fundamental frequency, voicing and energy; ``dim = 3`` (6 with ``stack > 1``).

    * pitch: YIN's fundamental frequency on a logarithmic scale, -1 at ``low`` and 1 at ``high`` Hz; 0 where the
      frame is not voiced (voicing below 0.5).
    * voicing: normalised autocorrelation at the period, 0 (noise, silence) to 1 (periodic).
    * energy: mean square of the frame, as :func:`decibels`.

    A period needs more than a frame of 25 ms to show itself: pitch and voicing look at ``span`` seconds around
    the middle of each frame, with zeros beyond the ends of the sound.

    Args:
        rate, window, hop, stack, max_seconds: see :class:`FrameEncoder`.
        low, high: range of the pitch in Hz.
        span: seconds that the analysis looks at: at least two periods of ``low``, and a window.

    Raises:
        HetgraphError: a setting out of range, or a span that is too short.

    Source: de Cheveigné and Kawahara, YIN, Journal of the Acoustical Society of America, 2002.
    """

    def __init__(
        self,
        rate: int = 16_000,
        window: float = 0.025,
        hop: float = 0.010,
        stack: int = 1,
        low: float = 60.0,
        high: float = 500.0,
        span: float = 0.064,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(rate, window, hop, stack, max_seconds)
        self.high = number("Pitch", "high", high, 0, self.rate / 4)
        self.low = number("Pitch", "low", low, 0, self.high)
        self.span = number("Pitch", "span", span, 0, 10)
        self.span_samples = round(self.span * self.rate)
        needed = max(2 * self.rate / self.low + 4, self.window_samples)
        if self.low >= self.high or self.span_samples < needed:
            raise HetgraphError(
                f"Pitch: expected low < high and a span of at least {needed / self.rate:.4f} s (two periods of low, "
                f"and a window), got low {self.low}, high {self.high}, span {self.span}"
            )

    @property
    def frame_dim(self) -> int:
        return 3

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "low": self.low, "high": self.high, "span": self.span}

    def frames(self, sound: np.ndarray) -> np.ndarray:
        before = (self.span_samples - self.window_samples) // 2
        padded = np.pad(sound, (before, self.span_samples - self.window_samples - before))
        view = np.lib.stride_tricks.sliding_window_view
        spans = view(padded, self.span_samples)[:: self.hop_samples]
        windows = view(sound, self.window_samples)[:: self.hop_samples]
        parts = []
        for start in range(0, len(windows), CHUNK):
            pitch, voicing = self._periods(spans[start : start + CHUNK])
            power = np.mean(windows[start : start + CHUNK].astype(np.float64) ** 2, axis=1)
            parts.append(np.stack([pitch, voicing, decibels(power)], axis=1))
        return np.concatenate(parts)

    def _periods(self, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pitch and voicing ``[F]`` of stretches of sound ``[F, span_samples]``."""
        import librosa

        # Each stretch is its own signal of a single frame.
        hertz = librosa.yin(
            spans,
            fmin=self.low,
            fmax=self.high,
            sr=self.rate,
            frame_length=self.span_samples,
            hop_length=self.span_samples,
            center=False,
        )[:, 0]
        voicing = np.array([_periodicity(s, self.rate / f) for s, f in zip(spans, hertz, strict=True)])
        pitch = 2.0 * np.clip(np.log2(hertz / self.low) / np.log2(self.high / self.low), 0.0, 1.0) - 1.0
        return np.where(voicing >= 0.5, pitch, 0.0), voicing


def _periodicity(span: np.ndarray, period: float) -> float:
    """Correlation of a stretch of sound with itself one period later, 0..1; 0 where there is no sound."""
    lag = round(period)
    early, late = span[:-lag].astype(np.float64), span[lag:].astype(np.float64)
    size = float(np.sqrt((early @ early) * (late @ late)))
    if size < FLOOR * len(early):
        return 0.0
    return float(np.clip(early @ late / size, 0.0, 1.0))

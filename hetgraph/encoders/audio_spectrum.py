"""Sounds to nodes by their spectrum: energy in mel bands and cepstral coefficients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from hetgraph.errors import HetgraphError

from .audio import CHUNK, FrameEncoder, decibels
from .base import number, whole


class LogMel(FrameEncoder):
    """Energy in mel bands, logarithmic (:func:`decibels`); ``dim = bands`` (twice that with ``stack > 1``).

    Periodic Hann window, FFT of the next power of two, power spectrum, triangular mel filters of unit area
    (Slaney's), so that the numbers are librosa's ``melspectrogram``, ``10 log10``, divided by 50, plus 1.

    Args:
        rate, window, hop, stack, max_seconds: see :class:`FrameEncoder`.
        bands: how many mel bands.
        low, high: range of the bands in Hz; ``high`` None is half the rate.

    Raises:
        HetgraphError: a setting out of range, or more bands than frequency bins.
    """

    def __init__(
        self,
        rate: int = 16_000,
        bands: int = 40,
        window: float = 0.025,
        hop: float = 0.010,
        stack: int = 1,
        low: float = 0.0,
        high: float | None = None,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(rate, window, hop, stack, max_seconds)
        owner = type(self).__name__
        self.bands = whole(owner, "bands", bands, 1, 1024)
        self.high = None if high is None else number(owner, "high", high, 0, self.rate / 2)
        top = self.rate / 2 if self.high is None else self.high
        self.low = 0.0 if low == 0 else number(owner, "low", low, 0, top)
        if self.low >= top:
            raise HetgraphError(f"{owner}: low ({self.low} Hz) must lie below high ({top} Hz)")
        self._fft = 1 << (self.window_samples - 1).bit_length()
        bins = self._fft * (top - self.low) / self.rate
        if self.bands > bins:
            raise HetgraphError(
                f"{owner}: {self.bands} bands are more than the {bins:g} frequency bins of a {self.window} s window"
            )

    @property
    def frame_dim(self) -> int:
        return self.bands

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "bands": self.bands, "low": self.low, "high": self.high}

    def frames(self, sound: np.ndarray) -> np.ndarray:
        return np.concatenate([decibels(power @ self._filters.T) for power in self._spectra(sound)])

    @cached_property
    def _filters(self) -> np.ndarray:
        """Mel filters ``[bands, bins]``. At low frequencies a filter may fall between two bins; it stays empty."""
        import librosa

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return librosa.filters.mel(sr=self.rate, n_fft=self._fft, n_mels=self.bands, fmin=self.low, fmax=self.high)

    @cached_property
    def _hann(self) -> np.ndarray:
        return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window_samples) / self.window_samples)).astype(np.float32)

    def _spectra(self, sound: np.ndarray) -> Iterator[np.ndarray]:
        """Power spectra ``[frames, bins]``, CHUNK frames at a time."""
        windows = np.lib.stride_tricks.sliding_window_view(sound, self.window_samples)[:: self.hop_samples]
        for start in range(0, len(windows), CHUNK):
            yield np.abs(np.fft.rfft(windows[start : start + CHUNK] * self._hann, self._fft)) ** 2


class Mfcc(LogMel):
    """Mel-frequency cepstral coefficients; ``dim = n`` (twice that with ``stack > 1``).

    The first ``n`` coefficients of the orthonormal discrete cosine transform of :class:`LogMel`'s bands. They are
    librosa's ``mfcc`` divided by 50, but for coefficient 0, which is shifted by ``bands ** 0.5``.

    Args:
        n: how many coefficients, at most ``bands``.
        others: see :class:`LogMel`.

    Source: Davis and Mermelstein, IEEE Transactions on Acoustics, Speech, and Signal Processing, 1980.
    """

    def __init__(
        self,
        n: int = 20,
        rate: int = 16_000,
        bands: int = 40,
        window: float = 0.025,
        hop: float = 0.010,
        stack: int = 1,
        low: float = 0.0,
        high: float | None = None,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(rate, bands, window, hop, stack, low, high, max_seconds)
        self.n = whole("Mfcc", "n", n, 1, self.bands)

    @property
    def frame_dim(self) -> int:
        return self.n

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "n": self.n}

    def frames(self, sound: np.ndarray) -> np.ndarray:
        # cosines of the DCT-II, [bands, n]; the first is scaled to unit length like the others
        angles = np.pi / self.bands * (np.arange(self.bands)[:, None] + 0.5) * np.arange(self.n)
        cosines = np.cos(angles) * np.sqrt(2.0 / self.bands)
        cosines[:, 0] /= np.sqrt(2.0)
        return super().frames(sound) @ cosines

"""Reading one sound, whatever form it comes in, as mono samples at one rate."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from .media import Item, is_bytes, read_file, to_numpy

_LOWEST_RATE, _HIGHEST_RATE = 1_000, 1_000_000
_MOST_CHANNELS = 256
_LOUDEST = 100.0
_BLOCK = 1 << 20


def read_audio(item: Item, path: Path | None, rate: int, max_seconds: float | None) -> tuple[np.ndarray, bool]:
    """The sound as float32 ``[samples]`` at ``rate`` Hz, full scale being 1, and whether it was cut.

    Channels are averaged, then the sound is resampled (soxr, high quality). Of a WAV or MP3 file that ends too
    early libsndfile gives what is there; a cut FLAC or Ogg file is refused.

    Args:
        item: a file or bytes (WAV, FLAC, Ogg, MP3: whatever libsndfile reads), an ``(array, rate)`` pair, or an
            array ``[samples]`` or ``[samples, channels]`` that is at ``rate`` already. Floats are taken as they
            are, integers of 8, 16 and 32 bits are scaled to -1..1 (uint8 has its zero at 128).
        path: the file that the item stands for, if it does.
        rate: wanted samples per second.
        max_seconds: leave out what comes later than that.

    Raises:
        MediaError: unreadable, not a sound, without samples, NaN or infinite, or an array of another shape, type
            or range.
    """
    value = item.value
    if path is not None or is_bytes(value):
        data = read_file(path, item) if path is not None else bytes(value)
        sound, own_rate, cut = _decode(data, item, max_seconds)
    else:
        own_rate = rate
        if isinstance(value, tuple):
            value, own_rate = _pair(value, item)
        sound = sound_array(to_numpy(value, item), item)
        most = len(sound) if max_seconds is None else max(1, round(max_seconds * own_rate))
        sound, cut = sound[:most], len(sound) > most
    if not len(sound):
        raise item.error("the sound has no samples")
    peak = float(np.abs(sound).max())
    if not np.isfinite(peak):
        raise item.error("the sound has samples that are NaN or infinite")
    if peak > _LOUDEST:
        raise item.error(f"expected float samples of about -1 to 1, found {peak:g}; pass integers as integers")
    return _resampled(sound.mean(axis=1, dtype=np.float32), own_rate, rate), cut


def _decode(data: bytes, item: Item, max_seconds: float | None) -> tuple[np.ndarray, int, bool]:
    import soundfile

    if not data:
        raise item.error("expected a sound, got 0 bytes")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = checked_rate(file.samplerate, item)
            wanted = None if max_seconds is None else max(1, round(max_seconds * rate))
            # By blocks, because the header of a damaged file can announce any length.
            blocks, count = [], 0
            while wanted is None or count <= wanted:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
                if not len(block):
                    break
                blocks.append(block)
                count += len(block)
    except (soundfile.SoundFileError, RuntimeError, MemoryError) as error:
        reason = getattr(error, "error_string", str(error))
        raise item.error(f"expected a sound (WAV, FLAC, Ogg, MP3), but it cannot be decoded: {reason}") from error
    sound = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    return sound[:wanted], rate, wanted is not None and count > wanted


def _pair(value: tuple[Any, ...], item: Item) -> tuple[Any, int]:
    if len(value) != 2:
        raise item.error(f"expected a pair (samples, rate), got a tuple of {len(value)}")
    return value[0], checked_rate(value[1], item)


def checked_rate(rate: Any, item: Item) -> int:
    good = isinstance(rate, int | float | np.number) and not isinstance(rate, bool) and float(rate).is_integer()
    if not good or not _LOWEST_RATE <= float(rate) <= _HIGHEST_RATE:
        raise item.error(
            f"expected a rate of {_LOWEST_RATE} to {_HIGHEST_RATE} samples per second, as a whole number, got {rate!r}"
        )
    return int(float(rate))


def sound_array(array: np.ndarray, item: Item) -> np.ndarray:
    """An array as float32 ``[samples, channels]``."""
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= array.shape[1] <= _MOST_CHANNELS):
        raise item.error(
            f"expected samples [N] or [N, channels] with at most {_MOST_CHANNELS} channels, "
            f"got shape {list(array.shape)}"
        )
    array = array[:, None] if array.ndim == 1 else array
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused as such
            return array.astype(np.float32)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    if array.dtype.kind == "i" and array.dtype.itemsize in (1, 2, 4):
        return (array / float(2 ** (8 * array.dtype.itemsize - 1))).astype(np.float32)
    raise item.error(f"expected samples as floats, int8, int16, int32 or uint8, got {array.dtype}")


def _resampled(sound: np.ndarray, own_rate: int, rate: int) -> np.ndarray:
    if own_rate == rate:
        return sound
    import librosa

    return librosa.resample(sound, orig_sr=own_rate, target_sr=rate, res_type="soxr_hq")

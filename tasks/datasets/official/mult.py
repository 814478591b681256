"""CMU-MOSI, CMU-MOSEI and IEMOCAP as pickles of arrays, in the layout of MulT (Tsai et al., ACL 2019) and MMSA.

To download: ``mosi_data.pkl``, ``mosei_senti_data.pkl``, ``iemocap_data.pkl`` and their ``..._noalign.pkl`` as linked
by the repository yaohungt/Multimodal-Transformer, or ``aligned_50.pkl`` and ``unaligned_50.pkl`` (folder
``MOSI/Processed`` or ``MOSEI/Processed``) as linked by thuiar/MMSA. Each is a dictionary of ``train``, ``valid`` and
``test``, which are dictionaries of ``text`` [N, T, 300 or 768], ``audio`` [N, T, d], ``vision`` [N, T, d], ``labels``
(MulT) or ``regression_labels`` (MMSA) and, but for IEMOCAP, ``id``; MMSA adds ``raw_text``, ``text_bert``,
``audio_lengths``, ``vision_lengths`` and labels as classes.

A pickle is a program. These are read by :mod:`.safe_pickle`, which runs none. The audio features of some files hold
minus infinity; publications put zero in its place (:meth:`Part.finite`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import HetgraphError
from . import safe_pickle
from .layout import File, new, shown

TITLE = "MulT pickle"
HOMEPAGE = "https://github.com/yaohungt/Multimodal-Transformer, https://github.com/thuiar/MMSA"
PARTS = ("train", "valid", "test")
MODALITIES = ("text", "audio", "vision")
LABELS = ("labels", "regression_labels")


@dataclass(frozen=True, eq=False)
class Part:
    """N utterances.

    Attributes:
        id: of each, unique; where the file gives several values (video, start, end), joined by ``$_$`` as in MMSA;
            where it gives none (IEMOCAP), the part and a number.
        text, audio, vision: floats [N, T, d].
        labels: floats [N, ...].
        more: the other fields as they are in the file.
    """

    id: tuple[str, ...]
    text: np.ndarray
    audio: np.ndarray
    vision: np.ndarray
    labels: np.ndarray
    more: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.id)

    def finite(self, modality: str) -> np.ndarray:
        """A modality with zeros where the file has infinite values or none, float32."""
        if modality not in MODALITIES:
            raise HetgraphError(f"{TITLE}: modality must be one of {MODALITIES}, got {modality!r}")
        return np.nan_to_num(getattr(self, modality).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def read_pickle(path: Path) -> dict[str, Part]:
    """The three parts.

    Raises:
        HetgraphError: no file, it is damaged or more than data, a part or field is missing or of another form, or an
            utterance is there twice.
    """
    data = safe_pickle.load(TITLE, path)
    where = f"{TITLE}: {path}"
    if not isinstance(data, dict) or sorted(map(str, data)) != sorted(PARTS):
        got = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise HetgraphError(f"{where}: expected a dictionary of {PARTS}, got {shown(got)}")
    seen: dict[str, int] = {}
    return {name: _part(name, data[name], f"{where}: part {name!r}", seen) for name in PARTS}


def _part(part: str, data: Any, where: str, seen: dict[str, int]) -> Part:
    if not isinstance(data, dict):
        raise HetgraphError(f"{where} must be a dictionary, got {type(data).__name__}")
    label = next((name for name in LABELS if name in data), LABELS[0])
    absent = [name for name in (*MODALITIES, label) if name not in data]
    if absent:
        raise HetgraphError(f"{where}: fields {absent} are missing; there are {sorted(map(str, data))}")
    if not isinstance(data[label], np.ndarray) or not data[label].ndim:
        raise HetgraphError(f"{where}: field {label!r} must hold numbers [N, ...], got {type(data[label]).__name__}")
    given = data["id"] if "id" in data else [f"{part}-{i}" for i in range(len(data[label]))]
    if not isinstance(given, (list, tuple)) and np.ndim(given) == 0:
        raise HetgraphError(f"{where}: field 'id' must be a list or an array, got {shown(given)}")
    ids = tuple("$_$".join(map(_text, np.atleast_1d(np.asarray(row, object)).ravel())) for row in given)
    for name in ids:
        new(name, seen, where, "utterance")
    arrays = {}
    for name in (*MODALITIES, label):
        value = data[name]
        fits = isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.shape[:1] == (len(ids),)
        if not fits or (name in MODALITIES and value.ndim != 3):
            form = f"[{len(ids)}, T, d]" if name in MODALITIES else f"[{len(ids)}, ...]"
            got = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
            raise HetgraphError(f"{where}: field {name!r} must hold numbers {form}, got {got}")
        arrays[name] = value
    labels = arrays.pop(label)
    if not np.isfinite(labels).all():
        raise HetgraphError(
            f"{where}: field {label!r} of utterance {ids[int(np.argwhere(~np.isfinite(labels))[0, 0])]!r} is not finite"
        )
    more = {str(key): value for key, value in data.items() if key not in ("id", *MODALITIES, label)}
    return Part(ids, **arrays, labels=labels, more=more)


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


FILES = {
    "MOSI": ("mosi_data.pkl", "mosi_data_noalign.pkl"),
    "MOSEI": ("mosei_senti_data.pkl", "mosei_senti_data_noalign.pkl"),
    "IEMOCAP": ("iemocap_data.pkl", "iemocap_data_noalign.pkl"),
    "MMSA": ("aligned_50.pkl", "unaligned_50.pkl"),
}
LAYOUTS = {
    name: tuple(File(file, "parts", read_pickle, 3, needed=i == 0) for i, file in enumerate(files))
    for name, files in FILES.items()
}


class Pickle:
    """The parts of a file, which is read when the first is asked for; a pickle cannot be read in pieces."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def parts(self) -> dict[str, Part]:
        return read_pickle(self.path)

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each part, how many utterances."""
        return {name: {"utterances": len(part)} for name, part in self.parts.items()}


def read(folder: Path, *, file: str | None = None) -> Pickle:
    """A pickle of the folder.

    Args:
        folder: with one of the files named above, or any of that layout.
        file: its name; default: the first of those above that is there.

    Raises:
        HetgraphError: none is there.
    """
    names = [name for files in FILES.values() for name in files] if file is None else [file]
    found = next((name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise HetgraphError(f"{TITLE}: no file {' or '.join(names)} in {folder}")
    return Pickle(folder / found)

"""Readers for the official file formats of the field's data sets.

    from hetgraph.tasks import datasets

    data = datasets.open("msvd", "MSVD", videos="MSVD/YouTubeClips")
    data.part("test")[0]            # Caption(clip='...', caption='...', split='test', start=5.0, end=15.0, file=...)
    data.of(data.items[0])          # all captions of a clip

They give what the files hold, not samples of a graph. ``python -m hetgraph.tasks.datasets NAME FOLDER`` says what is
missing or damaged in a folder; ``docs/datasets.md`` says what to download from where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ....errors import HetgraphError
from .. import data_folder
from .layout import Finding, Layouts, findings, layout_of

__all__ = ["READERS", "Finding", "Reader", "Source", "missing", "open"]


class Source(Protocol):
    """What every reader gives, besides what is particular to it."""

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """How much there is of what, per part."""
        ...


@dataclass(frozen=True)
class Reader:
    """A reader by its module, which is imported when it is first used.

    Attributes:
        module: of this package; it has ``TITLE``, ``HOMEPAGE``, ``LAYOUTS`` and ``read(folder, **options)``.
        gives: what is read.
    """

    module: str
    gives: str

    def _get(self, name: str) -> Any:
        return getattr(import_module(f".{self.module}", __name__), name)

    @property
    def title(self) -> str:
        return self._get("TITLE")

    @property
    def homepage(self) -> str:
        """Where the files come from; the docstring of the module says more."""
        return self._get("HOMEPAGE")

    @property
    def layouts(self) -> Layouts:
        """The files, by layout; the first is the official one."""
        return self._get("LAYOUTS")

    def read(self, folder: Path, **options: Any) -> Any:
        return self._get("read")(folder, **options)


READERS: dict[str, Reader] = {
    "mosi_csd": Reader("csd", "features and intervals of videos (CMU Multimodal SDK)"),
    "mult": Reader("mult", "text, audio, vision and labels of utterances (MulT, MMSA)"),
    "msvd": Reader("msvd", "captions of clips"),
    "msrvtt": Reader("msrvtt", "captions of clips; the splits official and 1k-A"),
    "lsmdc": Reader("lsmdc", "sentences of clips of films"),
    "msrc_mat": Reader("msrc_mat", "five views and a label of pictures"),
    "daquar": Reader("daquar", "questions about photographs of rooms"),
    "vqa_rad": Reader("vqa_rad", "questions about radiology pictures; the splits official and image-disjoint"),
    "shapes": Reader("shapes", "yes/no questions about pictures of shapes, with the pictures"),
    "wikipedia": Reader("wikipedia", "pairs of text and picture features with a category"),
    "coco": Reader("coco", "captions and boxes of photographs"),
    "vqa2": Reader("vqa2", "questions about photographs, each with ten answers"),
    "gqa": Reader("gqa", "questions about photographs, and scene graphs"),
}


def _reader(name: str) -> Reader:
    if name not in READERS:
        raise HetgraphError(f"unknown reader {name!r}; known: {', '.join(READERS)}")
    return READERS[name]


def open(name: str, folder: str | Path | None = None, **options: Any) -> Any:
    """What the official files of a data set hold, read when it is asked for.

    Args:
        name: a key of ``READERS``.
        folder: where the files lie; default: the folder ``name`` in ``$HETGRAPH_DATA``.
        options: of the reader, such as ``videos``, ``images`` or ``split``; see ``read`` in its module.

    Returns:
        A :class:`Source`; for captions and questions :class:`Parts <.parts.Parts>`.

    Raises:
        HetgraphError: an unknown name or option, or no folder. What is wrong with a file comes when it is read.
    """
    reader = _reader(name)
    return reader.read(data_folder(name, folder), **options)


def missing(name: str, folder: str | Path | None = None) -> list[Finding]:
    """What is wrong with the files in a folder: missing, damaged, or not holding as much as the official ones.

    The layout is the one of the reader's of which most files are there. Every file is read whole; files that are wrong
    together only (a caption of an unknown clip) are found by reading.

    Raises:
        HetgraphError: an unknown name, or no folder.
    """
    reader, path = _reader(name), data_folder(name, folder)
    return findings(path, reader.layouts[layout_of(path, reader.layouts)])

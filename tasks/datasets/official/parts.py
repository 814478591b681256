"""Captions and questions in parts (train, validation, test), each read when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from ....errors import HetgraphError
from .layout import new

VIDEOS = (".mp4", ".avi", ".webm", ".mkv")
IMAGES = (".jpg", ".png", ".jpeg", ".bmp")


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption of a clip of a video, or of a picture.

    Attributes:
        clip: id of what it describes.
        caption: the text as it is in the file.
        split: the part it is in.
        start, end: seconds in the video that the clip was cut from; None where the file does not say.
        file: the clip's own file, if a folder with videos was given and it is there.
    """

    clip: str
    caption: str
    split: str
    start: float | None = None
    end: float | None = None
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a picture.

    Attributes:
        id: no other question of the data set has it.
        image: id of the picture.
        question: the text as it is in the file.
        answers: the answers: one, several that are right together, or one of each person that was asked; none where
            they are not published.
        split: the part it is in.
        file: the picture's file, if a folder with pictures was given and it is there.
        more: what the data set says besides.
    """

    id: str
    image: str
    question: str
    answers: tuple[str, ...]
    split: str
    file: Path | None = None
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


R = TypeVar("R", Caption, Question)


class Media:
    """The files below a folder, listed when the first is looked for.

    Raises:
        HetgraphError: no such folder.
    """

    def __init__(self, title: str, folder: str | Path, endings: Sequence[str]) -> None:
        self.title, self.folder, self.endings = title, Path(folder), tuple(endings)
        if not self.folder.is_dir():
            raise HetgraphError(f"{title}: no folder {folder}")

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() in self.endings and path.is_file():
                for name in (path.name, path.stem):
                    files.setdefault(name, []).append(path)
        return files

    def find(self, name: str) -> Path | None:
        """The file that is called ``name``, with or without its ending.

        Raises:
            HetgraphError: there are several.
        """
        found = self._files.get(name, [])
        if len(found) > 1:
            raise HetgraphError(f"{self.title}: {name!r} is {found[0]}, but also {found[1]}")
        return found[0] if found else None


def locate(media: Media | None, name: str) -> Path | None:
    """The file of a clip or picture; None if there is none, or nowhere to look."""
    return None if media is None else media.find(name)


class Parts(Sequence[R], Generic[R]):
    """Records in parts. Indices count through the parts in their order; nothing is read before it is asked for.

    Args:
        title: of the data set, for messages.
        loaders: gives the records of each part.
        unit, things: what a record is, and what it is about, in the plural.
        media: where the files of pictures or clips are looked for.
    """

    def __init__(
        self,
        title: str,
        loaders: Mapping[str, Callable[[], Sequence[R]]],
        unit: str,
        things: str,
        media: Media | None = None,
    ) -> None:
        self.title, self.unit, self.things, self.media = title, unit, things, media
        self._loaders: dict[str, Callable[[], Sequence[R]]] = dict(loaders)
        self._loaded: dict[str, tuple[R, ...]] = {}

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._loaders)

    def part(self, name: str) -> tuple[R, ...]:
        """The records of a part.

        Raises:
            HetgraphError: no such part, or a file is missing or damaged.
        """
        if name not in self._loaders:
            raise HetgraphError(f"{self.title}: unknown part {name!r}; known: {', '.join(self._loaders)}")
        if name not in self._loaded:
            self._loaded[name] = tuple(self._loaders[name]())
        return self._loaded[name]

    @cached_property
    def _all(self) -> tuple[R, ...]:
        everything = tuple(record for name in self._loaders for record in self.part(name))
        seen: dict[str, int] = {}
        for record in everything:
            if isinstance(record, Question):
                new(record.id, seen, f"{self.title}: part {record.split!r}", "question")
        return everything

    @cached_property
    def _index(self) -> dict[str, list[R]]:
        index: dict[str, list[R]] = {}
        for record in self._all:
            index.setdefault(_item(record), []).append(record)
        return index

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, at: int) -> R: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[R, ...]: ...
    def __getitem__(self, at: int | slice) -> R | tuple[R, ...]:
        return self._all[at]

    def __iter__(self) -> Iterator[R]:
        return iter(self._all)

    @property
    def items(self) -> tuple[str, ...]:
        """The clips or pictures, in order of appearance."""
        return tuple(self._index)

    def of(self, item: str) -> tuple[R, ...]:
        """The records of a clip or a picture, whatever their part.

        Raises:
            HetgraphError: nothing is known of it.
        """
        if item not in self._index:
            raise HetgraphError(f"{self.title}: no {self.unit} of {item!r}")
        return tuple(self._index[item])

    def unfound(self) -> tuple[str, ...]:
        """The clips or pictures whose file is not in the folder that was given.

        Raises:
            HetgraphError: no folder was given.
        """
        if self.media is None:
            raise HetgraphError(f"{self.title}: no folder with the clips or pictures was given")
        return tuple(item for item, records in self._index.items() if records[0].file is None)

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each part, how many records and how many clips or pictures."""
        return {
            name: {self.unit: len(self.part(name)), self.things: len({_item(r) for r in self.part(name)})}
            for name in self.parts
        }


def _item(record: Caption | Question) -> str:
    return record.clip if isinstance(record, Caption) else record.image

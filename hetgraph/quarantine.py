"""Media that could not be read, put aside with the reason: the rest goes on, and nothing is lost silently."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from .encoders import Nodes
from .errors import MediaError
from .files import write_atomically


@dataclass(frozen=True)
class Unreadable:
    """One medium that could not be read. ``path`` is None where the manifest holds the content itself."""

    sample: str
    column: str
    path: str | None
    reason: str


@dataclass
class Quarantine:
    """What was put aside.

    Attributes:
        found: the media, in the order of the samples.
        left_out: samples with nothing else, which therefore take no part.
    """

    found: list[Unreadable] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.found)

    def write(self, path: str | Path) -> None:
        """The report: JSON Lines with sample, column, path and reason. With nothing found, an old one is removed."""
        if self.found:
            write_atomically(path, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in self.found))
        else:
            Path(path).unlink(missing_ok=True)

    def summary(self) -> str:
        """One line for the user."""
        count = len(self.found)
        text = f"{count} {'medium' if count == 1 else 'media'} could not be read"
        if self.left_out:
            text += f"; {len(self.left_out)} sample{'s' * (len(self.left_out) > 1)} had nothing else and took no part"
        return text


class Reader(Protocol):
    """What an encoder and its cache have in common."""

    @property
    def path_of(self) -> Callable[[Any], Path | None]: ...

    def __call__(self, items: Sequence[Any], names: Sequence[str], /) -> list[Nodes]: ...


def encode_readable(
    encoder: Reader,
    items: Sequence[Any],
    samples: Sequence[str],
    column: str,
    aside: Callable[[Unreadable], object] | None,
) -> list[Nodes | None]:
    """The nodes of each item, None where it cannot be read; those are given to ``aside``, in order.

    Halves are tried until the unreadable ones are alone, so that the others still go through a network together.

    Raises:
        MediaError: an item cannot be read and ``aside`` is None; the message names sample, column and file.
    """
    names = [f"sample {name!r}: {column}" for name in samples]
    try:
        return list(encoder(items, names))
    except MediaError as error:
        if aside is None:
            raise
        if len(items) == 1:
            value = items[0]
            file = encoder.path_of(value) if isinstance(value, str | PathLike) else None
            reason = str(error).removeprefix(f"{names[0]}: ").removeprefix(f"{str(file)!r}: ")
            aside(Unreadable(samples[0], column, None if file is None else str(file), reason))
            return [None]
    half = len(items) // 2
    return encode_readable(encoder, items[:half], samples[:half], column, aside) + encode_readable(
        encoder, items[half:], samples[half:], column, aside
    )

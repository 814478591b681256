"""Words with times to nodes: the tokens of any encoder of texts, each with the time in which it is spoken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hetgraph.errors import HetgraphError

from .base import Encoder, Nodes, fingerprint_with
from .media import Item

Word = tuple[str, float, float]


def text_of_words(words: Sequence[Mapping[str, Any]]) -> str:
    """The words with a space between them: what ``span`` counts the characters of."""
    return " ".join(str(word["word"]).strip() for word in words)


class TimedWords(Encoder):
    """What is said, and when: the nodes of an encoder of texts, with the field ``time [N, 2]`` in seconds.

    Items are lists of ``{"word": "dog", "start": 0.4, "end": 0.75}``, as recognisers of speech give them, in their
    order; further entries are left alone. The text is the words with a space between them. A node has the time from
    the start of the first to the end of the last word that it touches. Texts in any form the inner encoder takes are
    items too; their times are not known (NaN).

    Args:
        text: encoder of texts with the field ``span``.

    Raises:
        HetgraphError: ``text`` is no encoder of texts.
    """

    nested = ("text",)

    def __init__(self, text: Encoder) -> None:
        if not isinstance(text, Encoder) or text.fields.get("span") != 2 or "time" in text.fields:
            raise HetgraphError(f"TimedWords: expected an encoder of texts as text, got {text!r}")
        self.text = text
        self.dim = text.dim
        self.fields = {**text.fields, "time": 2}

    def settings(self) -> dict[str, Any]:
        return {"text": self.text.config()}

    @property
    def fingerprint(self) -> str:
        return fingerprint_with(super().fingerprint, self.inside)

    def path_of(self, value: Any) -> Path | None:
        return None if isinstance(value, list) else self.text.path_of(value)

    def digest(self, item: Item) -> str:
        if not isinstance(item.value, list):
            return self.text.digest(item)
        return hashlib.sha256(b"words\0" + json.dumps(_words(item)).encode("utf-8", "surrogatepass")).hexdigest()

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        from hetgraph.relations import word_times

        timed = [_words(item) if isinstance(item.value, list) else [] for item in items]
        texts = [
            Item(" ".join(word for word, *_ in words) if isinstance(item.value, list) else item.value, item.name)
            for item, words in zip(items, timed, strict=True)
        ]
        return [
            {**nodes, "time": word_times(nodes["span"], _spans(words))}
            for nodes, words in zip(self.text.run(texts), timed, strict=True)
        ]


def _words(item: Item) -> list[Word]:
    from hetgraph.manifest import is_words

    if not item.value or not is_words(item.value):
        raise item.error(f'expected words as [{{"word": "a", "start": 0.0, "end": 0.5}}, ...], got {item.value!r:.200}')
    return [(one["word"].strip(), float(one["start"]), float(one["end"])) for one in item.value]


def _spans(words: Sequence[Word]) -> list[tuple[int, int, float, float]]:
    """First and last character of each word in the text, and its times."""
    found, place = [], 0
    for word, start, end in words:
        found.append((place, place + len(word), start, end))
        place += len(word) + 1
    return found

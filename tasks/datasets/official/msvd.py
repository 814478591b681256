"""MSVD, the Microsoft Research Video Description Corpus (Chen & Dolan, ACL 2011): 1,970 short clips, about 41 English
captions each.

To download: ``AllVideoDescriptions.txt`` (English captions) and ``YouTubeClips.tar`` (the clips, ``<clip>.avi``) from
the project page "Collecting Multilingual Parallel Video Descriptions" of the University of Texas at Austin, or the
"Microsoft Research Video Description Corpus" of the Microsoft Download Center, a table with all languages
(``video_corpus.csv``: VideoID, Start, End, WorkerID, Source, AnnotationTime, Language, Description). The corpus has no
split. The one in use (Venugopalan et al., NAACL 2015) goes by the numbers of ``youtube_mapping.txt``, which comes with
the clips: vid1 .. vid1200 train, vid1201 .. vid1300 validation, the others test.
"""

from __future__ import annotations

import re
from functools import cache, partial
from pathlib import Path

from ....errors import HetgraphError
from .layout import File, layout_of, lines, new, shown, table
from .parts import VIDEOS, Caption, Media, Parts, locate

TITLE = "MSVD"
HOMEPAGE = "https://www.cs.utexas.edu/users/ml/clamp/videoDescription/"
PARTS = {"train": 1200, "val": 1300, "test": 1970}
"""The last number of each part."""

COLUMNS = ("VideoID", "Start", "End", "Language", "Description")
_CLIP = re.compile(r"(?P<video>\S+)_(?P<start>\d+)_(?P<end>\d+)")


def read_descriptions(path: Path) -> dict[str, list[str]]:
    """``AllVideoDescriptions.txt``: the captions of each clip. Lines that begin with ``#`` are remarks.

    Raises:
        HetgraphError: no file, or a line is not ``<video>_<start>_<end> <caption>``.
    """
    captions: dict[str, list[str]] = {}
    for number, line in lines(TITLE, path):
        if line.startswith("#"):
            continue
        clip, _, caption = line.partition(" ")
        where = f"{TITLE}: {path}: line {number}"
        seconds(clip, where)
        if not caption.strip():
            raise HetgraphError(f"{where}: expected '<video>_<start>_<end> <caption>', got {shown(line)}")
        captions.setdefault(clip, []).append(caption.strip())
    return captions


def read_corpus(path: Path) -> dict[str, list[str]]:
    """``video_corpus.csv``: the English captions of each clip; empty ones are left out. Some of its clips are not among
    the 1,970, because their video was gone.

    Raises:
        HetgraphError: no file, a column is missing, or a row is damaged.
    """
    captions: dict[str, list[str]] = {}
    for number, row in table(TITLE, path, COLUMNS, strict=False):
        clip = f"{row['VideoID']}_{row['Start']}_{row['End']}"
        seconds(clip, f"{TITLE}: {path}: line {number}")
        if row["Language"] == "English" and row["Description"].strip():
            captions.setdefault(clip, []).append(row["Description"].strip())
    return captions


def read_mapping(path: Path) -> dict[str, str]:
    """``youtube_mapping.txt``: clip -> ``vid<number>``.

    Raises:
        HetgraphError: no file, a line is not ``<clip> vid<number>``, or a clip or number is there twice.
    """
    mapping: dict[str, str] = {}
    clips: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for number, line in lines(TITLE, path):
        where = f"{TITLE}: {path}: line {number}"
        match = re.fullmatch(r"(\S+) (vid[1-9]\d*)", line.strip())
        if match is None or int(match[2][3:]) > PARTS["test"]:
            raise HetgraphError(f"{where}: expected '<clip> vid<1 .. {PARTS['test']}>', got {shown(line)}")
        seconds(match[1], where)
        new(match[1], clips, where, "clip")
        new(match[2], numbers, where, "number")
        mapping[match[1]] = match[2]
    return mapping


def seconds(clip: str, where: str) -> tuple[float, float]:
    """Where in its video a clip begins and ends.

    Raises:
        HetgraphError: the name does not say it, or it ends before it begins.
    """
    match = _CLIP.fullmatch(clip)
    if match is None or int(match["end"]) < int(match["start"]):
        raise HetgraphError(f"{where}: expected a clip '<video>_<start>_<end>' in whole seconds, got {shown(clip)}")
    return float(match["start"]), float(match["end"])


_MAPPING = File("youtube_mapping.txt", "clips", read_mapping, 1970)
LAYOUTS = {
    "text": (File("AllVideoDescriptions.txt", "clips", read_descriptions, 1970), _MAPPING),
    "table": (File("video_corpus.csv", "clips", read_corpus), _MAPPING),
}


def read(folder: Path, *, videos: str | Path | None = None) -> Parts[Caption]:
    """The captions in the parts train, val and test.

    Args:
        folder: with ``youtube_mapping.txt`` and one of the two files with captions.
        videos: folder with the clips, called by their id or by ``vid<number>``.
    """
    media = None if videos is None else Media(TITLE, videos, VIDEOS)

    @cache
    def mapping() -> dict[str, str]:
        return read_mapping(folder / _MAPPING.name)

    @cache
    def captions() -> dict[str, list[str]]:
        if layout_of(folder, LAYOUTS) == "text":
            found = read_descriptions(folder / "AllVideoDescriptions.txt")
            absent = [clip for clip in found if clip not in mapping()]
            if absent:
                raise HetgraphError(f"{TITLE}: clip {absent[0]!r} has captions, but is not in {folder / _MAPPING.name}")
            return found
        found = read_corpus(folder / "video_corpus.csv")
        return {clip: texts for clip, texts in found.items() if clip in mapping()}

    def part(name: str) -> list[Caption]:
        found = []
        for clip, texts in captions().items():
            vid = mapping()[clip]
            if split_of(vid) == name:
                start, end = seconds(clip, TITLE)
                file = locate(media, clip) or locate(media, vid)
                found += [Caption(clip, text, name, start, end, file) for text in texts]
        return found

    return Parts(TITLE, {name: partial(part, name) for name in PARTS}, "captions", "clips", media)


def split_of(vid: str) -> str:
    """The part of ``vid<number>``."""
    return next(name for name, last in PARTS.items() if int(vid[3:]) <= last)

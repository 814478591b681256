"""MSR-VTT (Xu et al., CVPR 2016): 10,000 clips of 10 to 30 s, 20 English captions each.

To download: ``train_val_videodatainfo.json`` and ``test_videodatainfo.json`` from the page of the MSR-VTT challenge
2016, with the clips ``video0.mp4`` .. ``video9999.mp4``. Many publications read the same records from one file,
``MSRVTT_data.json``. The usual retrieval split "1k-A" (Yu et al., JSFusion, ECCV 2018) adds two lists:
``MSRVTT_JSFUSION_test.csv`` (key, vid_key, video_id, sentence: 1,000 clips with one caption each) and
``MSRVTT_train.9k.csv`` (video_id: the 9,000 other clips).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from ....errors import HetgraphError
from .json_records import records
from .layout import NUMBER, TEXT, File, layout_of, new, shown, table, take
from .parts import VIDEOS, Caption, Media, Parts, locate

TITLE = "MSR-VTT"
HOMEPAGE = "http://ms-multimedia-challenge.com/2016/dataset"
PARTS = ("train", "validate", "test")
SPLITS = ("official", "1k-A")


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip: the part it is in, its seconds in the video it was cut from, and its captions."""

    id: str
    split: str
    start: float
    end: float
    captions: list[str]


def read_info(path: Path) -> dict[str, Clip]:
    """The clips of a ``videodatainfo`` file with their captions.

    Raises:
        HetgraphError: no file, it is damaged, a clip is there twice or in an unknown part, or a caption is of an
            unknown clip.
    """
    clips: dict[str, Clip] = {}
    seen: dict[str, int] = {}
    sentences: list[tuple[str, str, str]] = []
    for key, number, record in records(TITLE, path):
        where = f"{TITLE}: {path}: record {number} of {key!r}"
        if key == "videos":
            name, split = take(record, "video_id", TEXT, where), take(record, "split", TEXT, where)
            start, end = (float(take(record, field, NUMBER, where)) for field in ("start time", "end time"))
            new(name, seen, where, "clip")
            if split not in PARTS:
                raise HetgraphError(f"{where}: field 'split' must be one of {PARTS}, got {shown(split)}")
            if not 0 <= start < end:
                raise HetgraphError(f"{where}: fields 'start time' and 'end time' must be in order, got {start}, {end}")
            clips[name] = Clip(name, split, start, end, [])
        elif key == "sentences":
            # in some copies the captions come before the clips
            sentences.append((take(record, "video_id", TEXT, where), take(record, "caption", TEXT, where), where))
    if not clips or not sentences:
        raise HetgraphError(f"{TITLE}: {path}: expected records in 'videos' and 'sentences', got none")
    for name, caption, where in sentences:
        if name not in clips:
            raise HetgraphError(f"{where}: field 'video_id' must be one of 'videos', got {shown(name)}")
        clips[name].captions.append(caption)
    return clips


def read_test_1k(path: Path) -> dict[str, str]:
    """``MSRVTT_JSFUSION_test.csv``: clip -> its one caption.

    Raises:
        HetgraphError: no file, a column is missing, or a clip is there twice.
    """
    captions: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, row in table(TITLE, path, ("key", "vid_key", "video_id", "sentence")):
        new(row["video_id"], seen, f"{TITLE}: {path}: line {number}", "clip")
        captions[row["video_id"]] = row["sentence"]
    return captions


def read_train_9k(path: Path) -> list[str]:
    """``MSRVTT_train.9k.csv``: the clips to train on.

    Raises:
        HetgraphError: no file, the column is missing, or a clip is there twice.
    """
    seen: dict[str, int] = {}
    for number, row in table(TITLE, path, ("video_id",)):
        new(row["video_id"], seen, f"{TITLE}: {path}: line {number}", "clip")
    return list(seen)


TEST_1K, TRAIN_9K = "MSRVTT_JSFUSION_test.csv", "MSRVTT_train.9k.csv"
_LISTS = (
    File(TEST_1K, "clips", read_test_1k, 1000, needed=False),
    File(TRAIN_9K, "clips", read_train_9k, 9000, needed=False),
)
LAYOUTS = {
    "official": (
        File("train_val_videodatainfo.json", "clips", read_info, 7010),
        File("test_videodatainfo.json", "clips", read_info, 2990),
        *_LISTS,
    ),
    "one file": (File("MSRVTT_data.json", "clips", read_info, 10000), *_LISTS),
    "one file, first name": (File("videodatainfo_2016.json", "clips", read_info, 10000), *_LISTS),
}


def read(folder: Path, *, videos: str | Path | None = None, split: str = "official") -> Parts[Caption]:
    """The captions in the parts train, validate, test (``official``) or train, test (``1k-A``).

    In ``1k-A`` a training clip has all of its captions, a test clip the one that the list gives. The clips of its
    test part are official test clips in part only, so that one split must not be tested with a model of the other.

    Args:
        folder: with the file or files of clips; for 1k-A with the two lists.
        videos: folder with the clips.
        split: a name of ``SPLITS``.

    Raises:
        HetgraphError: another split.
    """
    if split not in SPLITS:
        raise HetgraphError(f"{TITLE}: split must be one of {SPLITS}, got {split!r}")
    media = None if videos is None else Media(TITLE, videos, VIDEOS)

    @cache
    def clips() -> dict[str, Clip]:
        paths = [folder / file.name for file in LAYOUTS[layout_of(folder, LAYOUTS)] if file.needed]
        found: dict[str, Clip] = {}
        seen: dict[str, int] = {}
        # a folder may hold one of the two official files
        for path in [path for path in paths if path.is_file()] or paths[:1]:
            own = read_info(path)
            for name in own:
                new(name, seen, f"{TITLE}: {path}", "clip")
            found |= own
        return found

    def captions(name: str, split: str, texts: Sequence[str] | None = None) -> list[Caption]:
        if name not in clips():
            raise HetgraphError(f"{TITLE}: clip {name!r} is in a list of 1k-A, but in no file with clips in {folder}")
        clip, file = clips()[name], locate(media, name)
        own = clip.captions if texts is None else texts
        return [Caption(name, text, split, clip.start, clip.end, file) for text in own]

    def official(part: str) -> list[Caption]:
        names = [name for name, clip in clips().items() if clip.split == part]
        return [caption for name in names for caption in captions(name, part)]

    def train_9k() -> list[Caption]:
        both = set(names := read_train_9k(folder / TRAIN_9K)) & set(read_test_1k(folder / TEST_1K))
        if both:
            raise HetgraphError(f"{TITLE}: clip {min(both)!r} is in {TRAIN_9K} and in {TEST_1K}")
        return [caption for name in names for caption in captions(name, "train")]

    def test_1k() -> list[Caption]:
        return [c for name, text in read_test_1k(folder / TEST_1K).items() for c in captions(name, "test", [text])]

    if split == "1k-A":
        return Parts(TITLE, {"train": train_9k, "test": test_1k}, "captions", "clips", media)
    return Parts(TITLE, {part: partial(official, part) for part in PARTS}, "captions", "clips", media)

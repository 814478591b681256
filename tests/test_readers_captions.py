"""Captions of MSVD, MSR-VTT, LSMDC and COCO: genuine samples, small files of their layouts, and damaged ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from readers import genuine, put

from hetgraph.errors import HetgraphError
from hetgraph.tasks import datasets
from hetgraph.tasks.datasets import official
from hetgraph.tasks.datasets.official import coco, lsmdc, msrvtt, msvd
from hetgraph.tasks.datasets.official.parts import Caption

# MSVD

DESCRIPTIONS = """# remarks: who collected this

# and when
abc_1_2_5_15 A cat sits.
abc_1_2_5_15 A cat, sitting.
-x_0_3 A dog's walk.
y_7_9 Rain.
"""
MAPPING = "abc_1_2_5_15 vid1\n-x_0_3 vid1201\ny_7_9 vid1301\nz_0_1 vid1970\n"
CORPUS = """VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description
abc_1_2,5,15,1,clean,10,English,A cat sits.
abc_1_2,5,15,2,clean,10,German,Eine Katze.
abc_1_2,5,15,3,unverified,10,English,"A cat, sitting."
-x,0,3,1,clean,10,English,A dog's walk.
-x,0,3,1,clean,10,English,
y,7,9,1,clean,10,English,Rain.
gone,7,9,1,clean,10,English,Not among the clips with a number.
"""
CAPTIONS = [
    Caption("abc_1_2_5_15", "A cat sits.", "train", 5.0, 15.0),
    Caption("abc_1_2_5_15", "A cat, sitting.", "train", 5.0, 15.0),
    Caption("-x_0_3", "A dog's walk.", "val", 0.0, 3.0),
    Caption("y_7_9", "Rain.", "test", 7.0, 9.0),
]


@pytest.mark.parametrize("files", [{"AllVideoDescriptions.txt": DESCRIPTIONS}, {"video_corpus.csv": CORPUS}])
def test_msvd_is_the_same_from_both_layouts(tmp_path, files) -> None:
    data = datasets.open("msvd", put(tmp_path, files | {"youtube_mapping.txt": MAPPING}))
    assert list(data) == CAPTIONS
    assert [c.caption for c in data.of("abc_1_2_5_15")] == ["A cat sits.", "A cat, sitting."]
    assert data.counts()["train"] == {"captions": 2, "clips": 1}
    found = {(f.file, f.fault) for f in official.missing("msvd", tmp_path)}
    assert found - {("AllVideoDescriptions.txt", "size")} == {("youtube_mapping.txt", "size")}


def test_msvd_finds_clips_by_either_name(tmp_path) -> None:
    put(tmp_path, {"AllVideoDescriptions.txt": DESCRIPTIONS, "youtube_mapping.txt": MAPPING})
    put(tmp_path / "clips", {"abc_1_2_5_15.avi": "", "vid1201.mp4": ""})
    data = datasets.open("msvd", tmp_path, videos=tmp_path / "clips")
    assert [c.file and c.file.name for c in data] == ["abc_1_2_5_15.avi"] * 2 + ["vid1201.mp4", None]
    assert data.unfound() == ("y_7_9",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "AllVideoDescriptions.txt",
            "a_1_2 fine\nabc A cat.",
            r"line 2: expected a clip '<video>_<start>_<end>'.*'abc'",
        ),
        ("AllVideoDescriptions.txt", "a_1_2", "line 1: expected '<video>_<start>_<end> <caption>', got 'a_1_2'"),
        ("AllVideoDescriptions.txt", "a_2_1 fine", "line 1: expected a clip"),
        ("AllVideoDescriptions.txt", "a_1_2 fine", "clip 'a_1_2' has captions, but is not in .*youtube_mapping.txt"),
        ("video_corpus.csv", CORPUS.replace("Language", "Lang"), r"lacks the columns \['Language'\]"),
        ("video_corpus.csv", CORPUS.replace(",7,9,", ",7,nine,"), "line 7: expected a clip"),
        ("video_corpus.csv", CORPUS + "y,7", "line 9: expected 8 cells, got 2"),
        ("youtube_mapping.txt", MAPPING + "q_1_2 vid1971", "line 5: expected '<clip> vid<1 .. 1970>'"),
        ("youtube_mapping.txt", MAPPING + "q_1_2 vid1", "line 5: number 'vid1' is there twice, before as number 1"),
        ("youtube_mapping.txt", MAPPING + "y_7_9 vid9", "line 5: clip 'y_7_9' is there twice, before as number 3"),
    ],
)
def test_damaged_msvd_is_refused_with_the_line(tmp_path, name, content, message) -> None:
    files = {"youtube_mapping.txt": MAPPING, name: content}
    if name == "youtube_mapping.txt":
        files["AllVideoDescriptions.txt"] = DESCRIPTIONS
    with pytest.raises(HetgraphError, match=f"MSVD: .*{message}"):
        len(datasets.open("msvd", put(tmp_path, files)))


def test_the_genuine_msvd_sample_and_split(tmp_path) -> None:
    folder = genuine("video_caption_formats")
    mapping = json.loads((folder / "msvd_youtube_mapping.json").read_text())
    captions = json.loads((folder / "msvd_captions_sample.json").read_text())
    splits = json.loads((folder / "msvd_splits.json").read_text())
    lines = [f"{clip} {text}\n" for clip, texts in captions.items() for text in texts]
    put(
        tmp_path,
        {
            "AllVideoDescriptions.txt": "# remark\n" + "".join(lines),
            "youtube_mapping.txt": "".join(f"{clip} {vid}\n" for clip, vid in mapping.items()),
        },
    )
    data = datasets.open("msvd", tmp_path)
    assert {clip: [c.caption for c in data.of(clip)] for clip in data.items} == captions
    assert len(data) == 5131
    # the split by number is the one that publications list
    own = {part: {clip for clip, vid in mapping.items() if msvd.split_of(vid) == part} for part in msvd.PARTS}
    assert own == {part: set(clips) for part, clips in splits.items()}
    for part in msvd.PARTS:
        assert {c.clip for c in data.part(part)} == set(splits[part]) & set(captions)
    found = msvd.read_descriptions(folder / "msvd_AllVideoDescriptions_sample.txt")
    assert found == {clip: captions[clip] for clip in found}
    assert len(found) == 20


# MSR-VTT


def info(*videos: tuple[str, str], captions: int = 2) -> dict[str, Any]:
    return {
        "info": {"version": "1.0"},
        "videos": [
            {"category": 1, "url": "", "video_id": v, "start time": i, "end time": i + 9.5, "split": split, "id": i}
            for i, (v, split) in enumerate(videos)
        ],
        "sentences": [{"caption": f"{v} {i}", "video_id": v, "sen_id": i} for v, _ in videos for i in range(captions)],
    }


TRAINING = info(("video0", "train"), ("video1", "train"), ("video2", "validate"))
TESTING = info(("video3", "test"))
LISTS = {
    "MSRVTT_JSFUSION_test.csv": 'key,vid_key,video_id,sentence\n0,msr3,video3,"a cat, sitting"\n1,msr1,video1,rain\n',
    "MSRVTT_train.9k.csv": "video_id\nvideo2\nvideo0\n",
}


def test_msrvtt_is_the_same_from_one_file_and_from_two(tmp_path) -> None:
    two = put(tmp_path / "two", {"train_val_videodatainfo.json": TRAINING, "test_videodatainfo.json": TESTING})
    both = {key: TRAINING[key] + TESTING[key] for key in ("videos", "sentences")}
    # in some copies the captions come first
    one = put(tmp_path / "one", {"MSRVTT_data.json": dict(reversed(both.items()))})
    data = datasets.open("msrvtt", two)
    assert list(data) == list(datasets.open("msrvtt", one))
    assert data.part("validate") == (
        Caption("video2", "video2 0", "validate", 2.0, 11.5),
        Caption("video2", "video2 1", "validate", 2.0, 11.5),
    )
    assert data.counts() == {
        "train": {"captions": 4, "clips": 2},
        "validate": {"captions": 2, "clips": 1},
        "test": {"captions": 2, "clips": 1},
    }
    (two / "train_val_videodatainfo.json").unlink()
    assert len(datasets.open("msrvtt", two).part("test")) == 2


def test_the_retrieval_split_takes_all_training_captions_and_one_of_each_test_clip(tmp_path) -> None:
    put(tmp_path, {"train_val_videodatainfo.json": TRAINING, "test_videodatainfo.json": TESTING, **LISTS})
    put(tmp_path / "clips", {"video3.mp4": ""})
    data = datasets.open("msrvtt", tmp_path, split="1k-A", videos=tmp_path / "clips")
    assert data.parts == ("train", "test")
    assert [c.caption for c in data.part("train")] == ["video2 0", "video2 1", "video0 0", "video0 1"]
    assert data.part("test") == (
        Caption("video3", "a cat, sitting", "test", 0.0, 9.5, tmp_path / "clips" / "video3.mp4"),
        Caption("video1", "rain", "test", 1.0, 10.5),
    )
    assert data.unfound() == ("video2", "video0", "video1")


def changed(document: dict, *path: Any, **fields: Any) -> dict:
    """A copy with other fields in one record; None takes a field away."""
    copy = json.loads(json.dumps(document))
    record = copy
    for step in path:
        record = record[step]
    record.update(fields)
    for key in [key for key, value in fields.items() if value is None]:
        del record[key]
    return copy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            changed(TRAINING, "videos", 1, split="dev"),
            "record 2 of 'videos': field 'split' must be one of .*, got 'dev'",
        ),
        (changed(TRAINING, "videos", 1, video_id="video0"), "record 2 of 'videos': clip 'video0' is there twice"),
        (changed(TRAINING, "videos", 0, **{"end time": "9"}), "field 'end time' must be a finite number, got '9'"),
        (
            changed(TRAINING, "videos", 0, **{"end time": 0}),
            "'start time' and 'end time' must be in order, got 0.0, 0.0",
        ),
        (changed(TRAINING, "sentences", 2, caption=None), "record 3 of 'sentences': field 'caption' is missing"),
        (changed(TRAINING, "sentences", 2, video_id="video9"), "'video_id' must be one of 'videos', got 'video9'"),
        (TRAINING | {"sentences": []}, "expected records in 'videos' and 'sentences', got none"),
        (json.dumps(TRAINING)[:-40], "record 6 of 'sentences' is damaged"),
    ],
)
def test_damaged_msrvtt_is_refused_with_the_record(tmp_path, content, message) -> None:
    put(tmp_path, {"train_val_videodatainfo.json": content})
    with pytest.raises(HetgraphError, match=rf"MSR-VTT: .*train_val_videodatainfo\.json: .*{message}"):
        len(datasets.open("msrvtt", tmp_path))
    assert official.missing("msrvtt", tmp_path)[0].fault == "damaged"


def test_lists_that_do_not_fit_are_refused(tmp_path) -> None:
    files = {"MSRVTT_data.json": TRAINING, **LISTS}
    with pytest.raises(HetgraphError, match="clip 'video3' is in a list of 1k-A, but in no file with clips"):
        datasets.open("msrvtt", put(tmp_path, files), split="1k-A").part("test")
    put(tmp_path, {"MSRVTT_train.9k.csv": "video_id\nvideo1\n"})
    with pytest.raises(
        HetgraphError, match=r"clip 'video1' is in MSRVTT_train\.9k\.csv and in MSRVTT_JSFUSION_test\.csv"
    ):
        datasets.open("msrvtt", tmp_path, split="1k-A").part("train")
    put(tmp_path, {"MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo0\n"})
    with pytest.raises(HetgraphError, match="line 3: clip 'video0' is there twice"):
        datasets.open("msrvtt", tmp_path, split="1k-A").part("train")
    put(tmp_path / "twice", {"train_val_videodatainfo.json": TRAINING, "test_videodatainfo.json": TRAINING})
    with pytest.raises(HetgraphError, match=r"test_videodatainfo\.json: clip 'video0' is there twice"):
        len(datasets.open("msrvtt", tmp_path / "twice"))
    with pytest.raises(HetgraphError, match=r"split must be one of .*, got '1k-B'"):
        datasets.open("msrvtt", tmp_path, split="1k-B")


def test_the_genuine_lists_and_layout_of_msrvtt(tmp_path) -> None:
    folder = genuine("video_caption_formats")
    captions = msrvtt.read_test_1k(folder / "MSRVTT_JSFUSION_test_sample.csv")
    with open(folder / "MSRVTT_JSFUSION_test_sample.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert captions == {row["video_id"]: row["sentence"] for row in rows}
    train = msrvtt.read_train_9k(folder / "MSRVTT_train.9k_sample.csv")
    assert train == (folder / "MSRVTT_train.9k_sample.csv").read_text().split()[1:]
    assert (len(captions), len(train)) == (200, 200)
    assert not set(captions) & set(train)
    clips = msrvtt.read_info(folder / "videodatainfo_format_example_INVENTED.json")
    assert {name: (clip.split, len(clip.captions)) for name, clip in clips.items()} == {
        "video0": ("train", 2),
        "video1": ("validate", 1),
        "video2": ("test", 1),
    }
    assert (clips["video0"].start, clips["video0"].end) == (137.72, 149.44)


# LSMDC

ROW = '0001_Film_00.00.51.926-00.00.54.129\t00.00.51.926\t00.00.54.129\t00.00.50.926\t01.00.55.129\tSomeone "waits".\n'


def test_lsmdc_reads_aligned_times_and_leaves_quotation_marks(tmp_path) -> None:
    broken = ROW.replace("0001_Film_00.00.51.926-00.00.54.129", lsmdc.SKIPPED[0])
    put(tmp_path, {"LSMDC16_annos_training.csv": ROW + broken + ROW, "LSMDC16_annos_val.csv": ROW})
    put(tmp_path / "clips", {"0001_Film/0001_Film_00.00.51.926-00.00.54.129.avi": ""})
    data = datasets.open("lsmdc", tmp_path, videos=tmp_path / "clips")
    assert data.parts == ("train", "val", "test")
    [first, second] = data.part("train")
    assert first == second
    assert (first.clip, first.caption) == ("0001_Film_00.00.51.926-00.00.54.129", 'Someone "waits".')
    assert (first.start, first.end) == (51.926, 54.129)
    assert first.file == tmp_path / "clips" / "0001_Film" / f"{first.clip}.avi"
    with pytest.raises(HetgraphError, match=r"no file .*LSMDC16_annos_test\.csv"):
        data.part("test")
    put(tmp_path, {"LSMDC16_challenge_1000_publictect.csv": ROW})
    assert datasets.open("lsmdc", tmp_path).parts == ("train", "val", "test", "test_1k")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.rsplit("\t", 1)[0], "line 2: expected 6 cells, got 5"),
        (ROW.replace("\t00.00.54.129", "\t00:00:54.129"), "line 2: field 'END_ALIGNED' must be hours.minutes.seconds"),
        (ROW.replace('Someone "waits".', " "), "line 2: field 'SENTENCE' must be text, got ' '"),
    ],
)
def test_damaged_lsmdc_is_refused_with_the_line(tmp_path, row, message) -> None:
    put(tmp_path, {"LSMDC16_annos_val.csv": ROW + row})
    with pytest.raises(HetgraphError, match=rf"LSMDC: .*LSMDC16_annos_val\.csv: {message}"):
        datasets.open("lsmdc", tmp_path).part("val")


def test_the_layout_example_of_lsmdc() -> None:
    folder = genuine("video_caption_formats")
    captions = lsmdc.read_annotations(folder / "LSMDC16_format_example_INVENTED.csv")
    assert len(captions) == 4
    assert captions[1].end == 63.394
    assert captions[3].caption == 'Rain falls on "the old bridge"; someone\'s umbrella turns inside out.'
    assert captions[3].start == 600.0


# COCO

IMAGES = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 64, "height": 48} for i in (7, 3, 5)]
COCO = {
    "annotations/captions_val2017.json": {
        "info": {},
        "licenses": [],
        "images": IMAGES,
        "annotations": [
            {"image_id": 3, "id": 1, "caption": "A cat."},
            {"image_id": 7, "id": 2, "caption": "A dog."},
            {"image_id": 3, "id": 3, "caption": "Fur."},
        ],
    },
    "annotations/instances_val2017.json": {
        "images": IMAGES,
        "annotations": [
            {
                "id": 1,
                "image_id": 3,
                "category_id": 18,
                "bbox": [1, 2, 3, 4],
                "area": 6.5,
                "iscrowd": 0,
                "segmentation": [],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 1,
                "bbox": [0, 0, 0, 9.5],
                "area": 0,
                "iscrowd": 1,
                "segmentation": {},
            },
            {
                "id": 3,
                "image_id": 3,
                "category_id": 1,
                "bbox": [5, 5, 1, 1],
                "area": 1,
                "iscrowd": 0,
                "segmentation": [],
            },
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    },
}


def test_coco_gives_captions_and_boxes_of_each_picture(tmp_path) -> None:
    put(tmp_path, COCO)
    put(tmp_path / "val2017", {"000000000003.jpg": ""})
    data = datasets.open("coco", tmp_path, images=tmp_path / "val2017")
    assert data.parts == ("val",)
    assert [c.caption for c in data.of("3")] == ["A cat.", "Fur."]
    assert data.of("3")[0].file == tmp_path / "val2017" / "000000000003.jpg"
    assert data.unfound() == ("7",)
    objects = data.objects("val")
    assert list(objects.pictures) == ["7", "3", "5"]
    assert objects.pictures["5"] == coco.Picture("000000000005.jpg", 64, 48)
    # by hand, from the records of each picture
    for image in (7, 3, 5):
        own = [a for a in COCO["annotations/instances_val2017.json"]["annotations"] if a["image_id"] == image]
        at = objects.of(str(image))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)]
        np.testing.assert_array_equal(objects.boxes[at], np.array(boxes, np.float32).reshape(-1, 4))
        assert [objects.names[i] for i in objects.category[at]] == [
            {1: "person", 18: "dog"}[a["category_id"]] for a in own
        ]
        assert objects.crowd[at].tolist() == [bool(a["iscrowd"]) for a in own]
        assert objects.area[at].tolist() == [a["area"] for a in own]
    assert data.counts() == {"val": {"captions": 3, "images": 2, "objects": 3}}
    assert data.objects("val") is objects
    with pytest.raises(HetgraphError, match="no picture '9'"):
        objects.of("9")
    with pytest.raises(HetgraphError, match="unknown part 'test'"):
        data.objects("test")
    with pytest.raises(HetgraphError, match=r"year must be one of .*, got '2015'"):
        datasets.open("coco", tmp_path, year="2015")


INSTANCES = COCO["annotations/instances_val2017.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(INSTANCES, "annotations", 1, id=1), "record 2 of 'annotations': object '1' is there twice"),
        (changed(INSTANCES, "annotations", 1, image_id=9), "record 2 of 'annotations': no picture '9' in 'images'"),
        (
            changed(INSTANCES, "annotations", 1, category_id=2),
            "record 2 of 'annotations': no category 2 in 'categories'",
        ),
        (
            changed(INSTANCES, "annotations", 1, bbox=[1, 2, 3]),
            r"'bbox' must be \[x, y, width, height\], got \[1, 2, 3\]",
        ),
        (changed(INSTANCES, "annotations", 1, bbox=[1, 2, -3, 4]), "field 'bbox' must be"),
        (changed(INSTANCES, "annotations", 1, iscrowd=2), "field 'iscrowd' must be 0 or 1, got 2"),
        (changed(INSTANCES, "annotations", 1, area="big"), "field 'area' must be a finite number, got 'big'"),
        (changed(INSTANCES, "images", 2, id=7), "record 3 of 'images': picture '7' is there twice"),
        (changed(INSTANCES, "images", 2, width=None), "record 3 of 'images': field 'width' is missing"),
        (INSTANCES | {"categories": []}, r"got none in \['categories'\]"),
        (json.dumps(INSTANCES)[:-60], "is damaged|breaks off"),
    ],
)
def test_damaged_coco_is_refused_with_the_record(tmp_path, content, message) -> None:
    put(tmp_path, COCO | {"annotations/instances_val2017.json": content})
    with pytest.raises(HetgraphError, match=rf"COCO: .*instances_val2017\.json: .*({message})"):
        datasets.open("coco", tmp_path).objects("val")
    assert [f.fault for f in official.missing("coco", tmp_path)] == ["missing", "missing", "size", "damaged"]


def test_captions_of_unknown_pictures_are_refused(tmp_path) -> None:
    name = "annotations/captions_val2017.json"
    put(tmp_path, {name: changed(COCO[name], "annotations", 2, image_id=4)})
    with pytest.raises(HetgraphError, match="record 3 of 'annotations': no picture '4' in 'images'"):
        coco.read_captions(Path(tmp_path / name))
    put(tmp_path, {name: changed(COCO[name], "annotations", 2, caption=7)})
    with pytest.raises(HetgraphError, match="record 3 of 'annotations': field 'caption' must be text, got 7"):
        coco.read_captions(Path(tmp_path / name))

"""Manifests: what is read, and that every fault is reported with its place."""

from __future__ import annotations

import csv
import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.memory import peak_bytes
from hetgraph.errors import ManifestError
from hetgraph.manifest import MOST_FAULTS_SHOWN, Row, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "s.wav"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "pictures").mkdir()
    return tmp_path


def put(folder: Path, name: str, data: str | bytes | list) -> Path:
    path = folder / name
    if isinstance(data, list):
        data = "\n".join(json.dumps(row) for row in data)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def faults(path: Path, **options: str) -> list[str]:
    """The lines of the message below its head."""
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, **options)
    head, *rest = str(caught.value).split("\n  ")
    assert head.startswith(f"{path}: {len(rest)} fault" if not rest[-1].startswith("...") else f"{path}: ")
    return rest


ROWS = [
    {"id": "one", "image": "a.png", "text": "a cat", "entities": ["cat", "pet"], "label": "yes", "split": "train"},
    {"id": "two", "audio:speech": "s.wav", "split": "dev", "label": "no", "colour": "red"},
]


def test_json_lines_become_rows_with_absolute_paths(folder) -> None:
    manifest = read_manifest(put(folder, "m.jsonl", ROWS))
    assert manifest.columns == {"image": "image", "text": "text", "audio:speech": "audio"}
    assert manifest.ignored == ["colour"]
    one, two = manifest.rows
    assert (one.id, one.line, one.label, one.split) == ("one", 1, "yes", "train")
    assert one.media == {"image": folder / "a.png", "text": "a cat"}
    assert one.entities == ("cat", "pet")
    assert (two.id, two.line, two.label, two.split) == ("two", 2, "no", "valid")
    assert two.media == {"audio:speech": folder / "s.wav"}
    assert two.extra == {"colour": "red"}
    assert two.entities == ()


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t"), ("CSV", ",")])
def test_csv_and_tsv_give_the_same_rows_as_json_lines(folder, suffix, delimiter) -> None:
    names = ["id", "image", "text", "audio:speech", "entities", "label", "split", "colour"]
    with open(folder / f"m.{suffix}", "w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, names, delimiter=delimiter)
        out.writeheader()
        out.writerows({**row, "entities": "|".join(row.get("entities", []))} for row in ROWS)
    table = read_manifest(folder / f"m.{suffix}")
    lines = read_manifest(put(folder, "m.jsonl", ROWS))
    for a, b in zip(table.rows, lines.rows, strict=True):
        assert (a.id, a.media, a.entities, a.label, a.split) == (b.id, b.media, b.entities, b.label, b.split)
        assert a.line == b.line + 1  # the header
    assert set(table.columns) == set(lines.columns)
    assert table.ignored == lines.ignored


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(folder, name, newline) -> None:
    lines = ['{"id": "ä", "text": "x"}'] if name == "m.jsonl" else ["id,text", "ä,x"]
    path = put(folder, name, b"\xef\xbb\xbf" + newline.join([*lines, ""]).encode())
    [row] = read_manifest(path).rows
    assert (row.id, row.media) == ("ä", {"text": "x"})


def test_blank_lines_are_skipped_but_counted(folder) -> None:
    lines = read_manifest(put(folder, "m.jsonl", '\n{"text": "x"}\n   \n{"text": "y"}\n'))
    assert [(row.id, row.line) for row in lines.rows] == [("line-2", 2), ("line-4", 4)]
    table = read_manifest(put(folder, "m.csv", "text,label\n\nx,1\n\ny,2\n"))
    assert [row.line for row in table.rows] == [3, 5]


def test_a_quoted_text_over_several_lines_is_called_by_its_first_line(folder) -> None:
    path = put(folder, "m.csv", 'id,text,split\none,"a\nb\nc",train\ntwo,"d\ne",nowhere\n')
    assert faults(path) == ["line 5, column split: expected train, valid or test, got 'nowhere'"]
    path = put(folder, "m.csv", 'id,text\none,"a\nb\nc"\ntwo,d\n')
    assert [(row.line, row.media["text"]) for row in read_manifest(path).rows] == [(2, "a\nb\nc"), (5, "d")]


def test_spaces_around_column_names_in_a_table_do_not_hide_the_columns(folder) -> None:
    manifest = read_manifest(put(folder, "m.csv", "id, text, label\n1,x,yes\n"))
    assert manifest.columns == {"text": "text"}
    assert (manifest.rows[0].label, manifest.ignored) == ("yes", [])


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_values_are_absent(folder, empty) -> None:
    row = dict.fromkeys(["id", "image", "audio", "entities", "label", "split"], empty)
    [found] = read_manifest(put(folder, "m.jsonl", [row | {"text": "x"}])).rows
    assert (found.id, found.media, found.entities, found.label, found.split) == (
        "line-1",
        {"text": "x"},
        (),
        None,
        None,
    )
    [found] = read_manifest(put(folder, "m.csv", "id,image,audio,entities,label,split,text\n,, ,,,,x\n")).rows
    assert (found.id, found.media, found.entities, found.label, found.split) == (
        "line-2",
        {"text": "x"},
        (),
        None,
        None,
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *((name, "train") for name in ("train", "Training", "TRAIN")),
        *((name, "valid") for name in ("valid", "validation", "val", "dev", "DEV")),
        ("test", "test"),
    ],
)
def test_usual_names_of_splits_are_understood(folder, written, meant) -> None:
    manifest = read_manifest(put(folder, "m.jsonl", [{"text": "x", "split": written}]))
    assert manifest.split(meant) == manifest.rows


def test_a_split_without_samples_is_refused_with_those_there_are(folder) -> None:
    manifest = read_manifest(put(folder, "m.jsonl", [{"text": "x", "split": "test"}, {"text": "y"}]))
    with pytest.raises(ManifestError, match="no sample of split 'valid'; it has samples without a split, test"):
        manifest.split("valid")


def test_whole_number_ids_become_text_and_missing_ones_the_line(folder) -> None:
    path = put(folder, "m.jsonl", [{"id": 7, "text": "x"}, {"text": "y"}])
    assert [row.id for row in read_manifest(path).rows] == ["7", "line-2"]


def test_any_column_can_be_the_target(folder) -> None:
    path = put(folder, "m.jsonl", [{"text": "x", "video": "funny", "label": "left alone"}])
    manifest = read_manifest(path, target="video")
    assert manifest.rows[0].label == "funny"
    assert manifest.ignored == ["label"]
    assert manifest.rows[0].extra == {"label": "left alone"}


@pytest.mark.parametrize(("label", "kept"), [(True, "true"), (3, 3), (2.5, 2.5), (["a", "b"], ["a", "b"]), ([], [])])
def test_labels_are_texts_numbers_or_lists_of_texts(folder, label, kept) -> None:
    [row] = read_manifest(put(folder, "m.jsonl", [{"text": "x", "label": label}])).rows
    assert row.label == kept
    assert type(row.label) is type(kept)


FAULTY = [
    ({"id": 1.5, "text": "x"}, "column id: expected text, got 1.5"),
    ({"id": True, "text": "x"}, "column id: expected text, got True"),
    ({"image": "gone.png"}, "column image: expected a file, found nothing at 'gone.png'"),
    ({"image": "pictures"}, "column image: expected a file, found a folder at 'pictures'"),
    ({"image": 3}, "column image: expected a file name, got 3"),
    ({"image": "\0"}, "column image: expected a file, found nothing at '\\x00'"),
    ({"audio:speech": ["s.wav"]}, "column audio:speech: expected a file name, got ['s.wav']"),
    ({"text": 5}, "column text: expected a text, got 5"),
    ({"text": "x", "entities": "cat"}, "column entities: expected a list of names, got 'cat'"),
    ({"text": "x", "entities": [1]}, "column entities: expected a list of names, got [1]"),
    ({"text": "x", "split": "half"}, "column split: expected train, valid or test, got 'half'"),
    ({"text": "x", "split": 1}, "column split: expected train, valid or test, got 1"),
    ({"text": "x", "label": {"a": 1}}, "column label: expected text, a finite number or a list of texts, got {'a': 1}"),
    ({"text": "x", "label": ["a", 1]}, "column label: expected text, a finite number or a list of texts, got ['a', 1]"),
    ({"label": "x"}, "column image: expected at least one of image, audio:speech, text, got none"),
    ({"text": " \t", "label": "x"}, "column image: expected at least one of image, audio:speech, text, got none"),
]


@pytest.mark.parametrize(("row", "fault"), FAULTY)
def test_every_fault_names_line_column_and_what_was_expected(folder, row, fault) -> None:
    first = {"image": "a.png", "audio:speech": "s.wav", "text": "x"}
    assert faults(put(folder, "m.jsonl", [first, row])) == [f"line 2, {fault}"]


def test_all_faults_are_reported_at_once_in_the_order_of_the_file(folder) -> None:
    first = {"image": "a.png", "audio:speech": "s.wav", "text": "x"}
    found = faults(put(folder, "m.jsonl", [first] + [row for row, _ in FAULTY]))
    assert found == [f"line {i}, {fault}" for i, (_, fault) in enumerate(FAULTY, 2)]


def test_several_faults_of_one_row_are_all_reported(folder) -> None:
    found = faults(put(folder, "m.jsonl", [{"id": [], "image": "no", "text": 1, "split": "x", "label": {}}]))
    assert [fault.split(":")[0] for fault in found] == [
        f"line 1, column {name}" for name in ("id", "image", "text", "split", "label")
    ]


def test_only_the_first_faults_are_shown_and_the_others_counted(folder) -> None:
    path = put(folder, "m.jsonl", [{"text": "x", "split": "?"}] * (MOST_FAULTS_SHOWN + 7))
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    lines = str(caught.value).split("\n  ")
    assert lines[0] == f"{path}: {MOST_FAULTS_SHOWN + 7} faults"
    assert [line.split(",")[0] for line in lines[1:-1]] == [f"line {i}" for i in range(1, MOST_FAULTS_SHOWN + 1)]
    assert lines[-1] == "... and 7 more"


def test_a_repeated_id_names_both_lines(folder) -> None:
    path = put(folder, "m.jsonl", [{"id": "a", "text": "x"}, {"id": "b", "text": "x"}, {"id": "a", "text": "x"}])
    assert faults(path) == ["line 3, column id: expected a unique id, got 'a' again (first in line 1)"]


def test_labels_of_mixed_kinds_name_the_odd_ones_out(folder) -> None:
    path = put(folder, "m.jsonl", [{"text": "x", "label": label} for label in ("a", 3, "b", ["c"], None)])
    assert faults(path) == [
        "line 2, column label: expected text as in the other lines, got 3",
        "line 4, column label: expected text as in the other lines, got ['c']",
    ]


def test_a_json_error_names_its_position(folder) -> None:
    bad = '{"text": "x", "label": }'
    with pytest.raises(json.JSONDecodeError) as own:
        json.loads(bad)
    found = faults(put(folder, "m.jsonl", f'{{"text": "x"}}\n{bad}\n{{"text": \n'))
    assert found[0] == f"line 2, column {own.value.colno}: expected JSON: Expecting value"
    assert found[1].startswith("line 3, column ")
    assert own.value.colno == bad.index("}") + 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text": "x", "label": NaN}', "column 1: expected JSON: NaN is not a number"),
        ('{"text": "x", "label": -Infinity}', "column 1: expected JSON: -Infinity is not a number"),
        ('{"text": "x", "label": 1e999}', "column label: expected text, a finite number or a list of texts, got inf"),
        ('["x"]', "column 1: expected an object {...}, got list"),
        ('"x"', "column 1: expected an object {...}, got str"),
        (r'{"text": "\ud800"}', r"column 1: expected Unicode text, got an escape \ud800 .. \udfff without its other"),
        ('{"text": ' + "[" * 200_000, "column 1: expected JSON: maximum recursion depth exceeded"),
        ('{"text": "x", "label": ' + "1" * 5000 + "}", "column 1: expected JSON: Exceeds the limit"),
        ('{"text": "x", "label": 1' + "0" * 400 + "}", "column label: expected text, a finite number or a list of"),
        ('{"image": "' + "x" * 5000 + '"}', "column image: expected a file, found nothing at 'xxx"),
    ],
    ids=["nan", "infinity", "overflow", "list", "string", "surrogate", "deep", "digits", "huge", "long name"],
)
def test_values_that_json_allows_or_breaks_on_are_faults_and_no_crash(folder, line, fault) -> None:
    [found] = faults(put(folder, "m.jsonl", line))
    assert found.startswith(f"line 1, {fault}")


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv"])
def test_a_byte_that_is_not_utf8_is_named_with_its_place(folder, name) -> None:
    good = {"m.jsonl": b'{"text": "x"}\n', "m.csv": b"text\n"}[name]
    path = put(folder, name, good + b"caf\xe9\n" + good)
    assert faults(path)[0] == "line 2, column 4: expected UTF-8, got byte 0xe9"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("text,label\nx\n", "line 2, column 1: expected 2 cells, got 1"),
        ("text,label\nx,y,z\n", "line 2, column 3: expected 2 cells, got 3"),
        ("text,label,text\nx,y,z\n", "line 1, column text: expected different column names, got this one twice"),
        ('text,label\n"x\ny,z\n', "line 2, column 1: expected CSV: unexpected end of data"),
        ('text,label\na,b\n"x"y,z\n', "line 3, column 1: expected CSV: ',' expected after '\"'"),
        (f"text\n{'x' * 200_000}\n", "line 2, column 1: expected CSV: field larger than field limit (131072)"),
        ("text\rx\r", "line 1, column 1: expected CSV: new-line character seen in unquoted field"),
    ],
    ids=["few", "many", "twice", "unclosed", "quote", "long", "carriage return"],
)
def test_faults_of_a_table_name_the_line(folder, text, fault) -> None:
    [found] = faults(put(folder, "m.csv", text))
    assert found.startswith(fault)


def test_videos_tables_and_boxes_are_media_like_others(folder) -> None:
    (folder / "v.mp4").write_bytes(b"")
    (folder / "t.csv").write_bytes(b"")
    rows = [
        {"video": "v.mp4", "table": "t.csv", "image": "a.png", "boxes": [[0, 0, 0.5, 1], [3, 4, 5, 6.5]]},
        {"video:front": "v.mp4", "table": {"age": 3}, "image:left": "b.png", "boxes:left": [[0, 0, 1, 1]]},
        {"table": [{"age": 3}, {"age": None}], "boxes": [], "image": None},
    ]
    manifest = read_manifest(put(folder, "m.jsonl", rows))
    kinds = dict.fromkeys(("video", "table", "image", "boxes", "video:front", "image:left", "boxes:left"))
    assert manifest.columns == {name: name.partition(":")[0] for name in kinds}
    one, two, three = (row.media for row in manifest.rows)
    files = {name: folder / name for name in ("v.mp4", "t.csv", "a.png", "b.png")}
    assert one == {
        "video": files["v.mp4"],
        "table": files["t.csv"],
        "image": files["a.png"],
        "boxes": (files["a.png"], [[0, 0, 0.5, 1], [3, 4, 5, 6.5]]),
    }
    assert two == {
        "video:front": files["v.mp4"],
        "table": {"age": 3},
        "image:left": files["b.png"],
        "boxes:left": (files["b.png"], [[0, 0, 1, 1]]),
    }
    assert three == {"table": [{"age": 3}, {"age": None}]}
    [row] = read_manifest(put(folder, "m.csv", "image,boxes\na.png,0 0 0.5 1| 3 4 5 6.5\n")).rows
    assert row.media == {name: one[name] for name in ("image", "boxes")}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"video": "no.mp4"}, "column video: expected a file, found nothing at 'no.mp4'"),
        ({"table": "no.csv"}, "column table: expected a file, found nothing at 'no.csv'"),
        ({"table": 3}, "column table: expected a file name, got 3"),
        ({"table": [{"a": 1}, 2]}, "column table: expected a file name, got [{'a': 1}, 2]"),
        ({"boxes": [[0, 0, 1, 1]]}, "column boxes: expected the picture of the boxes in column image, got none"),
        (
            {"image": "a.png", "boxes": [0, 0, 1, 1]},
            "column boxes: expected a list of [x1, y1, x2, y2], got [0, 0, 1, 1]",
        ),
        (
            {"image": "a.png", "boxes": [[0, 0, 1]]},
            "column boxes: expected a list of [x1, y1, x2, y2], got [[0, 0, 1]]",
        ),
        ({"image": "a.png", "boxes": "all"}, "column boxes: expected a list of [x1, y1, x2, y2], got 'all'"),
        (
            {"image": "a.png", "boxes": [[0, 0, True, 1]]},
            "column boxes: expected a list of [x1, y1, x2, y2], got [[0, 0, True, 1]]",
        ),
    ],
)
def test_faults_of_videos_tables_and_boxes_name_line_and_column(folder, row, fault) -> None:
    assert faults(put(folder, "m.jsonl", [{"text": "x"}, row])) == [f"line 2, {fault}"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.jsonl", "", "no samples"),
        ("m.jsonl", "\n \n", "no samples"),
        ("m.csv", "", "no samples"),
        ("m.csv", "text,label\n", "no samples"),
        ("m.txt", "x", r"a manifest is \.jsonl, \.csv or \.parquet, got \.txt"),
        ("manifest", "x", r"a manifest is \.jsonl, \.csv or \.parquet, got no suffix"),
        (
            "m.csv",
            "id,label\n1,2\n",
            "no column to learn from; expected one of image, audio, video, table, text, words, boxes, got id, label",
        ),
        ("m.jsonl", '{"picture": "a.png"}', "no column to learn from; .* got picture"),
    ],
)
def test_a_file_without_samples_or_media_or_of_another_kind_is_refused(folder, name, data, message) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(put(folder, name, data))


def test_a_missing_manifest_and_a_folder_are_refused_by_name(folder) -> None:
    for path in (folder / "no.jsonl", folder / ("x" * 300 + ".jsonl")):
        with pytest.raises(ManifestError, match=r"no manifest .*\.jsonl"):
            read_manifest(path)
    with pytest.raises(ManifestError, match=r"no manifest .*pictures \(it is a folder\)"):
        read_manifest(folder / "pictures")


def test_a_manifest_that_cannot_be_opened_is_one_message(folder, monkeypatch) -> None:
    path = put(folder, "m.jsonl", ROWS)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ManifestError, match=r"m\.jsonl cannot be read: Permission denied"):
        read_manifest(path)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SEEN = TEXTS.filter(lambda text: text.strip())
WELL_FORMED = st.fixed_dictionaries(
    {"text": SEEN},
    optional={
        "image": st.sampled_from(["a.png", "b.png", "./a.png", None]),
        "audio:speech": st.sampled_from(["s.wav", "", None]),
        "entities": st.lists(SEEN, max_size=3),
        "label": SEEN,
        "split": st.sampled_from(["train", "valid", "test", None]),
        "note": SEEN,
    },
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("a.png", "b.png", "s.wav"):
        (folder / name).write_bytes(b"")
    return folder


@given(rows=st.lists(WELL_FORMED, min_size=1, max_size=5), ascii_only=st.booleans())
def test_well_formed_rows_come_back_as_they_were_written(shelf, rows, ascii_only) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    manifest = read_manifest(put(shelf, "m.jsonl", text))
    assert [row.line for row in manifest.rows] == list(range(1, len(rows) + 1))
    for found, row in zip(manifest.rows, rows, strict=True):
        media = {name: value for name in ("text", "image", "audio:speech") if (value := row.get(name))}
        assert {name: str(value) for name, value in found.media.items()} == {
            name: value if name == "text" else os.path.join(shelf, os.path.normpath(value))
            for name, value in media.items()
        }
        assert found.entities == tuple(row.get("entities", ()))
        assert (found.label, found.split) == (row.get("label"), row.get("split"))
        assert found.extra == ({"note": row["note"]} if "note" in row else {})


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.just('a "quoted",\nline')


@given(rows=st.lists(st.tuples(CELLS.filter(str.strip), CELLS, CELLS), min_size=1, max_size=5))
def test_a_table_that_python_wrote_comes_back_cell_by_cell(shelf, rows) -> None:
    with open(shelf / "m.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label", "note"), *rows])
    manifest = read_manifest(shelf / "m.csv")
    for found, (text, label, note) in zip(manifest.rows, rows, strict=True):
        assert found.media == {"text": text}
        assert found.label == (label if label.strip() else None)
        assert found.extra == {"note": note if note.strip() else None}


# ---- Parquet ----------------------------------------------------------------------------------------------------


def put_parquet(folder: Path, rows: list[dict], name: str = "m.parquet", **options) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'hetgraph[parquet]'")
    from pyarrow import parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    parquet.write_table(table, folder / name, **options)
    return folder / name


def test_parquet_gives_the_same_rows_as_json_lines(folder) -> None:
    table, lines = read_manifest(put_parquet(folder, ROWS)), read_manifest(put(folder, "m.jsonl", ROWS))
    assert table.columns == lines.columns
    assert table.ignored == lines.ignored
    for a, b in zip(table.rows, lines.rows, strict=True):
        # a table has every column in every row
        assert (a.id, a.line, a.media, a.entities, a.label, a.split) == (
            *(b.id, b.line, b.media, b.entities, b.label, b.split),
        )


def test_faults_of_parquet_name_row_and_column(folder) -> None:
    rows = [{"id": "a", "image": "a.png", "split": "?"}, {"id": "b", "image": "gone.png"}, {"id": "a", "image": None}]
    assert faults(put_parquet(folder, rows)) == [
        "line 1, column split: expected train, valid or test, got '?'",
        "line 2, column image: expected a file, found nothing at 'gone.png'",
        "line 3, column image: expected at least one of image, got none",
        "line 3, column id: expected a unique id, got 'a' again (first in line 1)",
    ]
    assert faults(put_parquet(folder, [{"text": "x", "label": float("nan")}])) == [
        "line 1, column label: expected text, a finite number or a list of texts, got nan"
    ]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_parquet_rows_are_found_in_any_order_over_groups_of_any_size(folder, size) -> None:
    rows = read_manifest(put_parquet(folder, [{"text": f"t{i}"} for i in range(20)], row_group_size=size)).rows
    for order in (range(20), range(19, -1, -1), [5, 5, 19, 0, 6, 4]):
        assert [rows[i].media["text"] for i in order] == [f"t{i}" for i in order]
    assert [row.media["text"] for row in rows[3:18:4]] == ["t3", "t7", "t11", "t15"]


def test_what_is_no_parquet_is_one_message(folder) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'hetgraph[parquet]'")
    with pytest.raises(ManifestError, match=r"m\.parquet: expected Parquet"):
        read_manifest(put(folder, "m.parquet", '{"text": "x"}'))


# ---- long manifests ---------------------------------------------------------------------------------------------

LONG = 100_000


def long_manifest(folder: Path, form: str, count: int = LONG, **changed: dict) -> Path:
    """Rows of some 300 bytes; ``changed`` replaces values of the rows r5, r7000, ..."""
    path = folder / f"long.{form}"
    word = "word " * 50
    with open(path, "w", encoding="utf-8") as file:
        if form == "csv":
            file.write("id,text,label,split\n")
        for i in range(count):
            row = {"id": f"s{i}", "text": f"{word}{i}", "label": i % 7, "split": ("train", "test")[i % 2]}
            row |= changed.get(f"r{i}", {})
            file.write((",".join(map(str, row.values())) if form == "csv" else json.dumps(row)) + "\n")
    return path


linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux keeps the mark")


@linux
@pytest.mark.parametrize(
    ("form", "count", "most"), [("jsonl", LONG, 15e6), ("csv", 40_000, 8e6), ("parquet", 40_000, 14e6)]
)
def test_a_hundred_thousand_rows_are_read_in_the_memory_of_their_places(folder, form, count, most) -> None:
    if form == "parquet":
        rows = [{"id": f"s{i}", "text": f"{'word ' * 50}{i}", "split": ("train", "test")[i % 2]} for i in range(count)]
        path = put_parquet(folder, rows, row_group_size=8192, use_dictionary=False, compression="none")
        del rows
    else:
        path = long_manifest(folder, form, count)
    assert path.stat().st_size > 250 * count
    found = []

    def read() -> None:
        manifest = read_manifest(path)
        test = manifest.split("test")
        found[:] = [manifest.rows, sum(1 for row in test if row.media["text"].endswith(f" {row.id[1:]}"))]

    assert peak_bytes(read) < most, "a list of the rows takes more than 600 bytes of each"
    rows, right = found
    assert right == count // 2
    assert rows[37_777].id == "s37777"


def test_faults_far_apart_in_a_long_manifest_are_all_counted(folder) -> None:
    changed = {f"r{i}": {"split": "?"} for i in range(0, 10_000, 10)} | {"r9999": {"id": "s3"}, "r4": {"label": "x"}}
    with pytest.raises(ManifestError) as caught:
        read_manifest(long_manifest(folder, "jsonl", 10_000, **changed))
    lines = str(caught.value).split("\n  ")
    assert lines[0].endswith(": 1002 faults")
    assert lines[1] == "line 1, column split: expected train, valid or test, got '?'"
    assert lines[2] == "line 5, column label: expected a number as in the other lines, got 'x'"
    assert len(lines) == MOST_FAULTS_SHOWN + 2
    assert lines[-1] == f"... and {1002 - MOST_FAULTS_SHOWN} more"


def test_repeated_ids_of_a_whole_manifest_are_counted_to_the_last(folder) -> None:
    path = put(folder, "m.jsonl", [{"id": "ab"[i % 2], "text": "x"} for i in range(300)])
    with pytest.raises(ManifestError, match="298 faults") as caught:
        read_manifest(path)
    assert "line 4, column id: expected a unique id, got 'b' again (first in line 2)" in str(caught.value)


# ---- rows on demand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv"])
def test_rows_are_a_sequence_that_reads_the_file_again(folder, name) -> None:
    lines = ["", '\ufeff{"text": "a", "split": "test"}', "", '{"text": "b\\nc"}', '{"text": "d", "split": "test"}']
    table = ["\ufefftext,split", "a,test", "", '"b', 'c",', "d,test"]
    data = "\n".join(lines[1:] if name == "m.jsonl" else table).encode()
    manifest = read_manifest(put(folder, name, data))
    rows = manifest.rows
    assert [row.media["text"] for row in rows] == ["a", "b\nc", "d"]
    assert [rows[i].media["text"] for i in (2, 0, -1, -3, 1)] == ["d", "a", "d", "a", "b\nc"]
    assert list(rows[1:]) == [rows[1], rows[2]]
    assert manifest.split("test") == [rows[0], rows[2]]
    assert manifest.split("test")[1].media["text"] == "d"
    assert list(pickle.loads(pickle.dumps(rows[1:]))) == list(rows[1:])
    assert rows != [*rows, rows[0]]
    with pytest.raises(IndexError):
        rows[3]


def test_a_manifest_that_changes_under_way_is_not_read_on(folder) -> None:
    path = put(folder, "m.jsonl", [{"text": "a"}, {"text": "b"}])
    rows = read_manifest(path).rows
    put(folder, "m.jsonl", [{"text": "a longer"}, {"text": "b"}])
    for use in (lambda: rows[0], lambda: list(rows)):
        with pytest.raises(ManifestError, match="has changed since it was checked"):
            use()
    path.unlink()
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        rows[0]


def test_files_need_not_be_there_if_their_reader_will_say_so(folder) -> None:
    path = put(folder, "m.jsonl", [{"id": "a", "image": "gone.png"}, {"id": "b", "image": "pictures"}])
    assert len(faults(path)) == 2
    assert list(read_manifest(path, check_files=False).rows) == [
        Row("a", 1, {"image": folder / "gone.png"}),
        Row("b", 2, {"image": folder / "pictures"}),
    ]


def test_broken_lines_and_faulty_rows_are_reported_together(folder) -> None:
    lines = [b'{"text": "x", "split": "?"}', b"{", b'{"text": "caf\xe9"}', b'{"image": "gone.png"}']
    assert [fault.split(":")[0] for fault in faults(put(folder, "m.jsonl", b"\n".join(lines)))] == [
        *("line 1, column split", "line 2, column 1", "line 3, column 14", "line 4, column image"),
    ]
    table = b'text,split\nx,?\ncaf\xe9,test\n"x"y,test\nx,test,\n\xff"x\ny\n"\nx,!\n'
    assert [fault.split(":")[0] for fault in faults(put(folder, "m.csv", table))] == [
        *("line 2, column split", "line 3, column 4", "line 4, column 1", "line 5, column 3"),
        *("line 6, column 1", "line 7, column 1", "line 8, column 1"),
    ]

"""Pickles from outside: arrays are read as NumPy wrote them, and nothing else happens, whatever the file asks for."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
import subprocess
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hetgraph.errors import HetgraphError
from hetgraph.tasks import datasets
from hetgraph.tasks.datasets import official
from hetgraph.tasks.datasets.official import mult, safe_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pickle") / "data.pkl"


def load(place: Path, data: bytes) -> Any:
    place.write_bytes(data)
    return safe_pickle.load("X", place)


def same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        if type(a) is not np.ndarray or a.dtype != b.dtype or a.shape != b.shape:
            return False
        if b.dtype == object:
            return all(same(x, y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
        return a.tobytes() == b.tobytes()
    if isinstance(b, dict):
        return type(a) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in b)
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and (a == b or (a != a and b != b))


DTYPES = ["<f4", ">f4", "<f8", "f2", "<i8", ">i2", "u1", "?", "c8", "S5", "<U4", ">U3"]


@given(
    array=st.sampled_from(DTYPES).flatmap(lambda code: hnp.arrays(code, hnp.array_shapes(min_dims=0, min_side=0))),
    protocol=st.sampled_from(PROTOCOLS),
    columns_first=st.booleans(),
)
def test_arrays_are_read_as_they_were_written(place, array, protocol, columns_first) -> None:
    array = np.asfortranarray(array) if columns_first else array
    data = pickle.dumps({"x": array, "again": [array, array]}, protocol)
    out = load(place, data)
    np.testing.assert_array_equal(out["x"], array)
    # NumPy itself, which may turn the bytes around
    assert same(out["x"], pickle.loads(data)["x"])
    assert out["again"][0] is out["x"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_builtin_values_scalars_and_arrays_of_objects_are_read(place, protocol) -> None:
    objects = np.array([["a", "1.5"], ["b", None], [b"c", 2]], dtype=object)
    value = {
        "text": ["é", "", "a\nb"],
        "bytes": [b"", b"\x00\xff"],
        "numbers": (1, -(2**70), 1.5, float("inf"), True, None),
        "set": {1, 2},
        "objects": objects,
        "nested": np.array([np.arange(3), "x"], dtype=object),
        "scalars": [np.float32(1.5), np.int64(7), np.bool_(True), np.str_("ab")],
    }
    assert same(load(place, pickle.dumps(value, protocol)), value)


def test_strings_and_arrays_of_python_2_are_read(place) -> None:
    # (dp0, S'x' ... as pickle.dumps({'x': numpy.array([1, 2], 'i2'), 'id': 'ab'}) of Python 2 writes it
    data = (
        b"(dp0\nS'x'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n"
        b"(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'i2'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\n"
        b"S'\\x01\\x00\\x02\\x00'\np15\ntp16\nbsS'id'\np17\nS'ab'\np18\ns."
    )
    out = load(place, data)
    assert same(out, {"x": np.array([1, 2], "<i2"), "id": "ab"})


class Calls:
    """Pickles as a call of anything with anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


class Plain:
    """An object of a class."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {mark}",)),
        (builtins.eval, ("open({mark!r}, 'w')",)),
        (builtins.exec, ("open({mark!r}, 'w')",)),
        (builtins.open, ("{mark}", "w")),
        (builtins.getattr, (os, "system")),
        (builtins.bytearray, (10**12,)),
        (builtins.range, (10**12,)),
        (subprocess.Popen, (["touch", "{mark}"],)),
        (np.save, ("{mark}", 0)),
        (np.load, ("{mark}",)),
        (np.zeros, (10**12,)),
        (np.fromfile, ("{mark}",)),
        (np.ndarray, ((10**12,),)),
        (np.memmap, ("{mark}", "u1", "w+", 0, (10,))),
        (Path, ("x",)),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_no_function_is_called(tmp_path, function, arguments, protocol) -> None:
    mark = tmp_path / "mark"
    filled = [a.format(mark=str(mark)) if isinstance(a, str) else a for a in arguments]
    if function is subprocess.Popen:
        filled = [["touch", str(mark)]]
    if function is builtins.getattr:
        filled = [Calls(os.getenv, "HOME"), "upper"]
    with pytest.raises(HetgraphError, match=r"data\.pkl is refused: |is no whole pickle"):
        load(tmp_path / "data.pkl", pickle.dumps({"x": Calls(function, *filled)}, protocol))
    assert [path.name for path in tmp_path.iterdir()] == ["data.pkl"]


def test_the_message_says_what_was_asked_for(place) -> None:
    for value, message in (
        (
            Calls(os.system, "ls"),
            r"refused: it asks for '(posix|nt)\.system', but only NumPy arrays and builtin values",
        ),
        (Calls(eval, "1"), r"it asks for 'builtins\.eval'"),
        (np.datetime64("2020-01-01"), "arrays of type 'M8'"),
        (np.zeros(2, "i4,f4"), "arrays of"),
        (Plain(), r"refused: it asks for|instruction NEWOBJ"),
    ):
        with pytest.raises(HetgraphError, match=message):
            load(place, pickle.dumps(value, 4))


def instructions(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def call(name: str, *arguments: bytes) -> bytes:
    module, function = name.rsplit(".", 1)
    return f"c{module}\n{function}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def number(value: int) -> bytes:
    return f"L{value}L\n".encode()


def text(value: str) -> bytes:
    return f"V{value}\n".encode()


DTYPE = call("numpy.dtype", text("f8"), b"\x89\x88")
RECONSTRUCT = "numpy.core.multiarray._reconstruct"
EMPTY = call(RECONSTRUCT, b"cnumpy\nndarray\n", b"(", number(0), b"t", text("b"))
HUGE = b"(" + number(10**11) + b"t"
OBJECTS = call("numpy.dtype", text("O8"), b"\x89\x88")
POINTERS = b"(" + number(3) + text("|") + b"NNN" + number(8) + number(8) + number(63) + b"tb"

BOMBS = {
    "an empty array that is not": call(RECONSTRUCT, b"cnumpy\nndarray\n", HUGE, text("b")),
    "a shape without bytes": EMPTY + b"(" + number(1) + HUGE + DTYPE + b"\x89C\x00tb",
    "a shape of objects that are not": EMPTY + b"(" + number(1) + HUGE + OBJECTS + b"\x89]tb",
    "strings of no length": EMPTY
    + b"("
    + number(1)
    + HUGE
    + call("numpy.dtype", text("S0"), b"\x89\x88")
    + b"\x89C\x00tb",
    "a scalar of a huge string": call(
        "numpy.core.multiarray.scalar", call("numpy.dtype", text("S2000000000"), b"\x89\x88")
    ),
    "a negative shape": EMPTY + b"(" + number(1) + b"(" + number(-1) + b"t" + DTYPE + b"\x89C\x08" + b"x" * 8 + b"tb",
    "bytes as pointers": EMPTY
    + b"("
    + number(1)
    + b"("
    + number(1)
    + b"t"
    + OBJECTS
    + b"\x89C\x08"
    + b"\x41" * 8
    + b"tb",
    "pointers from the size": call(
        "numpy.core.numeric._frombuffer", b"C\x08" + b"\x41" * 8, OBJECTS + POINTERS, b"(K\x01t", text("C")
    ),
    "a buffer of a huge shape": call("numpy.core.numeric._frombuffer", b"C\x00", DTYPE, HUGE, text("C")),
    "bytes longer than the file": b"\x8e" + struct.pack("<Q", 10**12),
    "text longer than the file": b"\x8d" + struct.pack("<Q", 10**12),
    "an array of bytes longer than the file": b"\x96" + struct.pack("<Q", 10**12),
    "a frame longer than the file": b"\x95" + struct.pack("<Q", 10**12),
    "a place of the memo": b"Nr" + struct.pack("<I", 2**31 - 1),
    "a number longer than the file": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "compressed text": call("_codecs.encode", text("aaaa"), text("zlib_codec")),
    "a set of numbers up to": call("builtins.set", number(10**12)),
    "deep lists": b"]" * 100_000 + b"a" * 99_999,
    "lists that hold themselves": b"](K\x01q\x00h\x00e" + b"]q\x01h\x01a",
    "a persistent name": text("x") + b"Q",
    "an extension": b"\x82\x01",
    "a changed function": b"cnumpy\ndtype\n" + b"N}" + text("_make") + b"Ns\x86b",
    "a type as a value": DTYPE,
    "a function as a value": b"cnumpy\ndtype\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_file_takes_more_memory_than_it_has_bytes(place, name) -> None:
    data = instructions(BOMBS[name])
    tracemalloc.start()
    with pytest.raises(HetgraphError, match=r"X: .*data\.pkl (is refused|is no whole pickle)"):
        load(place, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 + 200 * len(data)


def test_lists_that_share_lists_are_turned_once(place) -> None:
    value: Any = "x"
    for _ in range(safe_pickle.DEEPEST):
        value = [value] * 50  # taken one by one they would be 50^16
    out = load(place, pickle.dumps(value))
    for _ in range(safe_pickle.DEEPEST):
        assert len(out) == 50
        out = out[7]
    assert out == "x"
    with pytest.raises(HetgraphError, match="more than 16 deep"):
        load(place, pickle.dumps([value]))


@given(data=st.data())
def test_a_damaged_pickle_is_read_or_refused_and_never_crashes(place, data) -> None:
    good = bytearray(
        pickle.dumps({"x": np.arange(6.0), "y": np.array(["a", None], object)}, data.draw(st.sampled_from(PROTOCOLS)))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    # any other exception is a fault, and so is a warning
    with suppress(HetgraphError):
        load(place, bytes(good[: data.draw(st.integers(0, len(good)))]))


# the layout of MulT and MMSA


def part(count: int, seed: int, *, mmsa: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    own: dict[str, Any] = {
        "text": rng.normal(size=(count, 5, 3)).astype(np.float32),
        "audio": rng.normal(size=(count, 5, 2)),
        "vision": rng.normal(size=(count, 5, 4)),
    }
    if mmsa:
        ids = [f"v{seed}$_${i}" for i in range(count)]
        return own | {"id": ids, "regression_labels": rng.normal(size=count), "raw_text": ["hello"] * count}
    ids = np.array([[f"v{seed}", str(i), str(i + 1.5)] for i in range(count)], dtype=object)
    return own | {"id": ids, "labels": rng.normal(size=(count, 1, 1))}


def written(folder: Path, name: str = "mosi_data.pkl", mmsa: bool = False, **changes: Any) -> Path:
    data = {p: part(n, n, mmsa=mmsa) for p, n in (("train", 4), ("valid", 2), ("test", 3))}
    data["valid"] |= changes
    data["valid"] = {key: value for key, value in data["valid"].items() if value is not None}
    (folder / name).write_bytes(pickle.dumps(data, 2))
    return folder


@pytest.mark.parametrize("mmsa", [False, True])
def test_the_parts_are_the_arrays_that_were_pickled(tmp_path, mmsa) -> None:
    name = "aligned_50.pkl" if mmsa else "mosi_data.pkl"
    data = datasets.open("mult", written(tmp_path, name, mmsa))
    assert data.counts() == {"train": {"utterances": 4}, "valid": {"utterances": 2}, "test": {"utterances": 3}}
    for split, count in (("train", 4), ("valid", 2), ("test", 3)):
        own, wanted = data.parts[split], part(count, count, mmsa=mmsa)
        for field in mult.MODALITIES:
            np.testing.assert_array_equal(getattr(own, field), wanted[field])
        np.testing.assert_array_equal(own.labels, wanted["regression_labels" if mmsa else "labels"])
        assert own.id[1] == (f"v{count}$_$1" if mmsa else f"v{count}$_$1$_$2.5")
        assert own.more == ({"raw_text": ["hello"] * count} if mmsa else {})
    assert official.missing("mult", tmp_path) == []


def test_infinite_audio_is_kept_and_zeroed_on_demand(tmp_path) -> None:
    audio = np.full((2, 5, 2), 2.0)
    audio[1, 2] = -np.inf
    own = datasets.open("mult", written(tmp_path, audio=audio)).parts["valid"]
    np.testing.assert_array_equal(own.audio, audio)
    np.testing.assert_array_equal(own.finite("audio"), np.where(np.isinf(audio), 0, audio).astype(np.float32))
    with pytest.raises(HetgraphError, match="modality must be one of"):
        own.finite("labels")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": None}, r"fields \['text'\] are missing; there are \['audio'"),
        ({"audio": np.zeros((3, 5, 2))}, r"field 'audio' must hold numbers \[2, T, d\], got float64 \[3, 5, 2\]"),
        ({"vision": np.zeros((2, 5))}, r"field 'vision' must hold numbers \[2, T, d\], got float64 \[2, 5\]"),
        ({"vision": np.zeros((2, 5, 2), "S3")}, "field 'vision' must hold numbers"),
        ({"text": np.array(1.5)}, r"field 'text' must hold numbers .* got float64 \[\]"),
        ({"text": [1, 2]}, "field 'text' must hold numbers .* got list"),
        ({"labels": np.array([1.0, np.nan])}, r"field 'labels' of utterance 'v2\$_\$1\$_\$2.5' is not finite"),
        ({"id": ["a", "a"]}, "utterance 'a' is there twice"),
        ({"id": ["a", "v3$_$0$_$1.5"]}, r"part 'test': utterance 'v3\$_\$0\$_\$1.5' is there twice"),
        ({"labels": 1.5}, r"field 'labels' must hold numbers \[N, ...\], got float"),
        ({"id": 7}, "field 'id' must be a list or an array, got 7"),
    ],
)
def test_another_layout_is_refused_with_part_and_field(tmp_path, changes, message) -> None:
    with pytest.raises(HetgraphError, match=message):
        mult.read_pickle(written(tmp_path, **changes) / "mosi_data.pkl")


def test_utterances_without_ids_are_numbered(tmp_path) -> None:
    data = {p: part(n, n) for p, n in (("train", 4), ("valid", 2), ("test", 3))}
    for own in data.values():
        del own["id"]
    (tmp_path / "iemocap_data.pkl").write_bytes(pickle.dumps(data))
    assert datasets.open("mult", tmp_path).parts["valid"].id == ("valid-0", "valid-1")


@pytest.mark.parametrize("value", [[], {"train": {}}, {"train": {}, "valid": {}, "test": {}, "more": {}}])
def test_other_parts_are_refused(tmp_path, value) -> None:
    (tmp_path / "mosi_data.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(HetgraphError, match="expected a dictionary of"):
        mult.read_pickle(tmp_path / "mosi_data.pkl")


def test_a_file_by_another_name_and_none_at_all(tmp_path) -> None:
    written(tmp_path, "mine.pkl")
    assert datasets.open("mult", tmp_path, file="mine.pkl").parts["train"].id[0] == "v4$_$0$_$1.5"
    with pytest.raises(HetgraphError, match=r"no file mosi_data\.pkl or .* in "):
        datasets.open("mult", tmp_path)
    (tmp_path / "empty.pkl").write_bytes(b"")
    with pytest.raises(HetgraphError, match="is empty"):
        datasets.open("mult", tmp_path, file="empty.pkl").counts()

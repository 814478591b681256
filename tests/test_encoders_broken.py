"""Broken, hostile and odd media: each is refused by the sample's name, or comes to something that is defined.

What :mod:`test_encoders_image`, ``_audio``, ``_text``, ``_video``, ``_table`` and ``_word_vectors`` refuse is not
repeated here.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from extras import needs_av, needs_pyarrow
from PIL import EpsImagePlugin, Image
from videos import save_video

from hetgraph.encoders import (
    HashWords,
    ImageCrops,
    ImagePatches,
    LogMel,
    Superpixels,
    TableRows,
    VideoFrames,
    VideoSound,
    WordVectors,
)
from hetgraph.errors import HetgraphError, MediaError
from hetgraph.manifest import read_manifest
from hetgraph.pipeline import Pipeline, Record

TABLE = TableRows().fitted(["a,b\n1,x\n"])
PATCHES, SOUND, WORDS = ImagePatches(2, 4), LogMel(), HashWords(8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *more: bytes, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def picture(form: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(out, form, **options)
    return out.getvalue()


def sound(form: str = "WAV", seconds: float = 0.5, **options) -> bytes:
    out = io.BytesIO()
    tone = 0.5 * np.sin(np.arange(round(16_000 * seconds)) / 5)
    soundfile.write(out, tone, 16_000, format=form, **options)
    return out.getvalue()


def wav(samples: int = 800, channels: int = 1, rate: int = 16_000, bits: int = 16, claimed: int | None = None) -> bytes:
    """A WAV file whose header says whatever one likes."""
    data = np.full(samples, 1000, "<i2").tobytes()
    size = len(data) if claimed is None else claimed
    block = (channels * bits // 8) & 0xFFFF
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, (rate * block) & 0xFFFFFFFF, block, bits)
    return (
        struct.pack("<4sI4s", b"RIFF", (size + 36) & 0xFFFFFFFF, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", size)
        + data
    )


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes, *places: float) -> bytes:
    out = bytearray(data)
    for place in places:
        start = int(len(out) * place)
        out[start : start + 64] = bytes(byte ^ 0xA5 for byte in out[start : start + 64])
    return bytes(out)


class Trap:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def object_array(folder: Path) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([Trap(folder / "executed")], dtype=object), allow_pickle=True)
    return out.getvalue()


def pickled(folder: Path) -> bytes:
    return pickle.dumps(Trap(folder / "executed"))


REFUSED_PICTURES = {
    "a sound named png": (lambda: sound(), "expected a picture, got something that is not one"),
    "a drawing in SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not one"),
    "a PDF": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is not one"),
    "a GIF with 0 frames": (
        lambda: b"GIF89a" + struct.pack("<HHBBB", 5, 5, 0, 0, 0) + b";",
        "damaged or truncated|is not",
    ),
    "a GIF cut in its first frame": (lambda: picture("GIF")[:500], "damaged or truncated|is not one"),
    "a PNG that claims 60000 x 60000 pixels": (lambda: png(60_000, 60_000), "too large: .*3600000000 pixels"),
    "a PNG with a comment that swells to 10 MB": (
        lambda: png(2, 2, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7))), data=bytes(14)),
        "damaged or truncated",
    ),
    "a PNG without its pixels": (lambda: png(5, 5), "damaged or truncated"),
    "a PNG with a wrong checksum": (lambda: picture("PNG").replace(b"IHDR", b"IHDX", 1), "damaged|is not one"),
    "a WebP cut in the middle": (lambda: picture("WEBP")[:700], "damaged or truncated|is not one"),
    "a TIFF cut in the middle": (lambda: picture("TIFF")[:3000], "damaged or truncated"),
    "a TIFF whose directory lies outside": (lambda: b"II*\0\xff\xff\xff\x7f", "damaged or truncated|is not one"),
    "a BMP of 0 x 0 pixels": (
        lambda: (
            struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 0, 0, 1, 24, 0, 0, 0, 0, 0, 0)
        ),
        ".",
    ),
    "an icon of nothing": (lambda: b"\0\0\1\0\0\0", "."),
}

REFUSED_SOUNDS = {
    "a picture named wav": (lambda: picture("PNG"), "cannot be decoded"),
    "an Ogg cut in the middle": (lambda: half(sound("OGG", 2.0)), "cannot be decoded"),
    "an Ogg cut in its header": (lambda: sound("OGG")[:60], "cannot be decoded"),
    "a WAV of 0 channels": (lambda: wav(channels=0), "cannot be decoded"),
    "a WAV of 65535 channels": (lambda: wav(channels=65535), "cannot be decoded"),
    "a WAV of 0 Hz": (lambda: wav(rate=0), "cannot be decoded|expected a rate"),
    "a WAV of 4294967295 Hz": (lambda: wav(rate=2**32 - 1), "cannot be decoded|expected a rate"),
    "a WAV of 0 bits": (lambda: wav(bits=0), "cannot be decoded"),
    "a WAV of infinite samples": (
        lambda: flt(np.array([0, np.inf, 0])),
        "NaN or infinite",
    ),
    "a WAV of samples near 1e30": (lambda: flt(np.full(900, 1e30)), "expected float samples of about -1 to 1"),
    "a FLAC with flipped bytes": (lambda: flipped(sound("FLAC", 2.0), 0.3, 0.5, 0.7), "cannot be decoded"),
}

REFUSED_TEXTS = {
    "a byte order mark alone": (lambda: b"\xef\xbb\xbf", "text is empty"),
    "an overlong NUL": (lambda: b"a\xc0\x80", "expected UTF-8 text, got byte 0xc0 at 1"),
    "a picture instead of a text": (lambda: picture("PNG"), "expected UTF-8 text"),
    "surrogates in UTF-8": (lambda: b"a\xed\xa0\x80", "expected UTF-8 text, got byte 0xed at 1"),
}

REFUSED_TABLES = {
    "an empty CSV": (lambda: b"", "expected a table, got 0 bytes"),
    "a CSV of blank lines": (lambda: b"\n\n \n", "the table has no"),
    "a CSV with its header alone": (lambda: b"a,b\n", "the table has no rows"),
    "a CSV with NUL": (lambda: b"a,b\n1,\0x\n", "line 2: expected CSV, got a NUL character"),
    "a CSV with ragged rows": (lambda: b"a,b\n1,x\n2\n", "line 3: expected 2 cells, got 1"),
    "a CSV with a cell too many": (lambda: b"a,b\n1,x,y\n", "line 2: expected 2 cells, got 3"),
    "a CSV with a quote left open": (lambda: b'a,b\n1,"x\n2,y\n', "expected CSV: unexpected end of data"),
    "a CSV with a cell of 200 kB": (lambda: b"a,b\n1," + b"x" * 200_000, "expected CSV: field larger than field limit"),
    "a CSV with a line of 2 MB": (lambda: b"a,b\n" + b"1," * 10**6, "line 2: longer than 1048576 bytes"),
    "a CSV in Latin-1": (lambda: b"a,b\n1,caf\xe9\n", "line 2: expected UTF-8, got byte 0xe9"),
    "a CSV in UTF-16": (lambda: "a,b\n1,x\n".encode("utf-16"), "NUL|expected UTF-8"),
    "a CSV with a column twice": (lambda: b"a,a\n1,2\n", "expected different column names, got 'a' twice"),
    "a CSV of 5000 columns": (
        lambda: (",".join(f"c{i}" for i in range(5000)) + "\n" + "1," * 4999 + "1").encode(),
        "at most 4096 columns",
    ),
    "a CSV of other columns": (lambda: b"c,d\n1,2\n", r"expected at least one of the columns \['a', 'b'\]"),
    "a spreadsheet": (lambda: b"PK\x03\x04" + bytes(100), "NUL"),
    "a JSON file": (lambda: b'[{"a": 1}]', "the table has no rows"),
    "a Parquet file of four bytes": (lambda: b"PAR1", "Parquet file is damaged"),
    "a Parquet file cut in the middle": (lambda: parquet()[:-50], "Parquet file is damaged"),
    "a Parquet file with a broken footer": (lambda: flipped(parquet(), 0.6, 0.8), "Parquet file is damaged|column"),
    "a Parquet file with lists in its cells": (
        lambda: parquet(a=[[1], [2]]),
        "row 1, column 'a': expected a text, .* got list",
    ),
    "a Parquet file that swells to 4 MB a cell": (
        lambda: parquet(a=["x" * 2**22] * 3),
        "a cell of 4194304 bytes is longer",
    ),
    "a Parquet file whose group of rows swells to more than is allowed": (
        lambda: parquet(a=bomb(), plain=True),
        "group of rows is larger",
    ),
}

REFUSED_VIDEOS = {
    "an empty video": (lambda folder: b"", "expected a video, got 0 bytes"),
    "a text named mp4": (lambda folder: b"this is a text\n" * 50, "cannot be opened"),
    "a picture named mp4": (lambda folder: picture("PNG"), "cannot be opened"),
    "music without pictures": (lambda folder: music(folder, 0), "found no stream of pictures in it, but audio"),
    "a video with a broken index": (
        lambda folder: broken_index(folder),
        "is of a kind that cannot be decoded",
    ),
    "a video with pictures overwritten": (lambda folder: overwritten(folder), "damaged"),
    "a video cut in its header": (lambda folder: save_video(folder / "v.mp4").read_bytes()[:40], "cannot be opened"),
    "a playlist that points to another file": (
        lambda folder: playlist(save_video(folder / "v.ts", form="mpegts", codec="mpeg2video")),
        "cannot be opened",
    ),
    "a list of files to be joined": (
        lambda folder: f"ffconcat version 1.0\nfile {save_video(folder / 'v.mp4').name}\n".encode(),
        "cannot be opened",
    ),
    "a description of streams on the network": (
        lambda folder: b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "cannot be opened",
    ),
}


def playlist(path: Path) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n".encode()


def flt(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, 16_000, format="WAV", subtype="FLOAT")
    return out.getvalue()


def parquet(plain: bool = False, **columns) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    columns = columns or {"a": list(range(100)), "b": [f"x{i}" for i in range(100)]}
    pq.write_table(pa.table(columns), out, compression="zstd", use_dictionary=not plain)
    return out.getvalue()


def bomb():
    """Numbers that take little room in a file and much in memory."""
    import pyarrow as pa

    return pa.array(np.zeros(200_000))


def music(folder: Path, frames: int) -> bytes:
    return save_video(folder / "music.m4a", frames=frames).read_bytes()


def broken_index(folder: Path) -> bytes:
    data = save_video(folder / "v.mp4").read_bytes()
    place = data.index(b"stbl")
    return data[:place] + bytes(200) + data[place + 200 :]


def overwritten(folder: Path) -> bytes:
    data = save_video(folder / "v.mp4", tone=None, codec="libx264", frames=40).read_bytes()
    place = data.index(b"mdat") + 4
    return data[: place + 900] + b"\xff" * 1500 + data[place + 2400 :]


def refuse(encoder, item, fault: str, folder: Path) -> None:
    """By name, from a path and from bytes, and nothing is executed."""
    path = folder / "broken.bin"
    path.write_bytes(item)
    for value in (path, item):
        with pytest.raises(HetgraphError, match=rf"^sample 'a'.*: (?s:.*)({fault})") as caught:
            encoder([value], names=["sample 'a'"])
        assert isinstance(caught.value, MediaError)
    assert not (folder / "executed").exists()


@pytest.mark.parametrize("name", REFUSED_PICTURES)
def test_a_broken_picture_is_refused(name, tmp_path):
    make, fault = REFUSED_PICTURES[name]
    data = make()
    refuse(PATCHES, data, fault, tmp_path)
    with pytest.raises(MediaError, match=r"^sample 'a': "):
        Superpixels()([data], names=["sample 'a'"])
    with pytest.raises(MediaError, match=r"^sample 'a': "):
        ImageCrops(PATCHES)([(data, [[0, 0, 1, 1]])], names=["sample 'a'"])


@pytest.mark.parametrize("name", REFUSED_SOUNDS)
def test_a_broken_sound_is_refused(name, tmp_path):
    make, fault = REFUSED_SOUNDS[name]
    refuse(SOUND, make(), fault, tmp_path)


@pytest.mark.parametrize("name", REFUSED_TEXTS)
def test_a_broken_text_is_refused(name, tmp_path):
    make, fault = REFUSED_TEXTS[name]
    refuse(WORDS, make(), fault, tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[needs_pyarrow] if "Parquet" in n else []) for n in REFUSED_TABLES]
)
def test_a_broken_table_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr("hetgraph.encoders.read_table._LARGEST_GROUP", 100_000 if "swells to more" in name else 2**30)
    make, fault = REFUSED_TABLES[name]
    refuse(TABLE, make(), fault, tmp_path)


@needs_av
@pytest.mark.parametrize("name", REFUSED_VIDEOS)
def test_a_broken_video_is_refused(name, tmp_path):
    make, fault = REFUSED_VIDEOS[name]
    refuse(VideoFrames(PATCHES, rate=10), make(tmp_path), fault, tmp_path)


def every_encoder():
    made = {"pictures": PATCHES, "sounds": SOUND, "texts": WORDS, "tables": TABLE}
    try:
        made |= {"videos": VideoFrames(PATCHES), "sounds of videos": VideoSound(SOUND)}
    except HetgraphError:  # PyAV is not installed
        return made
    return made


@pytest.mark.parametrize("kind", every_encoder())
@pytest.mark.parametrize("make", [pickled, object_array], ids=["a pickle with code in it", "an npy of Python objects"])
def test_code_in_a_file_is_refused_and_not_executed(make, kind, tmp_path):
    refuse(every_encoder()[kind], make(tmp_path), ".", tmp_path)


@pytest.mark.parametrize("make", [pickled, object_array], ids=["a pickle with code in it", "an npy of Python objects"])
def test_code_in_a_file_of_word_vectors_is_refused_and_not_executed(make, tmp_path):
    path = tmp_path / "vectors"
    path.write_bytes(make(tmp_path))
    with pytest.raises(HetgraphError, match=r"vectors': line 1: expected a word and"):
        WordVectors(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("dtype", [object, "U4", "V8"])
def test_an_array_of_objects_is_refused(dtype):
    array = np.zeros((4, 4), dtype=dtype)
    for encoder in (PATCHES, SOUND, TABLE):
        with pytest.raises(MediaError, match=r"^sample 'a': expected"):
            encoder([array], names=["sample 'a'"])


def test_postscript_starts_no_other_program(tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'executed'}\n")
    program.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(program))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n%%EOF\n"
    refuse(PATCHES, script, "is not one", tmp_path)


@pytest.mark.parametrize("kind", every_encoder())
def test_a_loop_of_links_a_pipe_a_device_and_an_impossible_name_are_refused(kind, tmp_path):
    encoder = every_encoder()[kind]
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    os.mkfifo(tmp_path / "pipe")
    for path, fault in (
        (tmp_path / "one", "symbolic links|the file cannot be read"),
        (tmp_path / "pipe", "expected a regular file, got a device, pipe or socket"),
        (Path("/dev/zero"), "expected a regular file"),
        (tmp_path / ("x" * 300), "the file cannot be read: File name too long"),
        (Path("a\0b"), "not a path"),
    ):
        with pytest.raises(MediaError, match=f"^sample 'a': .*({fault})"):
            encoder([path], names=["sample 'a'"])


def test_a_line_of_one_gigabyte_is_refused_without_being_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,")
    os.truncate(path, 1 << 30)  # takes no room on the disk
    with pytest.raises(MediaError, match="line 2: longer than 1048576 bytes"):
        TABLE([path])


DEFINED = {
    "a picture of one pixel": (PATCHES, lambda: png(1, 1, data=b"\0\xff\0\0"), 4),
    "an orientation that does not exist": (PATCHES, lambda: picture("JPEG", exif=orientation(99)), 4),
    "a JPEG with rubbish behind its end": (PATCHES, lambda: picture("JPEG") + bytes(1000), 4),
    "a picture with a suffix of another kind": (PATCHES, lambda: picture("BMP"), 4),
    "an animation": (PATCHES, lambda: picture("GIF", save_all=True, append_images=[Image.new("RGB", (60, 40))]), 4),
    "a WAV that claims 4 GB": (SOUND, lambda: wav(800, claimed=2**32 - 1), 3),
    "a WAV that claims no samples and has some": (SOUND, lambda: wav(800, claimed=0), None),
    "a WAV cut in the middle": (SOUND, lambda: sound()[:8044], 23),
    "a silent sound": (SOUND, lambda: flt(np.zeros(800)), 3),
    "a sound of eight channels": (SOUND, lambda: flt(np.full((800, 8), 0.1)), 3),
    "a sound of one sample": (SOUND, lambda: flt(np.array([0.5])), 1),
    "a sound of denormal numbers": (SOUND, lambda: flt(np.full(800, 1e-40)), 3),
    "a text of emoji alone": (WORDS, lambda: "😀👩‍👩‍👧🏳️‍🌈".encode(), None),
    "a text of 100000 words": (WORDS, lambda: b"word " * 100_000, 100_000),
    "a word of a million letters": (WORDS, lambda: b"x" * 10**6, 1),
    "a letter with 10000 accents": (WORDS, lambda: ("a" + "\u0301" * 10_000).encode(), 1),
    "a text of zero-width characters": (WORDS, lambda: "\u200b\u200b".encode(), 2),
    "a text with NUL": (WORDS, lambda: b"a\0b", 3),
    "a text written from right to left": (WORDS, lambda: "\u202e\u0634\u0644 \u202cabc".encode(), None),
    "a CSV of formulas": (TABLE, lambda: b"a,b\n1,=cmd|'/c calc'!A0\n", 1),
    "a CSV of missing cells": (TABLE, lambda: b"a,b\nNA,null\n,\n", 2),
    "a CSV without names of columns": (TABLE, lambda: b"a,,\n1,2,3\n", 1),
    "a CSV with old line ends": (TABLE, lambda: b"a,b\r\n1,x\r\n", 1),
}


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("name", DEFINED)
def test_an_odd_item_comes_to_something_defined(name, tmp_path):
    """The same from a path and from bytes, of the announced form, finite; and so many nodes, where that is clear."""
    encoder, make, count = DEFINED[name]
    path = tmp_path / "odd.bin"
    path.write_bytes(make())
    try:
        one, other = encoder([path, path.read_bytes()])
    except MediaError:
        assert name == "a WAV that claims no samples and has some"
        return
    assert count is None or len(one["x"]) == count
    for field, value in one.items():
        assert torch.equal(value, other[field])
        assert torch.isfinite(value).all()


@needs_av
def test_a_video_of_one_frame_is_one_node(tmp_path):
    [nodes] = VideoFrames(PATCHES)([save_video(tmp_path / "one.mp4", frames=1, tone=None)])
    assert nodes["time"].tolist() == [[0.0, pytest.approx(0.1)]]


@needs_pyarrow
def test_a_parquet_file_of_very_many_equal_rows_is_read_as_far_as_wanted(tmp_path):
    encoder = TableRows(columns=TABLE.columns, max_rows=5)
    assert len(encoder([parquet(a=bomb())])[0]["x"]) == 5
    assert encoder.truncated == 1


def test_a_file_beside_and_outside_of_the_manifests_folder_is_read_as_it_is_named(tmp_path):
    """A manifest is written by the user: it may point anywhere, also through a link."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "a.png").write_bytes(picture("PNG"))
    (inner / "link.png").symlink_to(tmp_path / "a.png")
    lines = [f'{{"id": "{i}", "image": "{p}"}}' for i, p in enumerate(("../a.png", tmp_path / "a.png", "link.png"))]
    (inner / "m.jsonl").write_text("\n".join(lines))
    manifest = read_manifest(inner / "m.jsonl")
    pipeline = Pipeline.for_columns(manifest.columns, encoders={"image": PATCHES})
    one, two, three = pipeline([Record(row.id, row.media) for row in manifest.rows])
    assert torch.equal(one.nodes["region"]["x"], two.nodes["region"]["x"])
    assert torch.equal(one.nodes["region"]["x"], three.nodes["region"]["x"])


def test_at_least_forty_kinds_are_tried():
    refused = [REFUSED_PICTURES, REFUSED_SOUNDS, REFUSED_TEXTS, REFUSED_TABLES, REFUSED_VIDEOS]
    assert sum(map(len, refused)) + len(DEFINED) >= 80

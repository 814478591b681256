"""Encoding ahead: the same cache for any number of processes and after any kill, and nothing is lost silently."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from hetgraph import encoding, pipeline
from hetgraph.encoders import Cached, HashWords, ImagePatches, LogMel
from hetgraph.encoding import default_workers, encode_manifest, perform, units, write_samples
from hetgraph.errors import HetgraphError, MediaError
from hetgraph.manifest import Manifest, read_manifest
from hetgraph.pipeline import Pipeline
from hetgraph.quarantine import Quarantine, Unreadable, encode_readable
from hetgraph.shards import Shards
from hetgraph.workflow import encode_rows

ENCODERS = {"image": ImagePatches(2, 2), "text": HashWords(8), "audio": LogMel(stack=20)}


@pytest.fixture
def light(monkeypatch) -> None:
    """Encoders without weights as the defaults."""
    for kind, encoder in ENCODERS.items():
        monkeypatch.setitem(pipeline.DEFAULTS, kind, lambda encoder=encoder: encoder)


def things(folder: Path, count: int = 20, broken: tuple[int, ...] = ()) -> Path:
    """Pictures and texts; every third sample has no text, and what is in the files ``broken`` is no picture."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(count):
        Image.new("RGB", (8, 8), (9 * i % 256, 0, 40)).save(folder / f"{i}.png")
        if i in broken:
            (folder / f"{i}.png").write_bytes(b"GIF89a, or so it says")
        row = {"id": f"s{i}", "image": f"{i}.png", "label": ("red", "blue")[i % 2]}
        row |= {"split": ("train", "train", "valid", "test")[i // 2 % 4]}
        row |= {"text": f"thing number {i}"} if i % 3 else {}
        lines.append(json.dumps(row))
    (folder / "m.jsonl").write_text("\n".join(lines))
    return folder / "m.jsonl"


def pipeline_of(manifest: Manifest, cache: Path | None) -> Pipeline:
    return Pipeline.for_columns(manifest.columns, encoders=ENCODERS, cache=cache)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


# ---- the cache --------------------------------------------------------------------------------------------------


def test_the_cache_is_the_one_that_reading_the_samples_makes(tmp_path) -> None:
    manifest = read_manifest(things(tmp_path))
    told: list[int] = []
    done = encode_manifest(manifest, pipeline_of(manifest, tmp_path / "ahead"), progress=told.append)
    encode_rows(pipeline_of(manifest, tmp_path / "along"), manifest.rows, None, None, "")
    assert files(tmp_path / "ahead") == files(tmp_path / "along")
    texts = sum(1 for i in range(20) if i % 3)
    assert (done.computed, done.found) == ({"image": 20, "text": texts}, {"image": 0, "text": 0})
    assert sum(told) == 20 + texts


@pytest.mark.parametrize("size", [1, 4, 100])
def test_units_hold_every_medium_once_in_the_order_of_the_rows(tmp_path, monkeypatch, size) -> None:
    monkeypatch.setattr(encoding, "UNIT", {"image": size})
    monkeypatch.setattr(encoding, "OTHER_UNIT", 3)
    manifest = read_manifest(things(tmp_path))
    made = list(units(manifest, pipeline_of(manifest, None)))
    for column, most in (("image", size), ("text", 3)):
        expected = [(row.id, row.media[column]) for row in manifest.rows if column in row.media]
        found = [unit for unit in made if unit.column == column]
        pairs = [pair for unit in found for pair in zip(unit.samples, unit.items, strict=True)]
        assert pairs == expected
        assert all(len(unit.items) == most for unit in found[:-1])


def test_only_what_is_new_is_encoded_and_equal_contents_once(tmp_path) -> None:
    manifest = read_manifest(things(tmp_path, 6))
    half = Manifest(manifest.path, list(manifest.rows[:3]), manifest.columns, [])
    cache = tmp_path / "cache"
    assert sum(encode_manifest(half, pipeline_of(half, cache)).computed.values()) == 5
    done = encode_manifest(manifest, pipeline_of(manifest, cache))
    assert (done.computed, done.found) == ({"image": 3, "text": 2}, {"image": 3, "text": 2})
    rows = [manifest.rows[1], manifest.rows[1], manifest.rows[1]]
    twins = Manifest(manifest.path, rows, manifest.columns, [])
    done = encode_manifest(twins, pipeline_of(twins, tmp_path / "other"))
    assert (done.computed, done.found) == ({"image": 1, "text": 1}, {"image": 2, "text": 2})


def test_filling_does_not_read_what_is_there(tmp_path, monkeypatch) -> None:
    cached = Cached(HashWords(4), tmp_path)
    assert cached.fill(["a", "b", "a"]) == 2
    monkeypatch.setattr(Cached, "_load", lambda self, key: pytest.fail("it was read"))
    assert cached.fill(["b", "a"]) == 0
    assert cached.hits == 3


def test_a_cache_is_needed_and_must_be_writable(tmp_path, monkeypatch) -> None:
    manifest = read_manifest(things(tmp_path, 3))
    with pytest.raises(HetgraphError, match="column 'image': encoding ahead needs an encoder with a cache"):
        encode_manifest(manifest, pipeline_of(manifest, None))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hetgraph.encoders.cache._write", full)
    with pytest.raises(HetgraphError, match="cannot be written"):
        encode_manifest(manifest, pipeline_of(manifest, tmp_path / "cache"))


# ---- processes --------------------------------------------------------------------------------------------------

PROGRAM = '''
import os, sys, time
from hetgraph import cli, encoding, pipeline
from hetgraph.encoders import HashWords

class Slow(HashWords):
    """Takes its time, and notes who did what."""

    def encode(self, items):
        with open(os.environ["NOTES"], "a") as notes:
            notes.writelines(f"{os.getpid()} {item.value}\\n" for item in items)
        time.sleep(0.02 * len(items))
        return super().encode(items)

pipeline.DEFAULTS["text"] = lambda: Slow(8)
encoding.UNIT["text"] = 4

if __name__ == "__main__":
    sys.argv = ["hetgraph", *sys.argv[1:]]
    cli.main()
'''


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_a_killed_run_goes_on_and_ends_with_the_cache_of_an_undisturbed_one(tmp_path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    texts = [f"text {i} of many" for i in range(120)]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))

    class Slow(HashWords):
        """Has the fingerprint of the one in the program."""

    Cached(Slow(8), tmp_path / "expected")(texts)
    words = ("encode", tmp_path / "m.jsonl", "--workers", 2, "--cache", tmp_path / "cache")
    command = [sys.executable, tmp_path / "program.py", *map(str, words)]

    def notes(name: str) -> list[tuple[int, str]]:
        lines = (tmp_path / name).read_text().splitlines()
        return [(int(pid), text) for pid, _, text in (line.partition(" ") for line in lines)]

    running = subprocess.Popen(command, env={**os.environ, "NOTES": str(tmp_path / "first")}, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 100
    while len(files(tmp_path / "cache")) < 12:
        assert time.monotonic() < end
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait(60)
    while any(alive(pid) for pid, _ in notes("first")):
        assert time.monotonic() < end, "workers outlive a killed parent"
        time.sleep(0.01)
    kept = files(tmp_path / "cache")
    assert 12 <= len(kept) < len(texts)

    environment = {**os.environ, "NOTES": str(tmp_path / "second")}
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
    assert files(tmp_path / "cache") == files(tmp_path / "expected")
    left = len(texts) - len(kept)
    assert len(files(tmp_path / "cache")) == len(texts)
    assert len(notes("second")) == left, "what was kept is not encoded anew"
    assert f"text: {left} encoded, {len(kept)} known already" in " ".join(resumed.stdout.split())
    assert len({pid for pid, _ in notes("second")}) == 2


def _double(number: int) -> int:
    if number == 13:
        raise HetgraphError("thirteen")
    if number == 17:
        os._exit(1)
    return 2 * number


@pytest.mark.parametrize("workers", [1, 2])
def test_work_comes_back_in_order_and_errors_as_they_were_raised(workers) -> None:
    assert list(perform(_double, range(11), workers)) == [(i, 2 * i) for i in range(11)]
    with pytest.raises(HetgraphError, match=r"^thirteen$"):
        list(perform(_double, range(10, 100), workers))


def test_a_process_that_dies_is_an_error_and_no_endless_wait() -> None:
    with pytest.raises(HetgraphError, match="a process died while it encoded"):
        list(perform(_double, [1, 17, 2, 3, 4, 5], 2))
    with pytest.raises(HetgraphError, match="cannot be sent to other processes"):
        list(perform(lambda number: number, [1], 2))
    with pytest.raises(HetgraphError, match="at least 1 worker"):
        list(perform(_double, [1], 0))


def test_threads_of_torch_are_one_while_encoding_here_and_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert [found for _, found in perform(lambda _: torch.get_num_threads(), [0], 1)] == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_few_media_get_few_processes() -> None:
    assert default_workers(10) == 1
    assert 1 <= default_workers(10**6) <= (os.cpu_count() or 1)


# ---- what cannot be read ----------------------------------------------------------------------------------------


class Picky(HashWords):
    """Refuses some texts and notes what it is asked."""

    def __init__(self, bad: set[str]) -> None:
        super().__init__(4)
        self.bad, self.calls = bad, []

    def encode(self, items):
        self.calls.append(len(items))
        for item in items:
            if item.value in self.bad:
                raise item.error("it is bad")
        return super().encode(items)


@pytest.mark.parametrize("bad", [set(), {3}, {0, 15}, {4, 5, 6}, set(range(16))])
def test_everything_readable_is_encoded_and_everything_else_named(bad) -> None:
    texts = [f"text {i}" for i in range(16)]
    encoder = Picky({texts[i] for i in bad})
    found: list[Unreadable] = []
    nodes = encode_readable(encoder, texts, [f"s{i}" for i in range(16)], "text", found.append)
    for i, (made, text) in enumerate(zip(nodes, texts, strict=True)):
        assert (made is None) == (i in bad)
        assert made is None or torch.equal(made["x"], HashWords(4)([text])[0]["x"])
    assert found == [Unreadable(f"s{i}", "text", None, "it is bad") for i in sorted(bad)]
    if len(bad) == 1:
        assert len(encoder.calls) <= 1 + 2 * 4, "halves, not one by one"


def test_without_a_place_to_put_them_aside_unreadable_media_stop(tmp_path) -> None:
    manifest = read_manifest(things(tmp_path, broken=(5,)))
    for workers in (1, 2):
        with pytest.raises(MediaError, match=r"sample 's5': image: '.*5\.png': expected a picture"):
            encode_manifest(manifest, pipeline_of(manifest, tmp_path / "cache"), workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_files_are_put_aside_by_sample_column_path_and_reason(tmp_path, workers) -> None:
    path = things(tmp_path, broken=(5, 6))
    (tmp_path / "11.png").unlink()
    manifest = read_manifest(path, check_files=False)
    quarantine = Quarantine()
    done = encode_manifest(manifest, pipeline_of(manifest, tmp_path / "c"), workers=workers, quarantine=quarantine)
    assert done.computed["image"] == 17
    assert [(one.sample, one.column, one.path) for one in quarantine.found] == [
        (f"s{i}", "image", str(tmp_path / f"{i}.png")) for i in (5, 6, 11)
    ]
    assert quarantine.found[0].reason == "expected a picture, got something that is not one (or of an unknown format)"
    assert quarantine.found[2].reason == "no such file"
    quarantine.write(tmp_path / "report.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert lines[2] == {"sample": "s11", "column": "image", "path": str(tmp_path / "11.png"), "reason": "no such file"}
    Quarantine().write(tmp_path / "report.jsonl")
    assert not (tmp_path / "report.jsonl").exists(), "an old report is no report of this run"


def test_samples_stay_without_what_cannot_be_read_and_those_with_nothing_else_are_left_out(tmp_path) -> None:
    manifest = read_manifest(things(tmp_path, broken=(5, 6)))
    quarantine = Quarantine()
    samples = encode_rows(pipeline_of(manifest, None), manifest.rows, None, None, "all", quarantine)
    assert [sample.id for sample in samples] == [f"s{i}" for i in range(20) if i != 6]
    assert set(samples[5].nodes) == {"token"}
    assert set(samples[4].nodes) == {"token", "region"}
    assert quarantine.left_out == ["s6"]
    assert quarantine.summary() == "2 media could not be read; 1 sample had nothing else and took no part"


# ---- samples in shards ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (3, 1), (7, 2), (None, 1)])
def test_shards_hold_the_samples_that_the_pipeline_makes(tmp_path, monkeypatch, shards, workers) -> None:
    monkeypatch.setattr(encoding, "SHARD", 6)
    manifest = read_manifest(things(tmp_path, broken=(6,)))
    reader = pipeline_of(manifest, tmp_path / "cache")
    count = write_samples(manifest, reader, tmp_path / "out", shards=shards, workers=workers, skip=True)
    found = Shards(tmp_path / "out", empty=True)
    assert count == len(found) == 20
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == (shards or 4)
    expected = encode_rows(reader, manifest.rows, None, None, "", Quarantine())
    assert list(found.ids) == [row.id for row in manifest.rows]
    assert [sample.target for sample in found] == [row.label for row in manifest.rows]
    for sample, other in zip(Shards(tmp_path / "out"), expected, strict=True):
        assert sample.id == other.id
        assert sample.nodes.keys() == other.nodes.keys()
        for name, fields in sample.nodes.items():
            assert all(torch.equal(value, other.nodes[name][field]) for field, value in fields.items())
    assert found.schema == reader.schema
    tests = [row.id for row in manifest.split("test")]
    assert list(Shards(tmp_path / "out", split="test", empty=True).ids) == tests


def test_an_impossible_number_of_shards_is_refused(tmp_path) -> None:
    manifest = read_manifest(things(tmp_path, 3))
    with pytest.raises(HetgraphError, match="expected 1 to 3 shards for 3 samples, got 4"):
        write_samples(manifest, pipeline_of(manifest, None), tmp_path / "out", shards=4)


# ---- as a command -----------------------------------------------------------------------------------------------


def test_encode_says_what_it_did_and_fit_finds_everything_in_the_cache(tmp_path, light, typed, monkeypatch) -> None:
    path = things(tmp_path / "data")
    report = tmp_path / "did.json"
    code, out, err = typed(
        "encode", path, "--workers", 1, "--output", tmp_path / "out", "--shards", 2, "--json", report
    )
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    for part in ("image: 20 encoded, 0 known already", "text: 13 encoded", "20 samples in"):
        assert part in flat
    assert json.loads(report.read_text()) == {
        "computed": {"image": 20, "text": 13},
        "found": {"image": 0, "text": 0},
    }
    assert len(Shards(tmp_path / "out", split="train")) == 12
    for encoder in (ImagePatches, HashWords):
        monkeypatch.setattr(encoder, "encode", lambda *_: pytest.fail("it was encoded again"))
    code, out, err = typed("encode", path, "--workers", 1)
    assert "image: 0 encoded, 20 known already" in " ".join(out.split())
    small = ("--width", 16, "--layers", 1, "--heads", 2, "--epochs", 1)
    code, out, err = typed("fit", path, "--output", tmp_path / "model", *small)
    assert (code, err) == (0, "")


def test_commands_stop_at_an_unreadable_file_or_go_on_without_it_as_they_are_told(tmp_path, light, typed) -> None:
    path = things(tmp_path / "data", 24, broken=(5, 6, 22))
    report = tmp_path / "data" / "m.unreadable.jsonl"
    model, small = tmp_path / "model", ("--width", 16, "--layers", 1, "--heads", 2, "--epochs", 1)
    commands = {
        "encode": ("encode", path),
        "fit": ("fit", path, "--output", model, *small),
        "evaluate": ("evaluate", path, "--model", model, "--split", "all"),
        "embed": ("embed", path, "--model", model, "--output", tmp_path / "z.safetensors"),
        "compare": (
            *("compare", path, "--methods", "sum", "--seeds", 1, "--epochs", 1, "--lr", 0.01, "--dropout", 0.1),
            *("--width", 8, "--output", tmp_path / "runs", "--heads", 2, "--layers", 1),
        ),
    }
    for name, words in commands.items():
        code, out, err = typed(*words, "--on-error", "skip")
        assert code == 1, (name, err)
        assert "3 media could not be read" in " ".join(out.split()), name
        assert ("1 sample had nothing else" in " ".join(out.split())) == (name != "encode")
        assert {json.loads(line)["sample"] for line in report.read_text().splitlines()} == {"s5", "s6", "s22"}
        report.unlink()
        code, out, err = typed(*words)
        assert code == 2, name
        assert "5.png': expected a picture" in err
        assert not report.exists()
    (tmp_path / "data" / "7.png").unlink()
    code, out, err = typed("encode", path)
    assert "expected a file, found nothing at '7.png'" in err
    code, out, err = typed("encode", path, "--on-error", "skip", "--report", tmp_path / "mine.jsonl")
    assert code == 1
    assert len((tmp_path / "mine.jsonl").read_text().splitlines()) == 4
    assert not report.exists()


def test_with_nothing_unreadable_skipping_changes_nothing(tmp_path, light, typed) -> None:
    path = things(tmp_path, 6)
    (tmp_path / "m.unreadable.jsonl").write_text("old\n")
    code, out, _ = typed("encode", path, "--on-error", "skip")
    assert code == 0
    assert "could not be read" not in out
    assert not (tmp_path / "m.unreadable.jsonl").exists()


def test_shards_without_an_output_are_refused(tmp_path, light, typed) -> None:
    code, _, err = typed("encode", things(tmp_path, 3), "--shards", 2)
    assert code == 2
    assert "--shards is about the files of --output" in err


def _threads(piece: int) -> tuple[int, list[int]]:
    return torch.get_num_threads(), [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_have_one_thread_in_products_too(workers, monkeypatch) -> None:
    # what a machine with several cores has by default
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with threadpool_limits(2, "blas"):
        for _, (own, blas) in perform(_threads, [0, 1], workers):
            assert own == 1
            assert blas
            assert set(blas) == {1}
        assert set(_threads(0)[1]) == {2}

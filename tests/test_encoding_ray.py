"""Encoding by Ray: the cache, the shards and the report of the local engine, also when a worker is killed midway."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from extras import needs_ray
from test_encoding import light, things  # noqa: F401

from hetgraph import encoding, encoding_ray
from hetgraph.encoders import HashWords, ImagePatches
from hetgraph.encoding import encode_manifest, write_samples
from hetgraph.errors import HetgraphError, MediaError
from hetgraph.fusion import Fusion
from hetgraph.manifest import read_manifest
from hetgraph.objectives import Classification
from hetgraph.pipeline import Pipeline
from hetgraph.predictor import Predictor
from hetgraph.quarantine import Quarantine
from hetgraph.shards import Shards
from hetgraph.training import TrainingSettings, fit

# The command in a Ray that is kept running, then pieces of which one fails.
PROGRAM = '''
import os, sys, time

import torch

from hetgraph import cli, encoding, encoding_ray, pipeline
from hetgraph.encoders import HashWords, ImagePatches
from hetgraph.errors import HetgraphError, MediaError

class Slow(HashWords):
    """Takes its time, and notes who did what."""

    def encode(self, items):
        with open(os.environ["NOTES"], "a") as notes:
            notes.writelines(f"{os.getpid()} {torch.get_num_threads()} {item.value}\\n" for item in items)
        end = time.monotonic() + 300
        while len({line.split()[0] for line in open(os.environ["NOTES"])}) < 2 and time.monotonic() < end:
            time.sleep(0.05)  # both take part, however long the other one takes to start
        time.sleep(0.05 * len(items))
        return super().encode(items)

def work(number):
    if number == 2:
        raise MediaError("two")
    return os.getpid(), 2 * number

if __name__ == "__main__":
    pipeline.DEFAULTS["text"] = lambda: Slow(8)
    pipeline.DEFAULTS["image"] = lambda: ImagePatches(2, 2)
    encoding.UNIT["text"] = 4
    sys.argv = ["hetgraph", *sys.argv[1:]]
    with encoding_ray.running(2):
        import ray

        print("address", *(node["NodeManagerAddress"] for node in ray.nodes()))
        try:
            cli.main()
        except SystemExit as end:
            print("ended with", end.code, "running", ray.is_initialized())
        try:
            for piece, (pid, made) in encoding_ray.perform(work, range(9), 1):
                print("made", piece, made, pid != os.getpid())
        except HetgraphError as error:
            print(type(error).__name__, error)
    print("running", ray.is_initialized())
'''


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Slow(HashWords):
    """Has the fingerprint of the one in the program."""


@needs_ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="kills processes as Linux has them")
def test_one_of_two_workers_is_killed_and_the_shards_are_those_of_the_local_engine(tmp_path) -> None:
    path = things(tmp_path / "data", 60, broken=(5, 6, 50))
    manifest = read_manifest(path)
    mine = Pipeline.for_columns(
        manifest.columns, encoders={"text": Slow(8), "image": ImagePatches(2, 2)}, cache=tmp_path / "expected"
    )
    aside = Quarantine()
    encode_manifest(manifest, mine, quarantine=aside)
    write_samples(manifest, mine, tmp_path / "local", shards=7, skip=True)

    (tmp_path / "program.py").write_text(PROGRAM)
    options = ("--on-error", "skip", "--report", "report.jsonl", "--json", "did.json", "--workers", "2")
    command = [sys.executable, "program.py", "encode", "data/m.jsonl", "--engine", "ray", *options]
    command += ["--cache", "cache", "--output", "ray", "--shards", "7"]
    environment = {**os.environ, "NOTES": str(tmp_path / "notes")}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        killed = _kill_one(tmp_path / "notes", running)
        out, _ = running.communicate(timeout=400)
    assert running.returncode == 0, out

    assert files(tmp_path / "cache") == files(tmp_path / "expected")
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    report = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [(one["sample"], one["reason"]) for one in report] == [(one.sample, one.reason) for one in aside.found]
    assert [one["path"] for one in report] == [f"data/{i}.png" for i in (5, 6, 50)]
    lines = [line.split(" ", 2) for line in (tmp_path / "notes").read_text().splitlines()]
    workers = {int(pid) for pid, _, _ in lines}
    assert len(workers) == 3, "two, and the one that took the dead one's place"
    assert killed in workers
    assert {threads for _, threads, _ in lines} == {"1"}
    texts = [row.media["text"] for row in manifest.rows if "text" in row.media]
    assert {text for *_, text in lines} == set(texts)
    assert len(texts) <= len(lines) <= len(texts) + 8, "what the dead one had in hand is done again, and no more"
    done = json.loads((tmp_path / "did.json").read_text())
    assert done["computed"]["image"] + done["found"]["image"] == 57
    assert done["computed"]["text"] + done["found"]["text"] == len(texts)

    told = out.splitlines()
    assert "address 127.0.0.1" in told, out
    assert "ended with 1 running True" in told, out
    assert [line for line in told if line.startswith("made")] == ["made 0 0 True", "made 1 2 True"]
    assert "MediaError two" in told
    assert told[-1] == "running False"

    train = Shards(tmp_path / "ray", split="train")
    model = Predictor(Fusion(train.schema, 8, layers=1, heads=2), Classification(("red", "blue")))
    history = fit(model, train, settings=TrainingSettings(epochs=2, batch_size=8), progress=False)
    assert len(history.loss) == 2


def _kill_one(notes: Path, running: subprocess.Popen) -> int:
    """Kill a worker as soon as both have begun something; gives which."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert running.poll() is None, running.stdout and running.stdout.read()
        lines = notes.read_text().splitlines() if notes.exists() else []
        found = list(dict.fromkeys(int(line.split(" ")[0]) for line in lines))
        if len(found) == 2:
            os.kill(found[0], signal.SIGKILL)
            return found[0]
        time.sleep(0.02)
    raise AssertionError("two workers never began")


class FakeRay:
    """Notes how it is started and stopped, and what the environment was meanwhile."""

    def __init__(self, runs: bool) -> None:
        self.runs, self.calls, self.seen = runs, [], {}

    def is_initialized(self) -> bool:
        return self.runs

    def init(self, *words, **options) -> None:
        self.calls.append((words, options))
        self.seen = {name: os.environ.get(name) for name in encoding_ray.ALONE}
        self.runs = True

    def shutdown(self) -> None:
        self.runs = False


def test_ray_is_started_alone_and_stopped_or_used_as_it_is(monkeypatch) -> None:
    monkeypatch.setattr(encoding_ray, "_quiet", nullcontext)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    before = dict(os.environ)
    own, there, cluster = FakeRay(False), FakeRay(True), FakeRay(False)
    for fake in (own, there):
        monkeypatch.setattr(encoding_ray, "_ray", lambda fake=fake: fake)
        with encoding_ray.running(3):
            assert fake.runs
            assert dict(os.environ) == before
    [(words, options)] = own.calls
    assert words == ("local",)
    assert (options["num_cpus"], options["include_dashboard"], options["log_to_driver"]) == (3, False, False)
    assert own.seen["RAY_USAGE_STATS_ENABLED"] == "0"
    assert own.seen["https_proxy"].startswith("http://127.0.0.1:")
    assert not own.runs
    assert (there.calls, there.runs) == ([], True)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(encoding_ray, "_ray", lambda: cluster)
    with encoding_ray.running(3):
        pass
    [(words, options)] = cluster.calls
    assert words == ("10.0.0.1:6379",)
    assert "num_cpus" not in options


def test_without_ray_its_engine_says_what_to_install(tmp_path, light, typed, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setitem(sys.modules, "ray", None)
    path = things(tmp_path, 3)
    code, _, err = typed("encode", path, "--engine", "ray", "--workers", 1)
    assert code == 2
    assert "pip install 'hetgraph[ray]'" in err
    code, _, _ = typed("encode", path, "--engine", "local", "--workers", 1)
    assert code == 0


def test_an_unknown_engine_and_no_worker_are_refused(tmp_path) -> None:
    manifest = read_manifest(things(tmp_path, 3))
    mine = Pipeline.for_columns(
        manifest.columns, encoders={"text": HashWords(8), "image": ImagePatches(2, 2)}, cache=tmp_path / "cache"
    )
    for call in (lambda: encode_manifest(manifest, mine, engine="spark"), lambda: encoding.engine_of("")):
        with pytest.raises(HetgraphError, match="known: local, ray"):
            call()
    with pytest.raises(HetgraphError, match="at least 1 worker"):
        list(encoding_ray.perform(abs, [1], 0))


def _above_zero(number: int) -> int:
    if number < 0:
        raise MediaError("below zero")
    return number + 1


def test_a_stage_gives_what_the_job_makes_or_raises(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # as it was before, at the end
    before = torch.get_num_threads()
    try:
        stage = encoding_ray._Stage(pickle.dumps(_above_zero), str(tmp_path / ".."), {"HETGRAPH_TEST": None}, "run", 2)
        assert Path.cwd() == tmp_path.parent
        made = stage({"number": [3], "piece": [pickle.dumps(1)]})
        assert (made["number"], pickle.loads(made["found"][0])) == ([3], (True, 2))
        good, error = pickle.loads(stage({"number": [0], "piece": [pickle.dumps(-1)]})["found"][0])
        assert (good, type(error), str(error)) == (False, MediaError, "below zero")
        mark = Path(encoding_ray.tempfile.gettempdir(), "hetgraph-run-5")
        mark.write_text("..")  # two have begun, and did not come to an end
        good, error = pickle.loads(stage({"number": [5], "piece": [pickle.dumps(1)]})["found"][0])
        assert (good, type(error)) == (False, HetgraphError)
        assert not mark.exists()
    finally:
        torch.set_num_threads(before)

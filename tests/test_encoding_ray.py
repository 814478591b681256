"""Encoding by Ray: the cache, the shards and the report of the local engine, also when a worker is killed midway."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
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

# The command, then the same process with a Ray that was there before: of pieces that fail, and one that kills.
PROGRAM = '''
import os, signal, sys, time
from pathlib import Path

import torch

from hetgraph import cli, encoding, encoding_ray, pipeline
from hetgraph.encoders import HashWords, ImagePatches
from hetgraph.errors import HetgraphError, MediaError

NOTES = os.environ["NOTES"]

class Slow(HashWords):
    """Takes its time, and notes who did what."""

    def encode(self, items):
        with open(NOTES, "a") as notes:
            notes.writelines(f"{os.getpid()} {torch.get_num_threads()} {item.value}\\n" for item in items)
        time.sleep(0.05 * len(items))
        return super().encode(items)

def work(number):
    if number == 5:
        raise MediaError("five")
    if number == 7:
        with open(NOTES, "a") as notes:
            notes.write("deadly\\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), 2 * number

if __name__ == "__main__":
    import ray

    pipeline.DEFAULTS["text"] = lambda: Slow(8)
    pipeline.DEFAULTS["image"] = lambda: ImagePatches(2, 2)
    encoding.UNIT["text"] = 4
    words, sys.argv = sys.argv[1:], ["hetgraph", *sys.argv[1:]]
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    print("ended with", code, "running", ray.is_initialized())
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    encoding_ray.WINDOW, encoding_ray.LIVES = 3, 2
    try:
        # the fifth is in the second window
        for piece, (pid, made) in encoding_ray.perform(work, iter(range(9)), 1):
            print("made", piece, made, pid != os.getpid())
    except HetgraphError as error:
        print(type(error).__name__, error)
    try:
        print(list(encoding_ray.perform(work, [7], 1)))
    except HetgraphError as error:
        print(type(error).__name__, error)
    print("left", ray.is_initialized())
    ray.shutdown()
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
    # the caller's environment asks for statistics; the folder of the package is where the tests found it
    environment = {**os.environ, "NOTES": str(tmp_path / "notes"), "RAY_USAGE_STATS_ENABLED": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        killed = _kill_one(tmp_path / "notes", running)
        out, _ = running.communicate(timeout=120)
    assert running.returncode == 0, out

    assert files(tmp_path / "cache") == files(tmp_path / "expected")
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    report = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [(one["sample"], one["reason"]) for one in report] == [(one.sample, one.reason) for one in aside.found]
    assert [one["path"] for one in report] == [f"data/{i}.png" for i in (5, 6, 50)]
    lines = [line.split(" ", 2) for line in (tmp_path / "notes").read_text().splitlines() if line != "deadly"]
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
    assert "ended with 1 running False" in told, out
    assert [line for line in told if line.startswith("made")] == [f"made {i} {2 * i} True" for i in range(5)]
    assert "MediaError five" in told
    assert any(line.startswith("HetgraphError Ray gave up while it encoded") for line in told), out
    assert "left True" in told
    assert (tmp_path / "notes").read_text().count("deadly") == 2

    train = Shards(tmp_path / "ray", split="train")
    model = Predictor(Fusion(train.schema, 8, layers=1, heads=2), Classification(("red", "blue")))
    history = fit(model, train, settings=TrainingSettings(epochs=2, batch_size=8), progress=False)
    assert len(history.loss) == 2


def _kill_one(notes: Path, running: subprocess.Popen) -> int:
    """Kill a worker as soon as both have done something; gives which."""
    end = time.monotonic() + 100
    while time.monotonic() < end:
        assert running.poll() is None, running.stdout and running.stdout.read()
        lines = notes.read_text().splitlines() if notes.exists() else []
        found = list(dict.fromkeys(int(line.split(" ")[0]) for line in lines))
        if len(found) == 2 and len(lines) >= 12:
            os.kill(found[0], signal.SIGKILL)
            return found[0]
        time.sleep(0.01)
    raise AssertionError("two workers never began")


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
        stage = encoding_ray._Stage(pickle.dumps(_above_zero), str(tmp_path / ".."))
        assert Path.cwd() == tmp_path.parent
        made = stage({"number": [3], "piece": [pickle.dumps(1)]})
        assert (made["number"], pickle.loads(made["found"][0])) == ([3], (True, 2))
        good, error = pickle.loads(stage({"number": [0], "piece": [pickle.dumps(-1)]})["found"][0])
        assert (good, type(error), str(error)) == (False, MediaError, "below zero")
    finally:
        torch.set_num_threads(before)

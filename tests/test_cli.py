"""The command line as a user types it: what comes out, and one clear message when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from hetgraph import cli, cli_common, pipeline, workflow
from hetgraph.doctor import Finding
from hetgraph.encoders import HashWords, ImagePatches, LogMel
from hetgraph.loader import GraphLoader
from hetgraph.manifest import read_manifest
from hetgraph.pipeline import Pipeline
from hetgraph.tasks import demo as scenes
from hetgraph.workflow import embed_samples, encode_rows, evaluate_manifest, load_model

SMALL = ("--width", "16", "--layers", "1", "--heads", "2", "--epochs", "3", "--lr", "0.01")
KNOWLEDGE = '<u:red> <http://www.w3.org/2000/01/rdf-schema#label> "red" .\n<u:red> <u:is> <u:warm> .\n'


def things(folder: Path, count: int = 12) -> Path:
    """A manifest of red and blue pictures with texts that also say so; every third has no picture or no text."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(count):
        label = ("red", "blue")[i % 2]
        Image.new("RGB", (32, 32), label).save(folder / f"{i}.png")
        row = {"id": f"thing {i}", "label": label, "split": ("train", "train", "valid", "test")[i // 2 % 4]}
        row |= {"image": f"{i}.png"} if i % 3 != 1 else {}
        row |= {"text": f"this thing is {label}"} if i % 3 != 2 else {}
        lines.append(json.dumps(row))
    (folder / "things.jsonl").write_text("\n".join(lines))
    return folder / "things.jsonl"


@pytest.fixture
def light(monkeypatch) -> None:
    """Encoders without weights as the defaults."""
    for kind, encoder in (("image", ImagePatches(2, 2)), ("text", HashWords(8)), ("audio", LogMel(stack=20))):
        monkeypatch.setitem(pipeline.DEFAULTS, kind, lambda encoder=encoder: encoder)


@pytest.fixture
def run(typed):
    """Type a command; gives exit code, output and errors."""
    return typed


@pytest.fixture
def refused(run):
    """Type a command that must fail; gives its one message on one line."""

    def type_in(*words: object) -> str:
        code, out, err = run(*words)
        assert code == 2, out
        assert err.startswith("error: ")
        assert err.count("error:") == 1
        assert "Traceback" not in out + err
        return err.removeprefix("error: ").rstrip("\n")

    return type_in


@pytest.fixture
def fitted(tmp_path, light, run) -> tuple[Path, Path]:
    manifest = things(tmp_path / "data", 16)
    code, _, err = run("fit", manifest, "--output", tmp_path / "model", *SMALL)
    assert code == 0, err
    return manifest, tmp_path / "model"


def test_a_user_fits_and_evaluates_a_dozen_pictures_and_texts_with_two_commands(tmp_path) -> None:
    manifest, model, scores = things(tmp_path, 12), tmp_path / "model", tmp_path / "scores.json"
    for words in (
        ("fit", manifest, "--output", model),
        ("evaluate", manifest, "--model", model, "--split", "test", "--json", scores),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "hetgraph", *map(str, words)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    found = json.loads(scores.read_text())
    assert found["accuracy"] == 1.0
    assert {"accuracy", "f1_macro", "loss"} <= set(found)
    assert (tmp_path / ".hetgraph" / "cache").is_dir()


HELP = {
    "demo": ["--output", "--train", "--seed", "--threads"],
    "fit": [
        *("MANIFEST", "--output", "--target", "--use", "--task", "--knowledge", "--epochs", "--batch-size", "--lr"),
        *(
            "--width",
            "--layers",
            "--heads",
            "--dropout",
            "--modality-dropout",
            "--seed",
            "--workers",
            "--cache",
            "--no-cache",
        ),
        *("--on-error", "--report", "--json"),
    ],
    "evaluate": [
        *("MANIFEST", "--model", "--split", "--target", "--knowledge", "--cache", "--no-cache"),
        *("--on-error", "--report", "--json"),
    ],
    "embed": [
        *("MANIFEST", "--model", "--output", "--split", "--knowledge", "--cache", "--no-cache"),
        *("--on-error", "--report"),
    ],
    "compare": [
        *("--data", "--methods", "--seeds", "--tuning-seeds", "--width", "--layers", "--heads", "--budget", "--lr"),
        *("--dropout", "--epochs", "--batch-size", "--patience", "--modality-dropout", "--feature-swap", "--average"),
        *("--single", "--subsets", "--metric", "--target", "--use", "--task", "--knowledge", "--cache", "--no-cache"),
        *("--workers", "--output", "--on-error", "--report", "--json", "--plot"),
    ],
    "encode": [
        *(
            "MANIFEST",
            "--use",
            "--workers",
            "--engine",
            "--output",
            "--shards",
            "--format",
            "--target",
            "--knowledge",
            "--cache",
        ),
        *("--on-error", "--report", "--json"),
    ],
    "show": ["MANIFEST", "--id", "--output", "--use", "--target", "--knowledge", "--cache", "--no-cache"],
    "doctor": [],
}


def test_help_lists_the_commands() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"])
    assert shown.exit_code == 0
    assert all(name in shown.output for name in HELP)
    assert CliRunner().invoke(cli.app, []).output.startswith("Usage:")


@pytest.mark.parametrize("command", HELP)
def test_the_help_of_a_command_mentions_its_options(command) -> None:
    shown = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in HELP[command]:
        assert option in shown.output.replace("manifest", "MANIFEST")
    listed = [word for line in shown.output.splitlines() if (word := line.strip().split(" ")[0]).startswith("--")]
    assert set(listed) == {option for option in HELP[command] if option.startswith("--")} | {"--help"}


def test_fit_says_what_it_read_and_decided_and_writes_the_scores(tmp_path, light, run) -> None:
    manifest = things(tmp_path, 16)
    scores = tmp_path / "new" / "scores.json"
    code, out, err = run("fit", manifest, "--output", tmp_path / "model", *SMALL, "--json", scores)
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    for part in ("16 samples (8 train, 4 valid, 4 test)", "media: image, text", "task: classification", "3 epochs"):
        assert part in flat
    assert set(json.loads(scores.read_text())) == {"valid", "test"}
    assert json.loads(scores.read_text()) == json.loads((tmp_path / "model" / "history.json").read_text())["scores"]


def test_workers_build_the_graphs_of_the_same_model(fitted, run, tmp_path, monkeypatch) -> None:
    manifest, model = fitted
    helped = []
    real = GraphLoader._in_background
    monkeypatch.setattr(GraphLoader, "_in_background", lambda self: helped.append(self.workers) or real(self))
    code, _, err = run("fit", manifest, "--output", tmp_path / "helped", *SMALL, "--workers", 1)
    assert (code, err, helped) == (0, "", [1])
    weights = [(folder / "model.safetensors").read_bytes() for folder in (model, tmp_path / "helped")]
    assert weights[0] == weights[1]


def test_evaluate_writes_what_python_finds(fitted, run, tmp_path) -> None:
    manifest, model = fitted
    for split in ("test", "all"):
        code, out, _ = run("evaluate", manifest, "--model", model, "--split", split, "--json", tmp_path / "s.json")
        expected = evaluate_manifest(read_manifest(manifest), *load_model(model), split)
        assert code == 0
        assert json.loads((tmp_path / "s.json").read_text()) == expected
        assert f"{expected['accuracy']:.4f}" in out


@pytest.mark.parametrize("suffix", ["safetensors", "parquet"])
def test_embed_writes_what_python_gives(fitted, run, tmp_path, suffix) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed") if suffix == "parquet" else None
    manifest, model = fitted
    path = tmp_path / f"z.{suffix}"
    code, out, err = run("embed", manifest, "--model", model, "--output", path)
    assert (code, err) == (0, "")
    assert "16 samples, Z [16, 16]" in out
    rows = read_manifest(manifest).rows
    loaded, reader = load_model(model)
    z, nodes, owner = embed_samples(loaded, encode_rows(reader, rows, None, None, ""))
    if parquet is None:
        found = load_file(path)
        assert torch.equal(found["z"], z)
        assert all(torch.equal(found[f"nodes/{n}"], nodes[n]) for n in nodes)
        assert all(torch.equal(found[f"sample/{n}"], owner[n]) for n in nodes)
        with safe_open(path, "pt") as file:
            assert json.loads(file.metadata()["ids"]) == [row.id for row in rows]
        return
    table = parquet.read_table(path).to_pylist()
    assert [line["id"] for line in table] == [row.id for row in rows]
    assert [line["z"] for line in table] == z.tolist()
    for name in nodes:
        assert [state for line in table for state in line[name]] == nodes[name].tolist()
        assert [len(line[name]) for line in table] == torch.bincount(owner[name], minlength=len(rows)).tolist()


def test_only_the_wanted_columns_another_target_and_no_cache(tmp_path, light, run) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ["id,text,text:title,mood,split"]
    lines += [f"{i},a {m} day,title {i},{m},{'train' if i < 8 else 'test'}" for i, m in enumerate(["good", "bad"] * 6)]
    (folder / "m.csv").write_text("\n".join(lines))
    words = ("--target", "mood", "--use", "text", "--no-cache")
    code, _, err = run("fit", folder / "m.csv", "--output", tmp_path / "model", *SMALL, *words)
    assert (code, err) == (0, "")
    assert list(load_model(tmp_path / "model")[0].schema.nodes) == ["token"]
    assert load_model(tmp_path / "model")[0].objective.classes == ("bad", "good")
    assert os.listdir(folder) == ["m.csv"]


def test_a_knowledge_graph_is_read_and_needed_again(tmp_path, light, run, refused) -> None:
    manifest = things(tmp_path, 16)
    graph = tmp_path / "k.nt"
    graph.write_text(KNOWLEDGE)
    model = tmp_path / "model"
    assert run("fit", manifest, "--output", model, *SMALL, "--knowledge", graph)[0] == 0
    assert "entity" in load_model(model, graph=cli_common.graph(graph))[0].schema.nodes
    assert run("evaluate", manifest, "--model", model, "--knowledge", graph)[0] == 0
    assert "trained with a knowledge graph; pass it again" in refused("evaluate", manifest, "--model", model)
    graph.write_text("<u:red> <u:is> .\n")
    assert str(graph) in refused("evaluate", manifest, "--model", model, "--knowledge", graph)
    assert "none.nt" in refused("evaluate", manifest, "--model", model, "--knowledge", tmp_path / "none.nt")


@pytest.mark.parametrize("command", ["fit", "evaluate", "embed"])
def test_a_missing_manifest_is_one_message(tmp_path, refused, command) -> None:
    options = {"fit": ["--output", tmp_path / "m"], "evaluate": ["--model", "m"], "embed": ["--model", "m"]}[command]
    options += ["--output", tmp_path / "z.parquet"] if command == "embed" else []
    assert refused(command, tmp_path / "none.jsonl", *options) == f"no manifest {tmp_path / 'none.jsonl'}"
    assert os.listdir(tmp_path) == []


def test_faults_of_a_manifest_are_listed_with_their_brackets(tmp_path, refused) -> None:
    path = tmp_path / "[bold]m.jsonl"
    path.write_text('{"text": "x", "split": "[red]"}\n{"text": ["/"]}')
    head, *faults = refused("fit", path, "--output", tmp_path / "m").split("\n  ")
    assert head == f"{path}: 2 faults"
    assert faults == [
        "line 1, column split: expected train, valid or test, got '[red]'",
        "line 2, column text: expected a text, got ['/']",
    ]


def silence(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))


def truncated(path: Path) -> None:
    Image.effect_noise((64, 64), 80).save(path)
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("column", "name", "make", "fault"),
    [
        ("image", "broken.png", truncated, "the picture is damaged or truncated"),
        ("image", "text.png", lambda path: path.write_text("hello"), "expected a picture"),
        ("audio", "text.wav", lambda path: path.write_text("hello"), "expected a sound"),
        ("audio", "empty.wav", silence, "the sound has no samples"),
        ("audio:x", "zero.wav", lambda path: path.write_bytes(b""), "expected a sound, got 0 bytes"),
    ],
    ids=["truncated", "text as picture", "text as sound", "no samples", "no bytes"],
)
def test_a_broken_file_is_named_with_its_sample_and_nothing_is_written(
    tmp_path, light, refused, column, name, make, fault
) -> None:
    manifest = things(tmp_path, 12)
    make(tmp_path / name)
    row = {"id": "odd", column: name, "label": "red", "split": "train"}
    manifest.write_text(manifest.read_text() + "\n" + json.dumps(row))
    message = refused("fit", manifest, "--output", tmp_path / "model", *SMALL)
    assert message.startswith(f"sample 'odd': {column}: '{tmp_path / name}': {fault}")
    assert not (tmp_path / "model").exists()


def test_a_label_that_training_did_not_have_is_named(fitted, refused, tmp_path) -> None:
    (tmp_path / "m.csv").write_text("id,text,label\nodd,a green thing,green\n")
    message = refused("evaluate", tmp_path / "m.csv", "--model", fitted[1], "--split", "all")
    assert message == "sample 'odd': label 'green' was not seen in training; known: blue, red"


def test_an_unknown_split_is_named_with_those_there_are(fitted, refused) -> None:
    message = refused("evaluate", fitted[0], "--model", fitted[1], "--split", "final")
    assert message == f"{fitted[0]}: no sample of split 'final'; it has test, train, valid"


def test_a_folder_without_a_whole_model_is_named(fitted, refused, tmp_path) -> None:
    manifest, model = fitted
    assert "no folder" in refused("evaluate", manifest, "--model", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused("evaluate", manifest, "--model", tmp_path / "empty")
    (model / "pipeline.json").unlink()
    assert "pipeline.json: no pipeline" in refused("evaluate", manifest, "--model", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert str(weights) in refused("evaluate", manifest, "--model", model)


def test_a_model_of_another_class_or_schema_is_refused(fitted, refused, tmp_path) -> None:
    manifest, model = fitted
    loaded, reader = load_model(model)
    loaded.fusion.save_pretrained(tmp_path / "fusion")
    reader.save(tmp_path / "fusion")
    message = refused("evaluate", manifest, "--model", tmp_path / "fusion")
    assert "Fusion" in message
    assert "Predictor" in message
    Pipeline.for_columns({"text": "text", "image": "image"}, encoders={"text": HashWords(9)}).save(model)
    assert "pipeline and model differ" in refused(
        "embed", manifest, "--model", model, "--output", tmp_path / "z.parquet"
    )


def test_impossible_settings_are_one_message(tmp_path, light, refused, fitted) -> None:
    manifest, model = fitted
    fresh = ("fit", manifest, "--output", tmp_path / "new")
    assert "belongs to another run" in refused("fit", manifest, "--output", model, *SMALL, "--seed", "1")
    assert "impossible training settings" in refused(*fresh, "--lr", "0")
    assert "heads" in refused(*fresh, "--width", "10", "--heads", "4")
    assert "no column 'audio'" in refused(*fresh, "--use", "audio")
    assert "no sample has a value in the column 'colour'" in refused(*fresh, "--target", "colour")
    assert "regression needs a number" in refused(*fresh, "--task", "regression")
    message = refused("embed", manifest, "--model", model, "--output", tmp_path / "z.csv")
    assert message.endswith("expected .safetensors or .parquet, got .csv")
    assert not (tmp_path / "new" / "model.safetensors").exists()


@pytest.mark.parametrize("words", [["--task", "poetry"], ["--epochs", "0"], ["--width", "wide"], ["--unknown"]])
def test_options_that_make_no_sense_end_with_code_2(tmp_path, run, words) -> None:
    code, out, err = run("fit", things(tmp_path), "--output", tmp_path / "m", *words)
    assert code == 2
    assert words[0] in err
    assert "Traceback" not in out + err


def full_from(monkeypatch, number: int) -> list[int]:
    """The disk is full from the given flush on; gives the count of flushes."""
    fsync, calls = os.fsync, []

    def flush(handle: int) -> None:
        calls.append(1)
        if len(calls) > number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flush)
    return calls


FILES = ["checkpoint.safetensors"] * 3 + [
    "model.safetensors",
    "config.json",
    "README.md",
    "pipeline.json",
    "splits.json",
    "history.json",
]


@pytest.mark.parametrize("number", [0, 1, *range(3, len(FILES))], ids=lambda n: f"{n} {FILES[n]}")
def test_a_full_disk_while_saving_leaves_only_whole_files(tmp_path, light, run, refused, monkeypatch, number) -> None:
    manifest, model = things(tmp_path, 16), tmp_path / "model"
    calls = full_from(monkeypatch, number)
    message = refused("fit", manifest, "--output", model, *SMALL)
    assert message == f"could not write {model / FILES[number]}: No space left on device"
    assert sorted(p.name for p in model.iterdir()) == sorted(set(FILES[:number]))
    for path in model.glob("*.safetensors"):
        assert load_file(path)
    for path in model.glob("*.json"):
        json.loads(path.read_text())
    assert len(calls) == number + 1
    # with space again, the same command completes what is there
    monkeypatch.undo()
    for kind, encoder in (("image", ImagePatches(2, 2)), ("text", HashWords(8))):
        monkeypatch.setitem(pipeline.DEFAULTS, kind, lambda encoder=encoder: encoder)
    assert run("fit", manifest, "--output", model, *SMALL)[0] == 0
    assert sorted(p.name for p in model.iterdir()) == sorted(set(FILES))


def test_a_full_disk_leaves_the_old_scores(fitted, refused, monkeypatch, tmp_path) -> None:
    (tmp_path / "s.json").write_text("{}")
    full_from(monkeypatch, 0)
    message = refused("evaluate", fitted[0], "--model", fitted[1], "--json", tmp_path / "s.json")
    assert message == f"could not write {tmp_path / 's.json'}: No space left on device"
    assert (tmp_path / "s.json").read_text() == "{}"
    assert not list(tmp_path.glob(".s.json*"))


def test_rows_of_entities_alone_do_not_leave_a_progress_bar_running(tmp_path, light, run) -> None:
    (tmp_path / "k.nt").write_text(KNOWLEDGE)
    rows = [{"id": f"s{i}", "text": "x", "label": "ab"[i % 2], "split": "train"} for i in range(4)]
    rows += [{"id": f"e{i}", "entities": ["u:red"], "label": "ab"[i % 2], "split": "test"} for i in range(2)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ("--output", tmp_path / "model", "--knowledge", tmp_path / "k.nt", *SMALL)
    code, _, err = run("fit", tmp_path / "m.jsonl", *words)
    assert (code, err) == (0, "")


def test_doctor_prints_states_and_commands_and_its_exit_code_says_whether_it_works(run, monkeypatch) -> None:
    found = [
        Finding("torch", "ok", "2.99"),
        Finding("extra offline", "missing", "x", "pip install 'hetgraph[offline]'"),
    ]
    monkeypatch.setattr("hetgraph.doctor.examine", lambda: found)
    code, out, _ = run("doctor")
    assert code == 0
    assert "2.99" in out
    assert "extra offline: pip install 'hetgraph[offline]'" in out
    found.append(Finding("torchvision", "broken", "0.1 does not load", "pip uninstall -y torchvision"))
    code, out, _ = run("doctor")
    assert code == 1
    assert "torchvision: pip uninstall -y torchvision" in out
    found[-1] = Finding("rdflib", "missing", "not installed", "pip install rdflib")
    assert run("doctor")[0] == 1


@pytest.mark.parametrize(("words", "train"), [((), scenes.TRAIN), (("--train", "7"), 7)])
def test_demo_runs_without_any_option_and_shows_a_row_per_ablation(run, monkeypatch, tmp_path, words, train) -> None:
    asked = {}

    def fake(folder, **options):
        asked.update(options, folder=folder)
        rows = {name: scenes.Ablation(gone, {"sound": 0.97}, 0.5) for name, gone in scenes.ABLATIONS.items()}
        return scenes.DemoResult(rows, Path(folder) / "graph.png", None)

    monkeypatch.setattr(scenes, "run", fake)
    monkeypatch.chdir(tmp_path)
    code, out, err = run("demo", *words)
    assert (code, err) == (0, "")
    assert asked == {"folder": Path("outputs/demo"), "train": train, "seed": 0}
    assert all(word in out for name in scenes.ABLATIONS for word in name.split())
    assert "0.97" in out
    assert f"({scenes.chance('sound', ('sound',)):.2f})" in out
    assert out.count("not as expected") == len(scenes.within_chance(fake("x").rows))


def test_the_commands_use_the_functions_that_python_has(monkeypatch, fitted, refused) -> None:
    def stop(*_, **__):
        raise cli.HetgraphError("from [workflow]")

    monkeypatch.setattr(workflow, "evaluate_manifest", stop)
    assert refused("evaluate", fitted[0], "--model", fitted[1]) == "from [workflow]"

"""``hetgraph compare`` as a user types it: on a manifest, on a data set by name, interrupted, and refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from toy_comparison import FlatFusion, parts

from hetgraph import HetgraphError, cli_common, cli_compare, comparison_outcomes, pipeline
from hetgraph.encoders import HashWords, LogMel
from hetgraph.fusion import METHODS
from hetgraph.tasks import datasets
from hetgraph.tasks.datasets.suggested import SUGGESTED

SMALL = (*("--width", 8, "--layers", 1, "--heads", 2, "--epochs", 2, "--seeds", 2), "--lr", "0.01,0.03", "--dropout", 0)


@pytest.fixture
def run(monkeypatch, typed):
    """Type a comparison in a narrow terminal; gives exit code, output and errors."""
    monkeypatch.setattr(cli_common.console, "_width", 80)
    return partial(typed, "compare")


@pytest.fixture
def manifest(tmp_path, monkeypatch) -> Path:
    """Two texts, of which one says the label."""
    for kind, encoder in (("text", HashWords(8)), ("audio", LogMel(stack=20))):
        monkeypatch.setitem(pipeline.DEFAULTS, kind, lambda encoder=encoder: encoder)
    splits = ("train", "train", "train", "valid", "test")
    lines = [
        {"id": i, "text:said": f"a {mood} day", "text:other": f"number {i % 7}", "mood": mood, "split": splits[i % 5]}
        for i, mood in enumerate(["good", "bad"] * 20)
    ]
    path = tmp_path / "days.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def asked(monkeypatch) -> list[tuple[Any, ...]]:
    """A data set called tiny; gives the calls that load it."""
    calls: list[tuple[Any, ...]] = []

    def load(name: str, folder: Any = None, *, seed: int = 0, cache: Any = None) -> Any:
        calls.append((name, folder, seed, cache))
        return parts(train=parts().train[seed:])

    monkeypatch.setattr(datasets, "DATASETS", {"tiny": load}, raising=False)
    monkeypatch.setattr(datasets, "load", load, raising=False)
    monkeypatch.setitem(METHODS, "flat", FlatFusion)
    return calls


def test_a_manifest_is_compared_in_one_command(manifest, run, tmp_path) -> None:
    words = (
        "--target",
        "mood",
        "--methods",
        "graph",
        "--single",
        "--subsets",
        "--no-cache",
        "--output",
        tmp_path / "o",
    )
    code, out, err = run(manifest, *SMALL, *words, "--json", tmp_path / "r.json", "--plot", tmp_path / "p.png")
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "r.json").read_text())
    assert result == json.loads((tmp_path / "o" / "comparison.json").read_text())
    assert (tmp_path / "p.png").stat().st_size > 5000
    assert {row["name"] for row in result["rows"]} == {"graph", "graph, said alone", "graph, other alone"}
    assert result["no_harm"]["single"] == "graph, said alone"
    flat = " ".join(out.split())
    for part in ("days: test accuracy", "most frequent class", "said + other", "best single (graph, said alone"):
        assert part in flat
    assert max(len(line.rstrip()) for line in out.splitlines() if "all runs in" not in line) <= 100


def test_a_data_set_by_name_is_loaded_for_every_seed(asked, run, tmp_path) -> None:
    words = ("--data", tmp_path, "--methods", "flat,graph", "--output", tmp_path / "out")
    code, out, err = run("tiny", *SMALL, *words)
    assert (code, err) == (0, "")
    assert {call[:2] for call in asked} == {("tiny", tmp_path)}
    assert {call[2] for call in asked} == {0, 1}
    assert {call[3] for call in asked} == {tmp_path / "out" / "cache"}
    assert "With 2 seeds the sign-flip test cannot give a p below 0.5" in " ".join(out.split())
    kept = [json.loads(p.read_text()) for p in (tmp_path / "out" / "runs").glob("*-final-*")]
    assert len({one["key"] for one in kept}) == 4


def test_an_interrupted_command_says_how_it_goes_on(asked, run, tmp_path, monkeypatch) -> None:
    done: list[Any] = []
    real = comparison_outcomes.execute

    def stopped(data: Any, one: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(one)
        return real(data, one)

    words = ("tiny", *SMALL, "--methods", "graph,flat", "--output", tmp_path / "out")
    monkeypatch.setattr(comparison_outcomes, "execute", stopped)
    code, out, _ = run(*words)
    assert code == 130
    assert "the same command goes on" in " ".join(out.split())
    monkeypatch.setattr(comparison_outcomes, "execute", lambda *a: done.append(a) or real(*a))
    assert run(*words)[0] == 0
    # 2 methods: 2 configurations and 2 seeds each
    assert len(done) == 8


def test_a_failed_run_gives_another_exit_code(asked, run, tmp_path, monkeypatch) -> None:
    real = comparison_outcomes.execute

    def failing(data: Any, one: Any) -> Any:
        if one.method == "flat" and one.final and one.seed == 1:
            raise RuntimeError("[no] memory")
        return real(data, one)

    monkeypatch.setattr(comparison_outcomes, "execute", failing)
    code, out, _ = run("tiny", *SMALL, "--methods", "graph,flat", "--output", tmp_path)
    assert code == 1
    flat = " ".join(out.split())
    assert "failed: flat, seed 1" in flat
    assert "RuntimeError: [no] memory" in flat
    assert "flat (1 seeds)" in flat


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tinny",), "no manifest tinny, and no data set of that name; known: tiny"),
        (("none.jsonl",), "no manifest none.jsonl"),
        (("tiny", "--methods", "grph"), "unknown fusion method 'grph'"),
        (("tiny", "--lr", "fast"), "--lr takes numbers with commas between them, got 'fast'"),
        (("tiny", "--metric", "speed", *SMALL), "no metric 'speed'; known: accuracy, f1_macro, f1_weighted, loss"),
        (("tiny", "--width", "7"), "width"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(asked, run, tmp_path, words, message) -> None:
    code, _, err = run(*words, "--output", tmp_path)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_manifest_must_have_something_to_compare_on(manifest, run) -> None:
    assert "--target names another" in run(manifest)[2]
    manifest.write_text(manifest.read_text().replace('"split": "test"', '"split": "train"'))
    assert "no test sample has a label" in run(manifest, "--target", "mood", "--no-cache")[2]


def test_a_data_set_brings_settings_that_suit_it_and_options_count_more(asked, run, tmp_path, monkeypatch) -> None:
    suited = {"width": 8, "lr": (0.02,), "epochs": 2, "feature_swap": {"word": 0.5}, "average": 0.5}
    monkeypatch.setitem(SUGGESTED, "tiny", suited)
    words = ("tiny", "--data", tmp_path, "--methods", "sum", "--seeds", 1, "--layers", 1, "--heads", 2, "--dropout", 0)
    words += ("--output", tmp_path / "out", "--json", tmp_path / "r.json", "--epochs", 1)
    assert run(*words)[0] == 0
    settings = json.loads((tmp_path / "r.json").read_text())["settings"]
    assert (settings["width"], settings["lr"], settings["layers"]) == (8, [0.02], 1)
    training = settings["training"]
    assert (training["epochs"], training["feature_swap"], training["average"]) == (1, {"word": 0.5}, 0.5)
    assert training["batch_size"] == 32


@pytest.mark.parametrize("name", SUGGESTED)
def test_suggested_settings_are_settings(name) -> None:
    assert name in datasets.DATASETS
    assert cli_compare._comparison(name, {}).width == SUGGESTED[name].get("width", 64)


def test_rates_are_one_number_or_one_per_node_type() -> None:
    assert cli_compare._rates("--feature-swap", None) is None
    assert cli_compare._rates("--feature-swap", "0.25") == 0.25
    assert cli_compare._rates("--feature-swap", "audio=0.5,a=b=1") == {"audio": 0.5, "a=b": 1.0}
    for wrong in ("much", "audio=", "audio=0.5,"):
        with pytest.raises(HetgraphError, match=f"--feature-swap takes a rate, or TYPE=RATE .*, got '{wrong}'"):
            cli_compare._rates("--feature-swap", wrong)

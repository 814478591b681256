"""The speed benchmarks run, refuse to time what is not equal, and their results become a table and plots."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from matplotlib.image import imread

from benchmarks import (
    common,
    compiling,
    encoding,
    graph_building,
    import_time,
    memory,
    message_passing,
    peers,
    report,
    scaling,
    sparse_attention,
    training_step,
)
from hetgraph import HetgraphError
from hetgraph.nn import HGTLayer

SCRIPTS: dict[str, Any] = {
    "message_passing": message_passing,
    "sparse_attention": sparse_attention,
    "graph_building": graph_building,
    "training_step": training_step,
    "memory": memory,
    "scaling": scaling,
    "import_time": import_time,
    "encoding": encoding,
}


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Run a script once, whichever test process asks first; gives its quick result in a folder that all share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "benchmark_results"
    folder.mkdir(exist_ok=True)

    def once(name: str) -> Path:
        path = folder / f"{name}.json"
        with FileLock(folder / f"{name}.lock"):
            if not path.exists():
                SCRIPTS[name].main(["--quick", "--threads", "1", "--json", str(path)])
        return path

    return once


@pytest.fixture
def results(run: Callable[[str], Path]) -> Path:
    """The folder with the quick results of all scripts."""
    for name in SCRIPTS:
        path = run(name)
    return path.parent


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_writes_positive_numbers_and_the_ratios_that_follow_from_them(
    name: str, run: Callable[[str], Path]
) -> None:
    data = json.loads(run(name).read_text())
    assert data["benchmark"] == name
    assert data["threads"] == 1
    assert data["quick"] is True
    assert {"python", "torch", "torch-geometric"} <= set(data["versions"])
    assert data["settings"]
    for setting in data["settings"]:
        assert setting["values"]
        for kind, found in setting["values"].items():
            assert {setting["ours"], *setting["peers"].values()} <= set(found)
            for one in found.values():
                assert 0 < one["low"] <= one["median"] <= one["high"] < math.inf
            for candidate, ratios in setting["ratios"][kind].items():
                for peer, ratio in ratios.items():
                    expected = found[setting["peers"][peer]]["median"] / found[candidate]["median"]
                    assert ratio == pytest.approx(expected)
        assert name == "encoding" or "PyG" in setting["peers"]
    assert set(setting) >= {"label", "unit", "sizes", "axis", "growth"}


def test_compiled_steps_are_measured_beside_the_plain_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the form that needs no C++ compiler and no minute
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    compiling.main(["--quick", "--threads", "1", "--json", str(tmp_path / "c.json")])
    (setting,) = json.loads((tmp_path / "c.json").read_text())["settings"]
    found = setting["values"]["graph ready"]
    assert len(found) == 4
    assert {f"{name}, compiled" for name in (setting["ours"], "TransformerEncoder")} <= set(found)
    assert all(one["median"] > 0 for one in found.values())


def test_a_compiled_step_with_another_loss_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", lambda graph, inputs: lambda *given: (graph(*given)[0] * 2,))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    one = training_step.Trained("linear", torch.nn.Linear(3, 2), x, lambda: x)
    with pytest.raises(AssertionError, match="linear: loss"):
        compiling.compiled(one, torch.tensor([0, 1, 0, 1]))


def test_growth_of_a_sweep_is_the_last_value_over_the_first(run: Callable[[str], Path]) -> None:
    settings = json.loads(run("scaling").read_text())["settings"]
    assert [setting["axis"] for setting in settings] == ["nodes per sample", "edges per sample", "samples", "frames"]
    for setting in settings:
        first, last = (
            setting["values"][size] for size in (min(setting["values"], key=int), max(setting["values"], key=int))
        )
        assert setting["growth"][setting["axis"]] == 2
        for name in first:
            assert setting["growth"][name] == pytest.approx(last[name]["median"] / first[name]["median"])


def test_what_is_slightly_off_is_not_counted_as_encoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = encoding.MEDIA["sounds, MFCC"][3]

    def louder(encoder: Any) -> Callable[..., list[torch.Tensor]]:
        run = original(encoder)
        return lambda paths: [found * 1.01 for found in run(paths)]

    monkeypatch.setattr(encoding, "MEDIA", {"sounds": (*encoding.MEDIA["sounds, MFCC"][:3], louder)})
    with pytest.raises(AssertionError, match="sounds 0: differs by"):
        encoding.main(["--quick", "--threads", "1", "--json", str(tmp_path / "out.json")])


def perturbed(original: Callable[..., HGTLayer]) -> Callable[..., HGTLayer]:
    """``HGTLayer.from_pyg`` that is off by a little in one matrix of one edge type."""

    def from_pyg(*arguments: Any) -> HGTLayer:
        layer = original(*arguments)
        with torch.no_grad():
            layer.att[0, 0].mul_(1.05)
        return layer

    return from_pyg


@pytest.mark.parametrize("name", ["message_passing", "sparse_attention", "training_step", "memory", "scaling"])
def test_a_layer_that_is_slightly_off_is_not_timed(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(HGTLayer, "from_pyg", perturbed(HGTLayer.from_pyg))
    with pytest.raises(AssertionError, match="differs by"):
        SCRIPTS[name].main(["--quick", "--threads", "1", "--json", str(tmp_path / "out.json")])
    assert not list(tmp_path.iterdir())


def test_a_wrong_gradient_alone_is_found() -> None:
    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * 1.01

    module = torch.nn.Identity()
    right = common.Candidate("right", module, lambda x: {"a": x["a"] * 2})
    wrong = common.Candidate("wrong", module, lambda x: {"a": Backwards.apply(x["a"]) * 2})
    x = {"a": torch.randn(5, 3)}
    common.check_equal(right, right, x)
    with pytest.raises(AssertionError, match="wrong: gradient of a"):
        common.check_equal(right, wrong, x)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_equal(value: float) -> None:
    bad = torch.tensor([1.0, value])
    for pair in ((bad, torch.ones(2)), (torch.ones(2), bad), (bad, bad)):
        with pytest.raises(AssertionError, match="differs"):
            common.check_close(*pair, 1e-5, "it")


def test_a_missing_edge_stops_the_building_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    original = graph_building.edges_by_rule
    key = ("region", "near_left", "region")

    def one_less(*arguments: Any) -> graph_building.Indices:
        out = original(*arguments)
        return {**out, key: out[key][:, 1:]} if key in out else out

    monkeypatch.setattr(graph_building, "edges_by_rule", one_less)
    with pytest.raises(AssertionError, match=r"near_left.*only ours \[\(\d+, \d+\)"):
        graph_building.main(["--quick", "--threads", "1"])


def test_an_edge_in_another_sample_is_not_the_same_edge() -> None:
    schema = graph_building.schema_of(user=False)
    samples = graph_building.ready_arrays(schema, 2)
    graph = graph_building.our_graph(graph_building.GraphBuilder(schema), samples)
    ready = [graph_building.edges_by_rule(arrays, schema) for arrays in samples]
    graph_building.check_edges(graph, graph_building.pyg_batch(samples, ready).edge_index_dict, "PyG's")
    with pytest.raises(AssertionError, match="differ from PyG's"):
        graph_building.check_edges(graph, graph_building.pyg_batch(samples, ready[::-1]).edge_index_dict, "PyG's")


def test_a_network_that_does_not_learn_is_not_timed() -> None:
    network = torch.nn.Linear(3, 2)
    frozen = training_step.Trained("frozen", network, torch.randn(4, 3), lambda: None)
    target = torch.tensor([0, 1, 0, 1])
    training_step.check_learns(frozen, target)
    frozen.optimizer.param_groups[0]["lr"] = 0.0
    with pytest.raises(AssertionError, match="frozen: the loss went from"):
        training_step.check_learns(frozen, target)


MEGABYTES = 40


def known_peaks() -> dict[str, int]:
    """Peaks in bytes of blocks whose size is known; called in a fresh process."""
    count = MEGABYTES * 1_000_000 // 4
    fills: dict[str, Callable[[], object]] = {
        "torch": lambda: torch.ones(count),
        "numpy": lambda: np.ones(count, np.float32),
        "one after the other": lambda: [torch.ones(count).sum() for _ in range(3)],
        "in pieces": lambda: [torch.ones(count // 200) for _ in range(200)],
        "inside an operator": lambda: torch.ones(count).view(2, -1).T.contiguous(),
        "nothing": lambda: None,
    }
    for fill in fills.values():
        fill()
    return {name: memory.peak_bytes(fill) for name, fill in fills.items()}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux keeps the mark")
def test_the_peak_counts_live_memory_whoever_allocates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    found = memory.in_fresh_process("test_benchmarks:known_peaks")
    blocks = dict.fromkeys(("torch", "numpy", "one after the other", "in pieces"), 1)
    for name, expected in {**blocks, "inside an operator": 2, "nothing": 0}.items():
        assert found[name] / 1e6 == pytest.approx(expected * MEGABYTES, abs=2), name


def test_a_failing_process_says_why() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'no such graph'"):
        memory.in_fresh_process("benchmarks.memory:one_step", peers.PYG, "no such graph", 1)


def test_an_import_that_was_there_before_is_not_timed() -> None:
    with pytest.raises(AssertionError, match="torch was there before"):
        import_time.seconds_of("torch")
    with pytest.raises(AssertionError, match=r"json\.tool is not there"):
        import_time.seconds_of("json.tool", "", "pass")


def test_what_cannot_be_loaded_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise HetgraphError("it is not installed")

    monkeypatch.setattr(peers, "load_dgl", refuse)
    names, left_out = peers.layer_names(without=["dense"])
    assert names[:2] == [peers.PYG, peers.OURS]
    assert f"{peers.OURS}, sparse" in names
    assert not {f"{peers.OURS}, dense", peers.DGL_CONV, peers.DGL_KERNELS} & set(names)
    assert left_out == ["DGL: it is not installed"]


def test_the_report_writes_between_the_markers_and_nowhere_else(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    arguments = ["--results", str(results), "--images", str(tmp_path / "images"), "--into", str(page)]
    report.main(arguments)
    once = page.read_text()
    assert once.startswith(f"before\n{report.BEGIN}\n")
    assert once.endswith(f"{report.END}\nafter\n")
    assert "old" not in once
    report.main(arguments)
    assert page.read_text() == once
    text = once.split(report.BEGIN)[1].split(report.END)[0].strip()
    # a script may have been run here first, and has printed its own table
    assert capsys.readouterr().out.endswith(f"{text}\n{text}\n")

    data = json.loads((results / "message_passing.json").read_text())["settings"][0]
    row = next(
        line for line in once.splitlines() if line.startswith("| HGT layer: standard batch") and "backward" in line
    )
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    found = data["values"]["forward + backward"]
    ours, theirs = (found[name]["median"] for name in (data["ours"], data["peers"]["PyG"]))
    assert float(cells[1].split()[0].replace(",", "")) == pytest.approx(ours, rel=0.01)
    assert float(cells[2].replace(",", "")) == pytest.approx(theirs / ours, rel=0.01)
    assert {len(line.split("|")) for line in once.splitlines() if line.startswith("|")} == {len(cells) + 2}


def test_the_report_draws_pictures_with_something_on_them(results: Path, tmp_path: Path) -> None:
    report.main(["--results", str(results), "--images", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"speed.png", "memory.png", "scaling.png"}
    blue, orange = ([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in ("#0072b2", "#d55e00"))
    for name, colours in {"speed": [orange], "memory": [orange], "scaling": [blue, orange]}.items():
        picture = imread(tmp_path / f"{name}.png")[..., :3]
        assert picture.shape[1] == 1800
        for colour in colours:
            assert (abs(picture - colour).max(-1) < 0.01).sum() > 500


@pytest.mark.parametrize("text", ["no markers", f"{report.END} {report.BEGIN}", f"{report.BEGIN * 2} {report.END}"])
def test_a_page_without_the_two_markers_stays_as_it_is(text: str, tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text(text)
    with pytest.raises(HetgraphError, match="once, in this order"):
        report.write_between(page, "new")
    assert page.read_text() == text


def test_the_report_refuses_folders_without_sound_results(tmp_path: Path) -> None:
    with pytest.raises(HetgraphError, match="not a folder"):
        report.read(tmp_path / "none")
    (tmp_path / "other.json").write_text('{"accuracy": 0.5}')
    with pytest.raises(HetgraphError, match="no results"):
        report.read(tmp_path)
    (tmp_path / "bad.json").write_text('{"benchmark": "memory", "settings": [{"label": "x"}]}')
    with pytest.raises(HetgraphError, match=r"bad\.json: expected settings"):
        report.read(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(HetgraphError, match=r"bad\.json is not JSON"):
        report.read(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0412, "0.0412"), (0.59, "0.590"), (9.6, "9.60"), (31.24, "31.2"), (8205.4, "8,205")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert common.number(value) == text

"""Graphs built by workers are the builder's, in order; errors and deaths of workers reach the caller; none is left."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from strategies import assert_same_graph, within

from hetgraph import EdgeType, Fusion, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.errors import MediaError
from hetgraph.loader import GraphLoader
from hetgraph.objectives import Classification
from hetgraph.predictor import Predictor
from hetgraph.training import TrainingSettings, evaluate, fit, predict

# a machine with one processor is warned of two workers
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

FACTS = ("entity", "fact", "entity")
SCHEMA = Schema(
    [NodeType("word", 2), NodeType("face", 3, fields={"pos": 2}), NodeType("entity", 2)],
    [
        EdgeType("word", "next", "word", rule=rules.following),
        EdgeType("face", "near", "face", rule=rules.nearest(1)),
        EdgeType("face", "within", "face", rule=within, features={"square": 0, "step": 2}),
        EdgeType("face", "with", "word"),
        EdgeType(*FACTS, rule=rules.given, features={"sure": 1}, relations=("is", "has")),
    ],
)


class Broken(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Samples:
    """Samples by place; asking for some of them goes wrong in a way of its own."""

    def __init__(self, count: int = 9, named: bool = True, wrong: dict[int, str] | None = None) -> None:
        self.count, self.named, self.wrong = count, named, wrong or {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Sample:
        rng = np.random.default_rng(i)
        nodes: dict[str, Any] = {"word": rng.standard_normal((i % 3 + 1, 2))}
        edges = None
        if i % 2:
            nodes["face"] = {"x": rng.standard_normal((3, 3)), "pos": rng.standard_normal((3, 2))}
        if i % 4 < 2:
            nodes["entity"] = rng.standard_normal((2, 2))
            edges = {FACTS: {"index": [[0, 1], [1, 1]], "sure": [0.5, i], "relation": ["is", "has"]}}
        match self.wrong.get(i):
            case "not finite":
                nodes["word"][0, 0] = np.nan
            case "unreadable":
                raise MediaError(f"sample 's{i}': no picture")
            case "odd":
                raise Broken(i, 2)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "gone":
                os._exit(3)
            case "slow":
                time.sleep(0.5)
        return Sample(id=f"s{i}" if self.named else None, target="ab"[i % 2], nodes=nodes, edges=edges)


class Drawn(Samples):
    """Reading a sample draws from torch's generator."""

    def __getitem__(self, i: int) -> Sample:
        sample = super().__getitem__(i)
        sample.nodes["word"]["x"] = sample.nodes["word"]["x"] + torch.rand(2)
        return sample


class Pids(Samples):
    """Every sample's target is the process that read it."""

    def __getitem__(self, i: int) -> Sample:
        sample = super().__getitem__(i)
        sample.target = os.getpid()
        return sample


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process is there after a test that was not before it, but for the server that starts the workers."""
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    servers = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
    children = {p for p in left if p.ppid() == os.getpid() and any(s in " ".join(p.cmdline()) for s in servers)}
    assert left <= children
    assert len(children) <= 2


@pytest.mark.parametrize(("workers", "named"), [(0, True), (0, False), (1, False), (2, True)])
def test_graphs_are_the_builders_in_the_order_of_the_batches(workers: int, named: bool) -> None:
    samples, builder = Samples(named=named), GraphBuilder(SCHEMA)
    batches = [[8, 1, 3], [0], [2, 2, 5, 7], [4, 0], [6], [1]]
    before = torch.get_rng_state()
    found = list(GraphLoader(samples, builder, iter(batches), workers=workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(found) == len(batches)
    for keys, graph in zip(batches, found, strict=True):
        chosen = [samples[i] for i in keys]
        for i, sample in zip(keys, chosen, strict=True):
            sample.id = sample.id or str(i)
        assert_same_graph(graph, builder(chosen))
        assert graph.schema is SCHEMA


def test_a_graph_that_arrives_in_inference_mode_can_be_trained_on() -> None:
    graphs = iter(GraphLoader(Samples(), GraphBuilder(SCHEMA), [[0, 1, 2]], workers=1))
    with torch.inference_mode():
        graph = next(graphs)
    graphs.close()
    tensors = [*graph.x.values(), *(value for made in graph.layout.values() for value in made._made.values())]
    assert len(tensors) > 3
    assert not any(value.is_inference() for value in tensors)
    assert "valid" in graph.layout["face"]._made


# ---- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_reaches_the_caller_in_its_turn_with_type_message_and_sample(workers: int) -> None:
    wrong = {5: "not finite", 6: "unreadable", 7: "slow"}
    graphs = iter(GraphLoader(Samples(wrong=wrong), GraphBuilder(SCHEMA), [[0, 7], [1, 5], [6]], workers=workers))
    assert next(graphs).ids == ("s0", "s7")
    with pytest.raises(HetgraphError, match=r"^sample 's5': node type 'word': field 'x' of node 0 is nan") as caught:
        next(graphs)
    assert type(caught.value) is HetgraphError
    assert next(graphs, None) is None
    with pytest.raises(MediaError) as other:
        list(GraphLoader(Samples(wrong=wrong), GraphBuilder(SCHEMA), [[6]], workers=workers))
    assert str(other.value) == "sample 's6': no picture"


def test_the_note_of_an_error_says_where_in_the_worker_it_was_raised_even_if_it_cannot_travel() -> None:
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(Broken(1, 2)))
    with pytest.raises(RuntimeError, match="6 and 2") as caught:
        list(GraphLoader(Samples(wrong={6: "odd"}), GraphBuilder(SCHEMA), [[6]], workers=1))
    assert str(caught.value) == "Broken: 6 and 2"
    assert "raise Broken(i, 2)" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("how", "said"),
    [("killed", r"worker process \d+ was killed by SIGKILL"), ("gone", r"worker process \d+ exited with code 3")],
)
def test_a_worker_that_dies_is_named_and_those_that_live_are_ended(how: str, said: str) -> None:
    graphs = iter(GraphLoader(Samples(wrong={5: how}), GraphBuilder(SCHEMA), [[0], [1], [5], [2], [3]], workers=2))
    with pytest.raises(HetgraphError, match=said):
        list(graphs)


def test_a_worker_that_is_killed_while_it_waits_is_named() -> None:
    batches = [[0]] * 50
    graphs = iter(GraphLoader(Pids(), GraphBuilder(SCHEMA), batches, workers=1, prefetch=1))
    pid = next(graphs).target[0]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(HetgraphError, match=f"worker process {pid} was killed by SIGKILL"):
        list(graphs)


def test_a_worker_that_does_not_answer_in_time_is_given_up() -> None:
    loader = GraphLoader(Samples(wrong={0: "slow"}), GraphBuilder(SCHEMA), [[0]], workers=1, timeout=0.1)
    with pytest.raises(HetgraphError, match=r"1 workers gave no graph within 0\.1 s"):
        list(loader)


def test_rules_and_samples_that_cannot_be_sent_are_refused_with_the_way_out() -> None:
    schema = SCHEMA.extend(EdgeType("word", "local", "word", rule=lambda src, dst: within(src, dst)))
    samples = [Sample(face={"x": np.ones((2, 3)), "pos": np.ones((2, 2))})]
    assert len(list(GraphLoader(samples, GraphBuilder(schema), [[0]]))) == 1
    lazy = {0: samples[0], 1: lambda: samples[0]}
    for one, builder in ((samples, GraphBuilder(schema)), (lazy, GraphBuilder(SCHEMA))):
        with pytest.raises(HetgraphError, match=r"cannot be sent to worker processes .*<lambda>.* or workers=0"):
            list(GraphLoader(one, builder, [[0]], workers=1))


def test_impossible_arguments_are_refused() -> None:
    for wrong in ({"workers": -1}, {"prefetch": 0}, {"timeout": 0.0}, {"timeout": float("nan")}):
        with pytest.raises(HetgraphError, match="expected workers >= 0, prefetch >= 1 and timeout > 0"):
            GraphLoader([], GraphBuilder(SCHEMA), [], **wrong)
    if not torch.accelerator.is_available():
        assert not GraphLoader([], GraphBuilder(SCHEMA), []).pin_memory
        with pytest.raises(HetgraphError, match="pin_memory"):
            GraphLoader([], GraphBuilder(SCHEMA), [], pin_memory=True)


# ---- processes --------------------------------------------------------------------------------------------------


def test_leaving_early_ends_every_worker_whatever_holds_on_to_the_error() -> None:
    pids: set[int] = set()

    def consume(stop: type[Exception] | None) -> None:
        for graph in GraphLoader(Pids(), GraphBuilder(SCHEMA), [[i % 9] for i in range(50)], workers=2):
            pids.update(graph.target)
            if len(pids) % 2 == 0 and stop is None:
                break
            if len(pids) == 4 and stop is not None:
                raise stop

    consume(None)
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(KeyError) as caught:
        consume(KeyError)
    assert len(pids) == 4
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert caught.value.__traceback__ is not None
    assert os.getpid() not in pids


# ---- training ---------------------------------------------------------------------------------------------------

SETTINGS = {"epochs": 3, "batch_size": 4, "lr": 1e-2, "modality_dropout": 0.3, "feature_swap": 0.2, "average": 0.9}


def make() -> Predictor:
    torch.manual_seed(1)
    return Predictor(Fusion(SCHEMA, width=8, layers=1, heads=2, dropout=0.2), Classification(("a", "b")))


def train(model: Predictor, folder: Path | None = None, samples: Samples | None = None, **options: Any) -> Any:
    settings = TrainingSettings(**SETTINGS)
    options = {"settings": settings, "folder": folder, "progress": False, "checkpoint_every": 1, **options}
    return fit(model, samples or Drawn(), valid=Drawn(6), **options)


def same(a: Predictor, b: Predictor) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.state_dict().items())


def test_training_gives_the_same_weights_with_workers_also_after_an_interruption(tmp_path, monkeypatch) -> None:
    torch.set_num_threads(1)
    alone, helped, resumed = make(), make(), make()
    history = train(alone)
    other = train(helped, workers=2)
    assert (history.loss, history.valid, history.best_epoch) == (other.loss, other.valid, other.best_epoch)
    assert same(alone, helped)
    assert not same(alone, make())
    # the sixth of nine steps fails: two of them in the middle of the second epoch are not yet done
    forward, calls = Predictor.forward, []

    def interrupted(self, graph, backend="auto"):
        calls.append(self.training)
        if sum(calls) == 6:
            raise KeyboardInterrupt
        return forward(self, graph, backend)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(make(), tmp_path, workers=1)
    train(resumed, tmp_path, workers=2)
    assert same(alone, resumed)


def test_a_bad_sample_stops_training_by_its_name() -> None:
    with pytest.raises(HetgraphError, match="sample 's5'"):
        train(make(), samples=Samples(wrong={5: "not finite"}), workers=1)


def test_predictions_and_scores_are_the_same_with_workers() -> None:
    model, samples = make(), Samples()
    before = torch.get_rng_state()
    alone, helped = (predict(model, samples, batch_size=4, workers=n) for n in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert alone.ids == helped.ids
    assert torch.equal(alone.scores, helped.scores)
    assert alone.answers == helped.answers
    assert evaluate(model, samples, batch_size=4) == evaluate(model, samples, batch_size=4, workers=1)
    model.train()
    evaluate(model, samples)
    assert model.training

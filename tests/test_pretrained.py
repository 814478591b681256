"""Models are saved whole, without pickle, and refused by name when they are not what was asked for."""

from __future__ import annotations

import errno
import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from graphs import FEATURES, RELATIONS, World, random_sample, randomize, warmer, warmer_by

from hetgraph import CheckpointError, EdgeType, Fusion, NodeType, Schema, rules
from hetgraph.objectives import Classification, Regression
from hetgraph.predictor import Predictor

WARM, BY = ("a", "warmer", "b"), ("b", "warmer by", "a")
RULES = {WARM: warmer, BY: warmer_by}


def everything() -> Schema:
    """One edge type for every rule there is."""
    place = {"box": 4, "pos": 2, "time": 2}
    built_in = [
        rules.all_pairs,
        rules.window(3, loops=False),
        rules.following,
        rules.nearest(2),
        rules.similar(2, threshold=0.25),
        rules.left_of,
        rules.below,
        rules.inside,
        rules.overlapping,
        rules.same("speaker"),
    ]
    return Schema(
        [NodeType("a", 2, optional={**place, "speaker": 0}), NodeType("b", 1)],
        [
            *(EdgeType("a", f"{i}", "a", rule=rule) for i, rule in enumerate(built_in)),
            EdgeType("a", "kg", "a", rule=rules.given, relations=RELATIONS, features=FEATURES),
            EdgeType(*WARM, rule=warmer),
            EdgeType(*BY, rule=warmer_by, features=FEATURES),
        ],
    )


def some_world(schema: Schema) -> World:
    rng = np.random.default_rng(5)
    return World(schema, [random_sample(schema, row, rng, str(i)) for i, row in enumerate([(3, 2), (2, 0), (0, 1)])])


def fusion(schema: Schema | None = None, **options: object) -> Fusion:
    options = {"width": 8, "layers": 2, "heads": 2, **options}
    model = Fusion(schema or everything(), **options).eval()
    randomize(model)
    return model


def predictor() -> Predictor:
    model = Predictor(fusion(), Classification(("yes", "no", "perhaps")), dropout=0.25).eval()
    randomize(model)
    return model


def same_state(a: torch.nn.Module, b: torch.nn.Module) -> None:
    mine, its = a.state_dict(), b.state_dict()
    assert list(mine) == list(its)
    for name, value in mine.items():
        assert value.dtype == its[name].dtype
        assert torch.equal(value, its[name]), name


@pytest.mark.parametrize("make", [fusion, predictor])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, make) -> None:
    model = make()
    world = some_world(model.schema)
    graph = world.graph(torch.float32)
    model.fusion.standardize([graph]) if isinstance(model, Predictor) else model.standardize([graph])
    model.save_pretrained(tmp_path / "model")
    again = type(model).from_pretrained(tmp_path / "model", rules=RULES).eval()
    same_state(model, again)
    assert again.schema == model.schema
    assert again.to_config() == model.to_config()
    mine, its = model(graph), again(World(again.schema, world.samples).graph(torch.float32))
    if isinstance(model, Predictor):
        assert torch.equal(mine.scores, its.scores)
        assert again.objective == model.objective
        assert again.dropout == 0.25
        mine, its = mine.fused, its.fused
    assert torch.equal(mine.z, its.z)


def test_group_positions_and_dropout_survive(tmp_path) -> None:
    schema = Schema([NodeType("a", 1, fields={"turn": 0, "where": 2})])
    model = fusion(schema, group="turn", positions=("where",), dropout=0.2, layers=1)
    model.save_pretrained(tmp_path)
    again = Fusion.from_pretrained(tmp_path)
    assert again.settings == model.settings
    assert again.network.group == "turn"
    assert again.network.dropout.p == 0.2
    same_state(model, again)


def test_objectives_with_their_scale_survive(tmp_path) -> None:
    objective = Regression(("x", "y")).fitted([[1.0, 2.0], [0.1, 7.0]], ["a", "b"])
    Predictor(fusion(Schema([NodeType("a", 1)])), objective).save_pretrained(tmp_path)
    assert Predictor.from_pretrained(tmp_path).objective == objective


def test_odd_names_survive(tmp_path) -> None:
    schema = Schema(
        [NodeType("img.region", 1), NodeType('"\u00e5 \n/', 2)], [EdgeType("img.region", ".", '"\u00e5 \n/')]
    )
    model = fusion(schema)
    model.save_pretrained(tmp_path)
    again = Fusion.from_pretrained(tmp_path)
    assert again.schema == schema
    same_state(model, again)


def renamed(src, dst):
    return warmer(src, dst)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"\('a', 'warmer', 'b'\).*'warmer' is user-made"),
        ({WARM: warmer}, r"\('b', 'warmer by', 'a'\).*'warmer_by' is user-made"),
        ({WARM: renamed, BY: warmer_by}, r"\('a', 'warmer', 'b'\).*saved with rule 'warmer', got 'renamed'"),
        ({**RULES, ("a", "0", "a"): warmer}, r"\('a', '0', 'a'\).*built-in rule"),
        ({**RULES, ("x", "y", "z"): warmer}, r"does not have.*\('x', 'y', 'z'\)"),
    ],
)
def test_user_made_rules_must_come_back_under_their_names(tmp_path, given, message) -> None:
    fusion().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        Fusion.from_pretrained(tmp_path, rules=given)


def test_a_checkpoint_of_another_schema_is_refused_by_what_differs(tmp_path) -> None:
    fusion(Schema([NodeType("a", 1), NodeType("b", 2)])).save_pretrained(tmp_path)
    Fusion.from_pretrained(tmp_path, schema=Schema([NodeType("a", 1), NodeType("b", 2)]))
    with pytest.raises(CheckpointError, match=r"another schema: .*node type 'b'"):
        Fusion.from_pretrained(tmp_path, schema=Schema([NodeType("a", 1), NodeType("b", 3)]))
    with pytest.raises(CheckpointError, match="order differs"):
        Fusion.from_pretrained(tmp_path, schema=Schema([NodeType("b", 2), NodeType("a", 1)]))


def test_fusion_and_predictor_are_not_taken_for_each_other(tmp_path) -> None:
    fusion().save_pretrained(tmp_path / "fusion")
    predictor().save_pretrained(tmp_path / "predictor")
    with pytest.raises(CheckpointError, match="holds a Fusion, not a Predictor"):
        Predictor.from_pretrained(tmp_path / "fusion", rules=RULES)
    with pytest.raises(CheckpointError, match="holds a Predictor, not a Fusion"):
        Fusion.from_pretrained(tmp_path / "predictor", rules=RULES)


def simple() -> Fusion:
    return fusion(Schema([NodeType("a", 1)], [EdgeType("a", "to", "a")]))


def reheaded(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Rewrite the configuration in the header."""

    def edit(path: Path) -> None:
        with safetensors.safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["hetgraph"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        changed = change(config)
        config = config if changed is None else changed
        safetensors.torch.save_file(tensors, path, {"hetgraph": json.dumps(config)})

    return edit


def truncated(size: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def foreign(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)


def fewer(path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors.popitem()
    safetensors.torch.save_file(tensors, path, metadata)


DAMAGE = {
    "empty": truncated(0),
    "three bytes": truncated(3),
    "half a header": truncated(300),
    "last byte missing": truncated(-1),
    "garbage": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "text": lambda path: path.write_text("<html>not found</html>"),
    "a pickle": lambda path: torch.save({"a": torch.zeros(3)}, path),
    "foreign safetensors": foreign,
    "a tensor missing": fewer,
    "header is a list": reheaded(lambda config: [config]),
    "no class": reheaded(lambda config: config.pop("class") and None),
    "no settings": reheaded(lambda config: config.pop("settings") and None),
    "no fingerprint": reheaded(lambda config: config.pop("fingerprint") and None),
    "no schema": reheaded(lambda config: config.pop("schema") and None),
    "schema is a number": reheaded(lambda config: config.update(schema=3)),
    "settings is a number": reheaded(lambda config: config.update(settings=3)),
    "unknown setting": reheaded(lambda config: config["settings"].update(colour="red")),
    "other width": reheaded(lambda config: config["settings"].update(width=16)),
    "width is text": reheaded(lambda config: config["settings"].update(width="wide")),
    "other fingerprint": reheaded(lambda config: config.update(fingerprint="0" * 32)),
    "unknown rule": reheaded(lambda config: config["schema"]["edges"][0].update(rule={"rule": "Telepathy"})),
    "rule is text": reheaded(lambda config: config["schema"]["edges"][0].update(rule="AllPairs")),
    "edge to nowhere": reheaded(lambda config: config["schema"]["edges"][0].update(dst="nowhere")),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_a_checkpoint_error_that_names_it(tmp_path, how) -> None:
    simple().save_pretrained(tmp_path)
    DAMAGE[how](tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Fusion.from_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"hetgraph": 3, "schema": 1, "width": 99}', None])
def test_the_config_beside_the_weights_is_for_people_and_may_be_broken_or_gone(tmp_path, text) -> None:
    model = simple()
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    assert json.loads(config.read_text())["hetgraph"]["fingerprint"] == model.schema.fingerprint
    config.unlink() if text is None else config.write_text(text)
    same_state(Fusion.from_pretrained(tmp_path), model)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("where", ["nowhere", "somebody/some-model", "/not/there", ""])
@pytest.mark.usefixtures("no_network")
def test_a_missing_folder_is_an_error_at_once_without_asking_the_network(where, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no (folder|model)"):
        Fusion.from_pretrained(where)


@pytest.mark.usefixtures("no_network")
def test_a_folder_without_a_model_is_an_error_and_saving_and_loading_stay_offline(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"no model\.safetensors in"):
        Fusion.from_pretrained(tmp_path)
    simple().save_pretrained(tmp_path)
    Fusion.from_pretrained(tmp_path)


def test_nothing_that_is_written_is_or_uses_pickle(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "save", refuse)
    predictor().save_pretrained(tmp_path)
    Predictor.from_pretrained(tmp_path, rules=RULES)
    assert sorted(os.listdir(tmp_path)) == ["README.md", "config.json", "model.safetensors"]
    json.loads((tmp_path / "config.json").read_text())
    assert (tmp_path / "README.md").read_text().startswith("---")
    data = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    assert 8 + size + end == len(data)  # tensors of declared types fill the file; there is room for nothing else


def no_space_for(part: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full from the first file on whose name has this part."""
    real = getattr(os, step)
    names: dict[int, str] = {}
    mkstemp = __import__("tempfile").mkstemp

    def remember(*args: object, **options: object):
        handle, name = mkstemp(*args, **options)
        names[handle] = name
        return handle, name

    def fail(target: object, *rest: object) -> object:
        name = names.get(target, "") if isinstance(target, int) else str(target)
        if part in Path(name).name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(target, *rest)

    monkeypatch.setattr("tempfile.mkstemp", remember)
    monkeypatch.setattr(os, step, fail)


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("part", ["model.safetensors", "config.json"])
def test_a_full_disk_while_saving_leaves_a_whole_model_and_no_temporary_files(
    tmp_path, monkeypatch, part, step
) -> None:
    old, new = simple(), simple()
    randomize(new, seed=1)
    old.save_pretrained(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    no_space_for(part, step, monkeypatch)
    with pytest.raises(CheckpointError, match=f"could not write .*{part}: No space left on device"):
        new.save_pretrained(tmp_path)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert set(after) == set(before)
    assert after[part] == before[part]
    same_state(Fusion.from_pretrained(tmp_path), old if part == "model.safetensors" else new)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from test_pretrained import simple
from graphs import randomize

model = simple()
randomize(model, seed=1)
replace, left = os.replace, int(sys.argv[2])

def count(*args):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(*args)

os.replace = count
model.save_pretrained(sys.argv[1])
"""


@pytest.mark.parametrize("files", [0, 1])
def test_a_process_killed_between_two_files_leaves_a_model_that_loads(tmp_path, files) -> None:
    """``files``: how many of them are in place when the process dies; the weights come first."""
    old, new = simple(), simple()
    randomize(new, seed=1)
    old.save_pretrained(tmp_path)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(files), str(Path(__file__).parent)]
    assert subprocess.run(command, timeout=60).returncode == -9
    same_state(Fusion.from_pretrained(tmp_path), new if files else old)


def test_an_own_model_card_is_kept(tmp_path) -> None:
    (tmp_path / "README.md").write_text("mine")
    simple().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"

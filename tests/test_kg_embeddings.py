"""Embeddings score as PyG's models do, losses are those of the papers, and what is learned is what was to learn."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from hetgraph.kg import (
    EmbeddingConfig,
    KnowledgeError,
    KnowledgeGraph,
    LinkPredictor,
    Splits,
    embed_kg,
    fit_embeddings,
    frequency_scorer,
    load_splits,
    rank_triples,
)
from hetgraph.kg.embedding_losses import Negatives, Softmax, both_directions, dropped
from hetgraph.kg.embeddings import DISTANCES, MODELS

DATA = Path(os.environ.get("HETGRAPH_DATA", Path(__file__).parents[2] / "shared" / "data")) / "kg"
N, R = 7, 3
NAMES = [f"e{i}" for i in range(N)], [f"r{i}" for i in range(R)]


def predictor(model: str, features: Tensor | None = None, seen: Tensor | None = None, **options) -> LinkPredictor:
    return LinkPredictor(*NAMES, EmbeddingConfig(model, **{"dim": 8, **options}).filled(), features, seen)


def few_triples() -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.unique(generator.integers(0, [N, R, N], (30, 3)), axis=0)


def splits_of(train: np.ndarray, valid: np.ndarray | None = None) -> Splits:
    nothing = np.empty((0, 3), int)
    return Splits(*NAMES, train, nothing if valid is None else valid, nothing)


@pytest.mark.parametrize(("model", "fused"), list(product(MODELS, [False, True])))
def test_all_scores_are_those_of_pyg_up_to_a_constant(model, fused) -> None:
    features = torch.randn(N, 5) if fused else None
    made = predictor(model, features)
    if fused:
        assert made.vectors().allclose(made.table())
        assert not made.vectors().allclose(predictor(model).vectors())
    theirs = made.to_pyg()
    given, kinds = (x.flatten() for x in torch.meshgrid(torch.arange(N), torch.arange(R), indexing="ij"))
    everyone = torch.arange(N).repeat(len(given))
    for side, asked in (("tail", kinds), ("head", kinds + R)):
        ours = made.score_all(given, kinds, side)
        expected = theirs(given.repeat_interleave(N), asked.repeat_interleave(N), everyone).view(-1, N)
        difference = ours - expected
        assert difference.std() < 1e-5
        if model in ("distmult", "complex"):
            assert difference.abs().max() < 1e-5
    with pytest.raises(KnowledgeError, match="side must be one of"):
        made.score_all(given, kinds, "left")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("size", "candidates"), [(1.0, None), (40.0, None), (1.0, 300)])
def test_the_grouped_loss_is_cross_entropy_of_every_triple(model, size, candidates) -> None:
    triples = few_triples()
    n3 = 0.1 if model in ("distmult", "complex") else 0.0
    made = predictor(model, loss="softmax", batch=1000, n3=n3, candidates=candidates)  # 300 draws hold all seven
    with torch.no_grad():
        made.model.node_emb.weight *= size  # products so large that exponentials need a shift
    steps = Softmax(made, splits_of(triples), torch.Generator().manual_seed(0))
    assert len(steps) == 1
    (loss,) = steps.losses()
    loss.backward()
    found = {name: p.grad.to_dense().clone() for name, p in made.named_parameters()}
    made.zero_grad()
    heads, kinds, tails = torch.from_numpy(both_directions(triples, R)).T
    table = made.table()
    scores = made.against(made.questions(table[heads], kinds), table) * made.config.scale
    expected = F.cross_entropy(scores, tails, reduction="sum")
    for index, weights in ((heads, "node"), (tails, "node"), (kinds, "rel")):
        if model == "distmult":
            expected = expected + n3 * getattr(made.model, f"{weights}_emb").weight[index].abs().pow(3).sum()
        elif model == "complex":
            re, im = (getattr(made.model, f"{weights}_emb{half}").weight[index] for half in ("", "_im"))
            expected = expected + n3 * torch.complex(re, im).abs().pow(3).sum()
    expected = expected / len(heads)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for name, parameter in made.named_parameters():
        assert found[name].allclose(parameter.grad, rtol=1e-3, atol=1e-5 * size), name


def test_bfloat16_gives_nearly_the_same_gradients() -> None:
    grads = []
    for low in (False, True):
        torch.manual_seed(0)
        made = predictor("complex", dim=32, bfloat16=low)
        (loss,) = Softmax(made, splits_of(few_triples()), torch.Generator().manual_seed(0)).losses()
        loss.backward()
        grads.append(torch.cat([p.grad.flatten() for p in made.parameters()]))
    assert F.cosine_similarity(*grads, dim=0) > 0.999


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_with_negatives_is_that_of_the_paper(model) -> None:
    triples = few_triples()[:4]
    made = predictor(model, loss="negatives", batch=100, negatives=3, temperature=0.7, margin=2.0, scale=1.5)
    steps = Negatives(made, splits_of(triples), torch.Generator().manual_seed(3))
    (loss,) = steps.losses()
    again = torch.Generator().manual_seed(3)
    order = torch.randperm(8, generator=again)
    drawn = torch.randint(N, (3,), generator=again)
    theirs, total = made.to_pyg(), 0.0
    constant = theirs.margin if model == "rotate" else 0.0  # PyG's RotatE adds it to the score
    for head, kind, tail in torch.from_numpy(both_directions(triples, R))[order]:

        def score(other: Tensor, head=head, kind=kind) -> Tensor:
            return 1.5 * (theirs(head.view(1), kind.view(1), other.view(1)) - constant) + 2.0

        negative = torch.cat([score(other) for other in drawn])
        weight = (0.7 * negative).softmax(0)
        total -= (F.logsigmoid(score(tail)) + (weight * F.logsigmoid(-negative)).sum()).item() / 2
    assert loss.item() == pytest.approx(total / 8, rel=1e-4)


def ring(n: int = 24) -> Splits:
    """Who stands after whom in a ring, and the same two places on; every fifth pair of the latter is held out."""
    entities, relations = [f"e{i:02}" for i in range(n)], ["next", "second"]
    following = [(i, 0, (i + 1) % n) for i in range(n)]
    second = [(i, 1, (i + 2) % n) for i in range(n)]
    held = second[::5]
    train = following + [t for t in second if t not in held]
    return Splits(entities, relations, np.array(train), np.array(held), np.empty((0, 3), int))


def pairs(n: int = 24) -> Splits:
    """Every entity of the first half belongs to one of the second."""
    triples = np.array([(i, 0, i + n // 2) for i in range(n // 2)])
    return Splits([f"e{i:02}" for i in range(n)], ["belongs"], triples, triples[:0], triples[:0])


@pytest.mark.parametrize("model", MODELS)
def test_every_model_learns_what_it_is_shown(model) -> None:
    splits = pairs() if model == "transe" else ring()  # no translation closes a ring
    config = EmbeddingConfig(model, dim=32, epochs=40, batch=32, negatives=24, lr=0.03 if model in DISTANCES else None)
    found = fit_embeddings(splits, config)
    floor = rank_triples(frequency_scorer(splits.train, 24), splits.train, 24, known=splits.known).metrics()["mrr"]
    ours = rank_triples(found.predictor.scorer(), splits.train, 24, known=splits.known).metrics()["mrr"]
    assert floor < 0.25
    assert ours > 0.8, f"{model}: {ours}"


def test_drawn_candidates_teach_the_same() -> None:
    splits = ring()
    found = fit_embeddings(splits, EmbeddingConfig(dim=32, epochs=40, batch=32, candidates=6))
    assert rank_triples(found.predictor.scorer(), splits.train, 24, known=splits.known).metrics()["mrr"] > 0.8


def test_a_rotation_infers_two_steps_from_one() -> None:
    splits = ring()
    found = fit_embeddings(splits, EmbeddingConfig("rotate", dim=32, epochs=80, batch=32, negatives=24, lr=0.03))
    assert rank_triples(found.predictor.scorer(), splits.valid, 24, known=splits.known).metrics()["mrr"] > 0.5


def test_a_seed_decides_everything_and_nothing_outside_is_touched() -> None:
    splits = ring()
    config = EmbeddingConfig(dim=8, epochs=3)
    before = torch.random.get_rng_state()
    first = fit_embeddings(splits, config).predictor.vectors()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first, fit_embeddings(splits, config).predictor.vectors())
    assert not torch.equal(first, fit_embeddings(splits, replace(config, seed=1)).predictor.vectors())


def zoo() -> tuple[Splits, Tensor, np.ndarray]:
    """60 animals of four kinds; a dozen of them are in no triple, and only their features tell which kind they are."""
    generator = np.random.default_rng(0)
    kinds = [f"kind{i}" for i in range(4)]
    entities = kinds + [f"animal{i:02}" for i in range(60)]
    of = generator.integers(0, 4, 60)
    triples = np.array([(4 + i, 0, of[i]) for i in range(60)])
    directions = generator.normal(size=(8, 16))
    features = np.concatenate([directions[4:], directions[of] + 0.3 * generator.normal(size=(60, 16))])
    nothing = np.empty((0, 3), int)
    splits = Splits(entities, ["is_a"], triples[:48], nothing, triples[48:])
    return splits, torch.from_numpy(features).float(), triples[48:]


@pytest.mark.parametrize("model", MODELS)
def test_features_tell_about_entities_that_no_triple_holds(model) -> None:
    splits, features, asked = zoo()
    assert not splits.seen[asked[:, 0]].any()
    lr = 0.03 if model in DISTANCES else None
    config = EmbeddingConfig(model, dim=16, epochs=40, batch=64, negatives=32, lr=lr)
    given = {"with": features, "shuffled": features.roll(17, 0)}
    if model == "complex":
        given["without"] = None
    found = {}
    for name, some in given.items():
        scorer = fit_embeddings(splits, config, features=some).predictor.scorer()
        found[name] = float((1 / rank_triples(scorer, asked, len(splits.entities), known=splits.known).tail).mean())
    best = found.pop("with")
    assert best > 0.8
    assert best > 0.3 + max(found.values())


def test_entities_without_a_triple_are_their_features_alone_and_no_wrong_answers() -> None:
    splits, features, asked = zoo()
    found = fit_embeddings(
        splits, EmbeddingConfig("distmult", dim=6, epochs=2, feature_dropout=0.0), features=features
    ).predictor
    (project,) = found.projections
    unseen = asked[:, 0]
    assert found.vectors()[unseen].allclose(project(features)[unseen], atol=1e-6)
    learned = found.model.node_emb.weight
    steps = Softmax(found, splits, torch.Generator().manual_seed(0))
    for loss in steps.losses():
        loss.backward()
    assert (learned.grad[unseen] == 0).all()
    assert (learned.grad[splits.seen] != 0).any(1).all()
    assert dropped(found, torch.Generator()) is None
    found.config = EmbeddingConfig("distmult", dim=6, feature_dropout=0.3)
    kept = dropped(found, torch.Generator().manual_seed(0))
    assert kept is not None
    assert 0.4 < kept.mean() < 0.95
    assert dropped(predictor("distmult"), torch.Generator()) is None


def test_features_of_another_shape_are_refused() -> None:
    for wrong in (torch.zeros(N + 1, 4), torch.zeros(N), torch.full((N, 2), float("nan"))):
        with pytest.raises(KnowledgeError, match=r"features: expected finite numbers \[7, F\]"):
            predictor("complex", wrong)


@pytest.mark.parametrize("fused", [False, True])
def test_a_saved_model_scores_the_same(tmp_path, fused) -> None:
    names = ["", "naïve", "日本", *(f"e{i}" for i in range(4))]
    seen = torch.arange(N) != 2
    config = EmbeddingConfig("rotate", dim=6)
    made = LinkPredictor(names, NAMES[1], config, torch.randn(N, 5) if fused else None, seen if fused else None)
    made.save(tmp_path / "model.safetensors")
    again = LinkPredictor.load(tmp_path / "model.safetensors")
    assert again.entities == names
    assert again.relations == NAMES[1]
    assert again.config == config
    question = torch.tensor([0, 2]), torch.tensor([1, 2]), "head"
    assert torch.equal(again.score_all(*question), made.score_all(*question))


def test_damaged_files_are_refused(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(KnowledgeError, match=r"model\.safetensors"):
        LinkPredictor.load(path)
    predictor("complex").save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(KnowledgeError, match="damaged"):
        LinkPredictor.load(path)
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(KnowledgeError, match="no embeddings of version 1"):
        LinkPredictor.load(path)
    tensors = safetensors.torch.load(whole)
    meta = {"format": "hetgraph.kg.embeddings", "version": "1", "config": json.dumps({"model": "complex", "dim": 8})}
    for name, value in (("entities.lengths", torch.tensor([5])), ("state.model.node_emb.weight", torch.zeros(3, 4))):
        safetensors.torch.save_file({**tensors, name: value}, path, meta)
        with pytest.raises(KnowledgeError, match="damaged"):
            LinkPredictor.load(path)


def test_the_best_look_at_valid_is_kept_and_training_stops(tmp_path) -> None:
    splits = ring()
    path = tmp_path / "best.safetensors"
    config = EmbeddingConfig("distmult", dim=16, epochs=40, batch=8, lr=0.5)
    found = fit_embeddings(splits, config, check_every=1, patience=2, save=path)
    scores = [look["mrr"] for look in found.history]
    assert len(scores) < 40
    assert found.epoch == 1 + int(np.argmax(scores)) == len(scores) - 2
    ours = rank_triples(found.predictor.scorer(), splits.valid, 24, known=splits.known).metrics()["mrr"]
    assert ours == pytest.approx(max(scores))
    assert torch.equal(LinkPredictor.load(path).vectors(), found.predictor.vectors())
    with pytest.raises(KnowledgeError, match="check_every needs a valid part"):
        fit_embeddings(splits_of(few_triples()), config, check_every=1)


def test_vectors_are_in_the_order_of_the_graph_whatever_the_order_of_its_statements() -> None:
    splits = ring()
    triples = [(splits.entities[h], splits.relations[r], splits.entities[t]) for h, r, t in splits.train]
    names, kinds = sorted(splits.entities, reverse=True), ["second", "next"]
    found = []
    for some in (triples, triples[::-1]):
        columns = zip(*[(names.index(h), kinds.index(r), names.index(t)) for h, r, t in some], strict=True)
        kg = KnowledgeGraph.from_arcs(*map(list, columns), names, kinds)
        found.append(embed_kg(kg, EmbeddingConfig("distmult", dim=12, epochs=30)))
    assert found[0].shape == (24, 12)
    assert torch.equal(*found)
    # the order of the graph is that of names: the same as of the splits here
    expected = fit_embeddings(splits, EmbeddingConfig("distmult", dim=12, epochs=30)).predictor.vectors()
    assert F.cosine_similarity(found[0], expected).shape == (24,)
    scored = LinkPredictor(list(kg.entities), kinds, EmbeddingConfig("distmult", dim=12))
    assert scored.entities == splits.entities
    held = embed_kg(kg, EmbeddingConfig("complex", dim=12, epochs=5), valid=0.2, features=torch.randn(24, 3))
    assert held.shape == (24, 12)
    with pytest.raises(KnowledgeError, match="no triple to learn from"):
        embed_kg(KnowledgeGraph.from_arcs([], [], [], ["a"], ["b"]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "transformer"}, {"loss": "hinge"}, {"dim": 7}, {"dim": 0}, {"epochs": 0}, {"batch": 0},
        {"negatives": 0}, {"lr": 0.0}, {"scale": -1.0}, {"n3": -1.0}, {"feature_dropout": 1.0},
        {"model": "transe", "n3": 0.1}, {"candidates": 0}, {"loss": "negatives", "candidates": 9},
        {"temperature": float("nan")},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(KnowledgeError, match=next(iter(set(wrong) & {"n3", "candidates"} or wrong))):
        EmbeddingConfig(**wrong)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(KnowledgeError, match=r"the loss is (nan|inf)"):
        fit_embeddings(ring(), EmbeddingConfig("distmult", dim=4, epochs=5, lr=1e20))


def test_splits_are_read_from_arrays_and_tables(tmp_path) -> None:
    splits = ring(5)
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    np.savez(arrays / "ring.npz", train=splits.train.astype(np.int32), valid=splits.valid)
    (arrays / "ring_entity.txt").write_text("\n".join(splits.entities) + "\n")
    (arrays / "ring_relation.txt").write_text("\n".join(splits.relations) + "\n")
    tables = tmp_path / "tables"
    tables.mkdir()
    for part in ("train", "valid"):
        rows = [(splits.entities[h], splits.relations[r], splits.entities[t]) for h, r, t in getattr(splits, part)]
        (tables / f"{part}.txt").write_text("".join("\t".join(row) + "\n" for row in [*rows, rows[0]]))
    for folder in (arrays, tables):
        found = load_splits(folder)
        assert list(found.entities) == splits.entities
        assert list(found.relations) == splits.relations
        assert (found.train == splits.train).all()
        assert (found.valid == splits.valid).all()
        assert len(found.test) == 0
    assert set(found.graph().arcs()) == {
        (found.entities[h], found.relations[r], found.entities[t]) for h, r, t in found.train
    }


def test_malformed_splits_are_refused(tmp_path) -> None:
    with pytest.raises(KnowledgeError, match=r"neither NAME\.npz nor train\.txt"):
        load_splits(tmp_path)
    np.savez(tmp_path / "one.npz", train=np.array([[0, 0, 9]]))
    with pytest.raises(KnowledgeError, match=r"one_entity\.txt"):
        load_splits(tmp_path)
    (tmp_path / "one_entity.txt").write_text("a\n")
    (tmp_path / "one_relation.txt").write_text("r\n")
    with pytest.raises(KnowledgeError, match=r"one\.npz: train: numbers up to \[0, 0, 9\]"):
        load_splits(tmp_path)
    np.savez(tmp_path / "one.npz", train=np.array(["x"], dtype=object))
    with pytest.raises(KnowledgeError, match=r"one\.npz"):
        load_splits(tmp_path)
    (tmp_path / "two_train.tsv").write_text("a\tr\n")
    with pytest.raises(KnowledgeError, match="name= must be one of one, two"):
        load_splits(tmp_path)
    with pytest.raises(KnowledgeError, match=r"two_train\.tsv.*line 1"):
        load_splits(tmp_path, "two")
    for train, match in ((np.zeros((1, 2), int), "expected integers"), (np.empty((0, 3), int), "no triple to learn")):
        with pytest.raises(KnowledgeError, match=match):
            splits_of(train)


def test_a_graph_is_split_without_loss() -> None:
    kg = ring().graph()
    splits = Splits.of(kg, valid=0.2, test=0.1, seed=3)
    assert (len(splits.valid), len(splits.test)) == (round(0.2 * len(kg)), round(0.1 * len(kg)))
    arcs = {(h, r, t) for h, r, t in zip(kg.heads.tolist(), kg.out.types.tolist(), kg.out.nodes.tolist(), strict=True)}
    assert {tuple(row) for row in splits.known.tolist()} == arcs
    assert len(splits.known) == len(arcs)
    assert "valid" in repr(splits)
    with pytest.raises(KnowledgeError, match="must be shares"):
        Splits.of(kg, valid=0.6, test=0.5)


@pytest.mark.skipif(not DATA.exists(), reason="the data sets are not beside the repository")
@pytest.mark.parametrize(
    ("name", "sizes"),
    [("nations", (14, 55, 1592, 199, 201)), ("kinships", (104, 25, 8544, 1068, 1074))],
)
def test_real_sets_are_learned_far_beyond_frequencies(name, sizes) -> None:
    splits = load_splits(DATA, name)
    n = len(splits.entities)
    assert (n, len(splits.relations), *(len(getattr(splits, p)) for p in ("train", "valid", "test"))) == sizes
    if name == "nations":
        return
    found = fit_embeddings(splits, EmbeddingConfig("complex", dim=64, epochs=10, batch=256, n3=0.01))
    ours = rank_triples(found.predictor.scorer(), splits.test, n, known=splits.known).metrics()
    floor = rank_triples(frequency_scorer(splits.train, n), splits.test, n, known=splits.known).metrics()
    assert ours["mrr"] > 0.7 > 0.3 > floor["mrr"]

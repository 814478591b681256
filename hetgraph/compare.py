"""Every fusion method on the same data: equal budgets of parameters and of tuning, choices made on validation only.

A comparison trains each method with every setting of one grid, takes the setting with the best validation metric,
trains it anew with every seed, and scores the test part once for each of these. Every method's width is chosen so
that all have about as many parameters. Finished runs are kept in the folder, so that it goes on where it stopped.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from .comparison_outcomes import (
    Digest,
    Failure,
    Held,
    Store,
    key_of,
    learning_digest,
    perform,
    samples_digest,
)
from .comparison_runs import (
    FLOORS,
    Data,
    Run,
    Source,
    floor,
    make_model,
    metric_names,
    modalities,
    parameters,
    subsets,
)
from .errors import HetgraphError
from .files import write_atomically
from .fusion import METHODS
from .significance import MOST_EXACT, holm, paired_t, sign_flip, standard_error
from .training import TrainingSettings

RESULT = "comparison.json"
TOLERANCE = 0.1
"""By how much a method's parameters may differ from the budget before the result says so."""
MOST_WIDTH = 8192
SMALLER_IS_BETTER = ("loss", "mae", "rmse")

Watch = Callable[[str, int, int], None]
"""Told what is being done, how many runs are done and how many there are."""


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    Attributes:
        methods: names in :data:`hetgraph.fusion.METHODS`; empty: all.
        seeds: of the final runs; each method gets the same ones, which makes the differences paired.
        tuning_seeds: of the runs that the setting is chosen by.
        width: of the method ``graph``; with ``layers`` and ``heads`` it gives the budget.
        budget: parameters of every method; None: those of ``graph``.
        lr, dropout: the grid: every combination is tried for every method. Without a validation part the first of
            each is taken.
        training: everything else about training.
        single: also train ``graph`` on each modality alone.
        subsets: also score the test part with every subset of the modalities.
        norm, direct: of the head, see :class:`~hetgraph.predictor.Predictor`; ``direct`` is outside of the budget.
        metric: what the result is ordered by; None: the objective's main metric. Settings are always chosen by the
            main metric.
    """

    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seeds: tuple[int, ...] = (0,)
    width: int = 64
    layers: int = 2
    heads: int = 4
    budget: int | None = None
    lr: tuple[float, ...] = (1e-3, 3e-3)
    dropout: tuple[float, ...] = (0.1, 0.3)
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(epochs=40, patience=8, modality_dropout=0.1)
    )
    single: bool = False
    subsets: bool = False
    norm: bool = False
    direct: int = 0
    metric: str | None = None

    @classmethod
    def using(cls, settings: Mapping[str, Any], **more: Any) -> Comparison:
        """A comparison with settings of its own and of the training, all in one mapping, over the defaults.

        Args:
            settings: such as an entry of :data:`hetgraph.tasks.datasets.suggested.SUGGESTED`.
            **more: attributes that the mapping does not give.
        """
        own = {field.name for field in fields(cls)}
        plain = cls(**more)
        training = replace(plain.training, **{key: value for key, value in settings.items() if key not in own})
        return replace(plain, training=training, **{key: value for key, value in settings.items() if key in own})

    def __post_init__(self) -> None:
        if not self.methods:
            object.__setattr__(self, "methods", tuple(METHODS))
        for name in self.methods:
            if name not in METHODS:
                raise HetgraphError(f"unknown fusion method {name!r}; known: {', '.join(METHODS)}")
        for name in ("methods", "seeds", "tuning_seeds", "lr", "dropout"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise HetgraphError(f"a comparison needs at least one value in {name}, and none twice; got {values}")
        if min(*self.lr, self.width, self.heads, self.budget or 1) <= 0 or not all(0 <= p < 1 for p in self.dropout):
            raise HetgraphError(f"impossible comparison settings: {self}")

    @property
    def grid(self) -> list[tuple[float, float]]:
        """Learning rate and dropout of every configuration."""
        return list(product(self.lr, self.dropout))


@dataclass(frozen=True)
class Contender:
    """A method with its size, on all modalities or on some."""

    name: str
    method: str
    removed: tuple[str, ...]
    width: int
    parameters: int


def compare(
    source: Source, settings: Comparison, folder: str | Path, *, workers: int = 0, watch: Watch | None = None
) -> dict[str, Any]:
    """Train and score all methods.

    Args:
        source: gives the data of a seed.
        settings: see :class:`Comparison`.
        folder: keeps every finished run (``runs/``) and the result (``comparison.json``). Runs that are already
            there are not done again if nothing that decides their outcome has changed.
        workers: processes that train side by side; 0: none but this one. More than one make the seconds longer.
        watch: told about the progress.

    Returns:
        The result, JSON-able; :mod:`hetgraph.comparison_report` shows it.

    Raises:
        HetgraphError: unknown modalities or metrics, too many subsets, or every run of a kind failed.
        CheckpointError: a kept run is damaged, or the folder cannot be written.
    """
    return _Comparing(source, settings, Path(folder), workers, watch).result()


def width_for(data: Data, method: str, budget: int, layers: int, heads: int, removed: Sequence[str] = ()) -> int:
    """The multiple of ``heads`` with which a method's parameters come closest to the budget."""

    def count(width: int) -> int:
        return parameters(make_model(data, method, width, layers, heads, removed=removed))

    low, high = 1, 2
    while high * heads < MOST_WIDTH and count(high * heads) < budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle * heads) < budget else (low, middle)
    return min((low * heads, high * heads), key=lambda width: abs(count(width) - budget))


class _Digests:
    """Digests by seed; data that is the same for several seeds is read once."""

    def __init__(self, source: Source, digest: Callable[[Data], str]) -> None:
        self.source, self.digest = source, digest
        self.found: dict[int, str] = {}
        self.last: tuple[Data, str] | None = None

    def __call__(self, seed: int) -> str:
        if seed not in self.found:
            data = self.source(seed)
            if self.last is None or self.last[0] is not data:
                self.last = data, self.digest(data)
            self.found[seed] = self.last[1]
        return self.found[seed]


class _Comparing:
    """One comparison under way."""

    def __init__(self, source: Source, settings: Comparison, folder: Path, workers: int, watch: Watch | None) -> None:
        self.source, self.settings, self.workers = Held(source), settings, workers
        self.store, self.watch = Store(folder), watch
        self.failures: list[Failure] = []
        self.learning = _Digests(self.source, learning_digest)
        self.testing = _Digests(self.source, lambda data: samples_digest(data.test))
        self.done = 0
        data = self.source(settings.seeds[0])
        self.objective, self.name = data.objective, data.name
        notes = getattr(data, "notes", ())
        self.notes = [note for note in ([notes] if isinstance(notes, str) else notes) if note]
        self.names = modalities(data)
        if settings.metric and settings.metric not in (known := metric_names(data)):
            raise HetgraphError(f"no metric {settings.metric!r}; known: {', '.join(known)}")
        for field_name in ("modality_dropout", "feature_swap"):
            rates = getattr(settings.training, field_name)
            unknown = [name for name in rates if name not in data.schema.nodes] if isinstance(rates, Mapping) else []
            if unknown:
                types = ", ".join(data.schema.nodes)
                raise HetgraphError(
                    f"{data.name}: {field_name} of {unknown[0]!r}, which is no node type; known: {types}"
                )
        self.tuned = data.valid is not None and len(settings.grid) > 1
        if settings.subsets:
            subsets(data)
        if settings.single and len(self.names) < 2:
            raise HetgraphError(f"{data.name}: has one modality ({self.names[0]}), nothing to compare it with alone")
        self.contenders = self._contenders(data)
        tuning = len(settings.grid) * len(settings.tuning_seeds) if self.tuned else 0
        self.total = len(self.contenders) * (tuning + len(settings.seeds))

    def _contenders(self, data: Data) -> list[Contender]:
        s = self.settings
        self.budget = s.budget or parameters(make_model(data, "graph", s.width, s.layers, s.heads))
        wanted: list[tuple[str, str, tuple[str, ...]]] = [(method, method, ()) for method in s.methods]
        if s.single:
            if "graph" not in s.methods:
                wanted.append(("graph", "graph", ()))
            wanted += [
                (f"graph, {name} alone", "graph", tuple(n for n in self.names if n != name)) for name in self.names
            ]
        found = []
        for title, method, removed in wanted:
            width = width_for(data, method, self.budget, s.layers, s.heads, removed)
            size = parameters(make_model(data, method, width, s.layers, s.heads, removed=removed))
            found.append(Contender(title, method, removed, width, size))
        return found

    def result(self) -> dict[str, Any]:
        chosen = self._tune()
        finals = self._finals(chosen)
        rows = [self._row(c, chosen[c.name], found) for c, found in finals.items() if found]
        if not rows:
            raise HetgraphError(f"no run succeeded; the first failed: {self.failures[0].error}")
        self._compare_pairs(rows)
        rows.sort(key=lambda row: -row["mean"] if self.larger else row["mean"])
        result = {
            "data": self.name,
            "notes": self.notes,
            "metric": self.metric,
            "larger_is_better": self.larger,
            "budget": self.budget,
            "tuned_by": f"validation {self.objective.main}" if self.tuned else None,
            "configurations": len(self.settings.grid) if self.tuned else 1,
            "workers": self.workers,
            "settings": asdict(self.settings),
            "rows": rows,
            "floor": self._floor(),
            "no_harm": self._no_harm(rows),
            "failures": [
                {"method": f.run.method, "seed": f.run.seed, "run": f.run.title, "error": f.error}
                for f in self.failures
            ],
        }
        text = json.dumps(result, indent=2, allow_nan=False)
        write_atomically(self.store.folder / RESULT, text + "\n")
        # what is returned is what is written: lists where the settings hold tuples
        return dict(json.loads(text))

    @property
    def metric(self) -> str:
        return self.settings.metric or self.objective.main

    @property
    def larger(self) -> bool:
        own = self.metric == self.objective.main
        return self.objective.larger if own else self.metric not in SMALLER_IS_BETTER

    def _run(self, contender: Contender, lr: float, dropout: float, seed: int, final: bool) -> Run:
        s = self.settings
        return Run(
            contender.method,
            contender.width,
            s.layers,
            s.heads,
            dropout,
            replace(s.training, lr=lr, seed=seed),
            contender.removed,
            final,
            final and s.subsets and not contender.removed,
            s.norm,
            s.direct,
        )

    def _tune(self) -> dict[str, tuple[float, float]]:
        """The configuration of every contender; those whose every configuration failed are left out."""
        s = self.settings
        if not self.tuned:
            return {c.name: s.grid[0] for c in self.contenders}
        runs = {
            self._run(c, lr, dropout, seed, False): (c.name, (lr, dropout))
            for seed in s.tuning_seeds
            for c in self.contenders
            for lr, dropout in s.grid
        }
        scores: dict[str, dict[tuple[float, float], list[float]]] = {}
        for run, outcome in self._outcomes(list(runs), "tuning").items():
            name, config = runs[run]
            if self.objective.main in outcome["valid"]:
                scores.setdefault(name, {}).setdefault(config, []).append(outcome["valid"][self.objective.main])
        chosen = {}
        for c in self.contenders:
            # a configuration that failed with any seed is not compared by the others
            found = scores.get(c.name, {})
            means = {k: statistics.fmean(v) for k, v in found.items() if len(v) == len(s.tuning_seeds)}
            if means:
                best = max if self.objective.larger else min
                chosen[c.name] = best((k for k in s.grid if k in means), key=means.__getitem__)
        return chosen

    def _finals(self, chosen: Mapping[str, tuple[float, float]]) -> dict[Contender, dict[int, dict[str, Any]]]:
        """The outcomes of every contender by seed."""
        runs = {
            self._run(c, *chosen[c.name], seed, True): c
            for seed in self.settings.seeds
            for c in self.contenders
            if c.name in chosen
        }
        found: dict[Contender, dict[int, dict[str, Any]]] = {c: {} for c in self.contenders}
        outcomes = self._outcomes(list(runs), "final runs")
        for run, c in runs.items():
            if run in outcomes:
                found[c][run.seed] = outcomes[run]
        return found

    def _outcomes(self, runs: Sequence[Run], title: str) -> dict[Run, dict[str, Any]]:
        """What is kept is read, what is not is done; failures are noted."""
        found: dict[Run, dict[str, Any]] = {}
        missing: dict[Run, str] = {}
        for run in runs:
            key = key_of(run, self._digest(run))
            kept = self.store.find(run, key)
            if kept is None:
                missing[run] = key
            else:
                found[run] = kept
        self._tell(title, len(found))
        for run, outcome in perform(list(missing), self.source.source if self.workers else self.source, self.workers):
            if isinstance(outcome, Failure):
                self.failures.append(outcome)
            else:
                self.store.keep(run, missing[run], outcome)
                found[run] = outcome
            self._tell(run.title, 1)
        return found

    def _tell(self, title: str, more: int) -> None:
        self.done += more
        if self.watch is not None:
            self.watch(title, self.done, self.total)

    def _digest(self, run: Run) -> str:
        """Of the data a run sees: the test part is not even read for one that tunes."""
        learning = self.learning(run.seed)
        return Digest(learning, self.testing(run.seed)).hex if run.final else learning

    def _row(self, c: Contender, config: tuple[float, float], found: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
        values = {str(seed): o["test"][self.metric] for seed, o in found.items() if self.metric in o["test"]}
        if not values:
            raise HetgraphError(f"{c.name}: no run has the metric {self.metric!r}")
        valid = [o["valid"][self.metric] for o in found.values() if o["valid"] and self.metric in o["valid"]]
        names = list(dict.fromkeys(name for o in found.values() for name in o["test"]))
        row = {
            "name": c.name,
            "method": c.method,
            "modalities": [name for name in self.names if name not in c.removed],
            "values": values,
            **_summary(list(values.values())),
            "valid": statistics.fmean(valid) if valid else None,
            "metrics": {n: _summary([o["test"][n] for o in found.values() if n in o["test"]]) for n in names},
            "parameters": c.parameters,
            "width": c.width,
            "within_budget": abs(c.parameters / self.budget - 1) <= TOLERANCE,
            "seconds_per_epoch": statistics.median(o["seconds_per_epoch"] for o in found.values()),
            "epochs": statistics.fmean(o["epochs"] for o in found.values()),
            "lr": config[0],
            "dropout": config[1],
            "against": None,
        }
        if all("subsets" in o for o in found.values()):
            row["subsets"] = self._subsets(list(found.values()))
        return row

    def _subsets(self, outcomes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        rows = []
        for several in zip(*(o["subsets"] for o in outcomes), strict=True):
            values = [one["test"][self.metric] for one in several if self.metric in one["test"]]
            share = statistics.fmean(one["answered"] for one in several)
            summary = _summary(values) if values else {}
            rows.append({"modalities": several[0]["modalities"], "answered": share, **summary})
        return rows

    def _compare_pairs(self, rows: Sequence[dict[str, Any]]) -> None:
        """Each method against the best other one; p-values are corrected for the number of different pairs."""
        methods = [
            row for row in rows if len(row["modalities"]) == len(self.names) and row["name"] in self.settings.methods
        ]
        sign = -1 if self.larger else 1
        pairs: dict[frozenset[str], dict[str, Any]] = {}
        for row in methods:
            others = [other for other in methods if other is not row]
            if not others:
                continue
            best = min(others, key=lambda other: sign * other["mean"])
            row["against"] = {"name": best["name"], **paired(row["values"], best["values"])}
            pairs.setdefault(frozenset((row["name"], best["name"])), row["against"])
        for test in ("p_sign_flip", "p_t"):
            known = {pair: against[test] for pair, against in pairs.items() if against[test] is not None}
            corrected = dict(zip(known, holm(list(known.values())), strict=True))
            for row in methods:
                if row["against"]:
                    pair = frozenset((row["name"], row["against"]["name"]))
                    row["against"][f"{test}_holm"] = corrected.get(pair)

    def _floor(self) -> dict[str, Any]:
        """The metric of the best answer that looks at no modality, over the seeds (the data may change with them)."""
        found = [floor(self.source(seed)) for seed in self.settings.seeds]
        values = [scores[self.metric] for scores in found if self.metric in scores]
        name = FLOORS.get(type(self.objective).__name__, "constant")
        return {"name": name, **(_summary(values) if values else {"mean": None, "std": None, "standard_error": None})}

    def _no_harm(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """``graph`` on all modalities against itself on the best single one."""
        whole = next((row for row in rows if row["name"] == "graph"), None)
        alone = [row for row in rows if len(row["modalities"]) < len(self.names)]
        if whole is None or not alone:
            return None
        by = "validation" if all(row["valid"] is not None for row in alone) else "test"
        place = "valid" if by == "validation" else "mean"
        best = (max if self.larger else min)(alone, key=lambda row: row[place])
        found = paired(whole["values"], best["values"])
        gain = None if found["mean"] is None else found["mean"] * (1 if self.larger else -1)
        error = found["standard_error"]
        ratio = gain / error if gain is not None and error else None
        return {
            "single": best["name"],
            "chosen_by": by,
            "all": whole["mean"],
            "alone": best["mean"],
            "gain": gain,
            "in_standard_errors": ratio,
            **{name: found[name] for name in ("standard_error", "n", "p_sign_flip", "p_t")},
        }


def paired(values: Mapping[str, float], others: Mapping[str, float]) -> dict[str, Any]:
    """The differences over the seeds that both have: mean, standard error and two p-values (None: too few)."""
    differences = [value - others[seed] for seed, value in values.items() if seed in others]
    exact = 1 <= len(differences) <= MOST_EXACT
    return {
        "n": len(differences),
        "mean": statistics.fmean(differences) if differences else None,
        "standard_error": standard_error(differences),
        "p_sign_flip": sign_flip(differences) if exact else None,
        "p_t": paired_t(differences),
    }


def _summary(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "standard_error": standard_error(values),
    }

"""Kept figures are those of the settings that the code suggests today, so that their commands go on with the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fewshot
from hetgraph.tasks import detection, generation, retrieval, vqa
from hetgraph.tasks.detection import grounding
from hetgraph.tasks.generation import imputation

RESULTS = Path(__file__).parent.parent / "docs/results"
SUGGESTED: dict[str, Callable[[str], Any]] = {
    "vqa": vqa.suggested,
    "retrieval": retrieval.suggested,
    "generation": lambda name: generation.suggested(name, method="graph"),
    "imputation": imputation.settings_of,
    "detection": lambda name: (grounding if name == "grounding" else detection).suggested(name),
    "fewshot": lambda name: fewshot.SETTINGS,
}
FILES = sorted(path.stem for path in RESULTS.glob("*.json") if path.stem.partition("_")[0] in SUGGESTED)


def test_there_are_figures_of_every_task() -> None:
    assert {name.partition("_")[0] for name in FILES} == set(SUGGESTED)


@pytest.mark.parametrize("name", FILES)
def test_figures_are_of_the_suggested_settings(name) -> None:
    task, _, data = name.partition("_")
    kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    own = kept.get("name", kept.get("data"))
    assert own in (data, data.removesuffix("_edges"), name), name
    today = json.loads(json.dumps(asdict(SUGGESTED[task](own))))
    assert kept["settings"] == today

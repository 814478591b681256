"""Runs that take hours in all: kept in a JSON file after each, and not repeated when the script is started again."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hetgraph.errors import HetgraphError
from hetgraph.files import write_atomically

Key = Mapping[str, Any]


def keep(
    path: Path,
    head: Mapping[str, Any],
    keys: Sequence[Key],
    run: Callable[[Key], Mapping[str, Any]],
    watch: Callable[[str], object] = lambda title: None,
) -> dict[str, Any]:
    """Do the runs that a file does not hold yet.

    Args:
        path: of the JSON file: ``head`` and ``runs``; it is written after every run.
        head: what all runs share (data, settings, notes).
        keys: what tells a run from the others, such as ``{"method": "graph", "seed": 0}``; in the order of the runs.
        run: does one, and returns what was measured.
        watch: is told what is under way.

    Returns:
        ``head`` and ``runs``, each with its key in front.

    Raises:
        HetgraphError: the file holds runs with another head.
    """
    plain = json.loads(json.dumps(dict(head)))
    runs: list[dict[str, Any]] = []
    if path.exists():
        kept = json.loads(path.read_text())
        held = {name: value for name, value in kept.items() if name != "runs"}
        if changed := [name for name in {**plain, **held} if held.get(name) != plain.get(name)]:
            raise HetgraphError(
                f"{path} holds runs with other settings ({', '.join(changed)}); move it away or name another file"
            )
        runs = kept["runs"]
    for number, key in enumerate(keys):
        if any(all(done.get(name) == value for name, value in key.items()) for done in runs):
            continue
        watch(f"{number + 1} of {len(keys)}: {', '.join(f'{name} {value}' for name, value in key.items())}")
        runs.append({**key, **run(key)})
        write_atomically(path, json.dumps({**plain, "runs": runs}, indent=1) + "\n")
    return {**plain, "runs": runs}


def difference(mean: float, error: float | None) -> str:
    """A mean difference and its standard error, as ``+0.021 ± 0.004``; None: there is none."""
    return f"{mean:+.3f}" if error is None else f"{mean:+.3f} ± {error:.3f}"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and sample standard deviation, as ``0.812 ± 0.004``; of one value the value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"

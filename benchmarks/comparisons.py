"""From the JSON of ``hetgraph compare`` on the built-in data sets to one table of all of them and a page.

Reads ``compare_*.json`` in a folder, prints every method's mean and spread on every data set, writes that table
between the lines ``<!-- comparisons:begin -->`` and ``<!-- comparisons:end -->`` of a file, and a page with a section
per data set. "Level with the best" is a mean paired difference of at most one standard error of it.

    python -m benchmarks.comparisons [--results FOLDER] [--page FILE.md] [--into README.md] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hetgraph.compare import paired
from hetgraph.comparison_report import no_harm, number, short
from hetgraph.errors import HetgraphError
from hetgraph.files import write_atomically
from hetgraph.fusion import METHODS

from .comparison_plot import Panel, draw
from .report import write_between

BEGIN, END = "<!-- comparisons:begin -->", "<!-- comparisons:end -->"
ORDER = ("mosi_bclstm", "mosi_standard", "av_digits", "msrc_v1", "tuxpaint", "scenes")
Result = Mapping[str, Any]
_PM = "\N{PLUS-MINUS SIGN}"


def read(folder: Path) -> list[Result]:
    """The results in a folder, the known data sets first.

    Raises:
        HetgraphError: no folder, no result in it, or one that is broken.
    """
    found = {}
    for path in sorted(folder.glob("compare_*.json")):
        try:
            result = json.loads(path.read_text())
            found[result["data"]] = {**result, "rows": list(result["rows"])}
        except (ValueError, KeyError, TypeError) as error:
            raise HetgraphError(f"{path} is no result of hetgraph compare: {error!r}") from error
    if not found:
        raise HetgraphError(f"no compare_*.json in {folder}; run hetgraph compare with --json first")
    return [found[name] for name in sorted(found, key=lambda n: (n not in ORDER, ORDER.index(n) if n in ORDER else n))]


def methods(result: Result) -> dict[str, Any]:
    """The rows with all modalities, best first."""
    every = max(len(row["modalities"]) for row in result["rows"])
    return {row["name"]: row for row in result["rows"] if len(row["modalities"]) == every}


def behind(result: Result, name: str) -> tuple[float, float] | None:
    """How much a method is behind the best other one (negative: ahead), and the standard error; None: one seed."""
    rows = methods(result)
    best = next(row for row in rows.values() if row["name"] != name)
    found = paired(best["values"], rows[name]["values"])
    if found["standard_error"] is None:
        return None
    return found["mean"] * (1 if result["larger_is_better"] else -1), found["standard_error"]


def level(result: Result, name: str) -> bool:
    """Whether a method is the best, or not more than one standard error behind it."""
    found = behind(result, name)
    return found is not None and found[0] <= found[1]


def summary(results: Sequence[Result]) -> Iterator[str]:
    """Methods by data sets in Markdown: the best in bold, a degree sign where a method is level with it."""
    yield "| | " + " | ".join(f"{r['data']} ({r['metric']})" for r in results) + " |"
    yield "|" + " --- |" * (len(results) + 1)
    names = list(dict.fromkeys(name for result in results for name in sorted(methods(result), key=_first)))
    for name in names:
        cells = []
        for result in results:
            rows = methods(result)
            if name not in rows:
                cells.append("")
                continue
            text = f"{rows[name]['mean']:.3f} {_PM} {rows[name]['std'] or 0:.3f}"
            best = next(iter(rows)) == name
            cells.append(f"**{text}**" if best else text + ("°" if level(result, name) else ""))
        yield f"| {name} | " + " | ".join(cells) + " |"
    alone = [r["no_harm"] and f"{r['no_harm']['alone']:.3f} ({_kept(r['no_harm'])})" for r in results]
    yield "| graph, best single modality | " + " | ".join(cell or "" for cell in alone) + " |"
    floors = [f"{r['floor']['mean']:.3f}" if r["floor"]["mean"] is not None else "" for r in results]
    yield "| floor | " + " | ".join(floors) + " |"


def _first(name: str) -> bool:
    return name != "graph"


def _kept(harm: Mapping[str, Any]) -> str:
    return str(harm["single"]).removeprefix("graph, ").removesuffix(" alone")


def section(result: Result) -> Iterator[str]:
    """What the page says of one data set."""
    name, seeds = result["data"], len(result["settings"]["seeds"])
    better = "higher" if result["larger_is_better"] else "lower"
    yield f"## {name}"
    yield ""
    yield f"    hetgraph compare {name} --data FOLDER --seeds {seeds} --single --subsets"
    yield ""
    tuned = f"{result['configurations']} configurations each, chosen by {result['tuned_by']}"
    yield (
        f"Test {result['metric']} ({better} is better), {seeds} seeds, about {result['budget']:,} parameters; "
        f"{tuned if result['tuned_by'] else 'nothing tuned'}."
    )
    yield ""
    others = [m for m in result["rows"][0]["metrics"] if m not in (result["metric"], "loss")][:4]
    yield "| method | mean | std | behind the best other | parameters | epochs | lr / dropout |" + "".join(
        f" {m} |" for m in others
    )
    yield "|" + " --- |" * (7 + len(others))
    for row in result["rows"]:
        lag = behind(result, row["name"]) if row["name"] in methods(result) else None
        cells = [
            row["name"],
            number(row["mean"]),
            number(row["std"]),
            "" if lag is None else f"{lag[0]:+.4f} {_PM} {lag[1]:.4f}",
            short(row["parameters"]) + ("" if row["within_budget"] else " (off the budget)"),
            f"{row['epochs']:.0f}",
            f"{row['lr']:g} / {row['dropout']:g}",
            *(number(row["metrics"].get(m, {}).get("mean")) for m in others),
        ]
        yield "| " + " | ".join(cells) + " |"
    yield f"| {result['floor']['name']} | {number(result['floor']['mean'])} |" + " |" * (5 + len(others))
    yield ""
    if result["no_harm"]:
        yield no_harm(result["no_harm"]) + "."
        yield ""
    yield f"![scores of every seed](images/compare_{name}.png)"
    yield ""


def panel(result: Result) -> Panel:
    """What the picture shows of one data set."""
    scores = {row["name"]: list(row["values"].values()) for row in result["rows"]}
    alone = result["no_harm"] and result["no_harm"]["alone"]
    return Panel(f"{result['data']}: {result['metric']}", scores, alone, result["larger_is_better"])


PAGE = """# Fusion methods compared on six data sets

Made by `python -m benchmarks.comparisons --page docs/comparisons.md --plot docs/images/comparisons.png` from what
`hetgraph compare` wrote to `docs/results`; [compare.md](compare.md) says what is equal and what figures do not show,
[datasets.md](datasets.md) what the data are. Every method has the same graphs, parameters, tuning and seeds. **Bold**:
the best mean; °: behind it by at most one standard error of the paired difference.

![test scores of every method and seed](images/comparisons.png)
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--page", type=Path, help="write the page here")
    parser.add_argument("--into", type=Path, help="a file with the two lines to put the table between")
    parser.add_argument("--plot", type=Path, help="draw all of them into this .png")
    found = parser.parse_args(argv)
    results = read(found.results)
    lines = list(summary(results))
    print("\n".join(lines))
    for result in results:
        if "graph" in methods(result):
            lag = behind(result, "graph")
            said = "one seed" if lag is None else f"{lag[0]:+.4f} {_PM} {lag[1]:.4f} behind the best other"
            print(f"{result['data']}: graph {said}{', level with the best' if level(result, 'graph') else ''}")
        if result["no_harm"]:
            print("  " + no_harm(result["no_harm"]))
    if found.page:
        parts = [PAGE, *lines, "", *(line for result in results for line in section(result))]
        write_atomically(found.page, "\n".join(parts).rstrip() + "\n")
    if found.plot:
        draw([panel(result) for result in results], found.plot, tuple(METHODS), "graph on its best single modality")
    if found.into:
        write_between(found.into, "\n".join(lines), BEGIN, END)


if __name__ == "__main__":
    main()

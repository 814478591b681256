"""From the JSON files of the speed benchmarks to the README's table and the plots.

Reads every result in a folder, prints the table in Markdown, writes it between the lines ``<!-- speed:begin -->`` and
``<!-- speed:end -->`` of a file if one is given, and draws into a folder ``speed.png`` (the peers' time over ours),
``memory.png`` (the same of peak memory) and ``scaling.png`` (time against size).

    python -m benchmarks.report --results docs/results --images docs/images [--into README.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hetgraph.errors import HetgraphError
from hetgraph.files import write_atomically

from .common import number
from .plots import COLUMNS, Row, draw_bars, draw_lines

BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
ORDER = (
    *("message_passing", "sparse_attention", "graph_building", "training_step"),
    *("memory", "import_time", "encoding", "knowledge_graph", "scaling"),
)
_KEYS = {"label", "unit", "sizes", "ours", "peers", "values", "ratios", "axis", "growth"}


def read(folder: Path) -> list[dict[str, Any]]:
    """The results in a folder, in the order of the report; files of other benchmarks are passed over.

    Raises:
        HetgraphError: no folder, no result in it, or a result that is broken.
    """
    if not folder.is_dir():
        raise HetgraphError(f"{folder} is not a folder; run the benchmarks with --json {folder}/NAME.json first")
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(path.read_text())
        except ValueError as error:
            raise HetgraphError(f"{path} is not JSON: {error}") from error
        if not isinstance(data, dict) or data.get("benchmark") not in ORDER:
            continue
        settings = data.get("settings", [])
        missing = [sorted(_KEYS - set(setting)) for setting in settings if _KEYS - set(setting)]
        if missing or not settings:
            raise HetgraphError(f"{path}: expected settings with {sorted(_KEYS)}, lacks {missing or 'settings'}")
        found[data["benchmark"]] = data
    if not found:
        raise HetgraphError(f"no results in {folder}; run the benchmarks with --json {folder}/NAME.json first")
    return [found[name] for name in ORDER if name in found]


def rows(results: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Row]]:
    """Every kind of every setting that is not a sweep, with the result it belongs to."""
    for data in results:
        for setting in data["settings"]:
            if setting["axis"]:
                continue
            title = f"{data['title']}: {setting['label']}"
            for kind, values in setting["values"].items():
                mine = setting["ours"]
                yield (
                    data,
                    Row(
                        title,
                        kind,
                        setting["sizes"],
                        values[mine]["median"],
                        setting["unit"],
                        setting["ratios"][kind][mine],
                    ),
                )


def table(results: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown, with a line on the conditions before it and one on growth after it."""
    every = [row for _, row in rows(results)]
    named = [column for column in COLUMNS if any(column in row.ratios for row in every)]
    others = any(set(row.ratios) - set(COLUMNS) for row in every)
    head = ["", "hetgraph", *(f"{column} / it" for column in named), *(["others / it"] if others else [])]
    lines = [_conditions(results), "", line(head), line(["---"] * len(head))]
    for row in every:
        cells = [f"{row.title} ({_sizes(row.sizes)}), {row.kind}", f"{number(row.ours)} {row.unit}"]
        cells += [number(row.ratios[column]) if column in row.ratios else "" for column in named]
        rest = (f"{name} {number(ratio)}" for name, ratio in row.ratios.items() if name not in COLUMNS)
        lines.append(line(cells + ([", ".join(rest)] if others else [])))
    grown = [_growth(setting) for data in results for setting in data["settings"] if setting["axis"]]
    if grown:
        lines += ["", "Growth of forward and backward: " + "; ".join(grown) + "."]
    return "\n".join(lines)


def line(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def _sizes(sizes: dict[str, int]) -> str:
    plain = ((count, what.removesuffix("s") if count == 1 else what) for what, count in sizes.items())
    return ", ".join(f"{count:,} {what}" for count, what in plain)


def _conditions(results: Sequence[dict[str, Any]]) -> str:
    versions: dict[str, str] = {}
    for data in results:
        versions.update(data["versions"])
    names = {"torch": "torch", "torch-geometric": "PyG", "dgl": "DGL"}
    tools = ", ".join(f"{name} {versions[key]}" for key, name in names.items() if key in versions)
    threads = " or ".join(str(n) for n in sorted({data["threads"] for data in results}))
    cpus = " or ".join(sorted({data["cpu"] for data in results}))
    quick = " These are quick trials, not measurements." if any(data["quick"] for data in results) else ""
    return f"Medians on {cpus}, threads: {threads}; {tools}.{quick}"


def _growth(setting: dict[str, Any]) -> str:
    grown = dict(setting["growth"])
    times = grown.pop(setting["axis"])
    mine = grown.pop(setting["ours"])
    theirs = ", ".join(f"{column} {number(grown[name])}" for column, name in setting["peers"].items() if name in grown)
    rest = f" ({theirs})" if theirs else ""
    return f"{number(times)} times the {setting['axis']} take {number(mine)} times as long{rest}"


def write_between(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between the two marker lines of a file.

    Raises:
        HetgraphError: the file cannot be read, or does not hold each marker exactly once and in order.
    """
    try:
        whole = path.read_text()
    except OSError as error:
        raise HetgraphError(f"could not read {path}: {error.strerror}") from error
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise HetgraphError(f"{path} must hold the lines {begin} and {end} once, in this order")
    before, rest = whole.split(begin)
    write_atomically(path, f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--into", type=Path, help="write the table between the markers of this file")
    found = parser.parse_args(argv)
    results = read(found.results)
    times = [row for data, row in rows(results) if data["benchmark"] != "memory"]
    memory = [row for data, row in rows(results) if data["benchmark"] == "memory"]
    sweeps = [setting for data in results for setting in data["settings"] if setting["axis"]]
    if any(set(row.ratios) & set(COLUMNS) for row in times):
        draw_bars(times, found.images / "speed.png", "time of the peer")
    if memory:
        draw_bars(memory, found.images / "memory.png", "peak memory of the peer")
    if sweeps:
        draw_lines(sweeps, found.images / "scaling.png")
    text = table(results)
    print(text)
    if found.into:
        write_between(found.into, text)


if __name__ == "__main__":
    main()

"""What is wrong with the official files in a folder, and how much they hold: ``python -m hetgraph.tasks.datasets``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...errors import HetgraphError
from . import official


def main() -> int:
    """1 if a file is missing or damaged, or they do not fit together."""
    parser = argparse.ArgumentParser(prog="python -m hetgraph.tasks.datasets", description=__doc__)
    parser.add_argument("name", nargs="?", help="a data set; without it, a list of them")
    parser.add_argument("folder", nargs="?", type=Path, help="default: its folder in $HETGRAPH_DATA")
    arguments = parser.parse_args()
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)
    if arguments.name is None:
        console.print(_known())
        return 0
    try:
        found = official.missing(arguments.name, arguments.folder)
    except HetgraphError as error:
        Console(stderr=True, highlight=False, emoji=False).print(str(error), markup=False, soft_wrap=True)
        return 1
    table = Table("file", "fault", "detail", title=official.READERS[arguments.name].title, box=box.SIMPLE)
    for finding in found:
        table.add_row(escape(finding.file), finding.fault, escape(finding.text))
    console.print(table if found else "nothing missing, nothing damaged")
    counts, failed = _counts(arguments.name, arguments.folder)
    console.print(counts)
    return int(failed or any(finding.fault != "size" for finding in found))


def _counts(name: str, folder: Path | None) -> tuple[Table | str, bool]:
    """How much there is per part, or why that cannot be said."""
    try:
        counts = official.open(name, folder).counts()
    except HetgraphError as error:
        return f"not read together: {escape(str(error))}", True
    units = dict.fromkeys(unit for own in counts.values() for unit in own)
    table = Table("part", *units, box=box.SIMPLE)
    for part, own in counts.items():
        table.add_row(escape(part), *(f"{own[unit]:,}" if unit in own else "-" for unit in units))
    return table, False


def _known() -> Table:
    table = Table("name", "gives", "files", "from", box=box.SIMPLE)
    for name, reader in official.READERS.items():
        files = next(iter(reader.layouts.values()))
        table.add_row(name, escape(reader.gives), escape("\n".join(f.name for f in files)), escape(reader.homepage))
    return table


if __name__ == "__main__":
    sys.exit(main())

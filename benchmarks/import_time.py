"""How many seconds does ``import hetgraph`` take beyond ``import torch``?

Fresh interpreters that take turns, each imports torch first and then what is asked for; only the second import is
timed. PyTorch Geometric is the peer, and DGL if it can be loaded. Torch alone has a row for scale. Each interpreter
says which modules came with the import, so that nothing is timed that was there already.

    python -m benchmarks.import_time --json FILE [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from hetgraph import HetgraphError

from .common import Setting, arguments, finish
from .peers import load_dgl
from .standard import summary

_PROGRAM = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
module, first = sys.argv[1], sys.argv[2]
if first:
    __import__(first)
there = module in sys.modules
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "there": there, "loaded": module in sys.modules}}))
"""
_DGL = "from hetgraph.interop.dgl import load_dgl; load_dgl()"


def seconds_of(module: str, first: str = "torch", statement: str = "__import__(module)") -> float:
    """Seconds of importing a module in a fresh interpreter in which ``first`` is imported already.

    Raises:
        AssertionError: the module was there before, or is not there afterwards.
        RuntimeError: the interpreter failed.
    """
    command = [sys.executable, "-c", _PROGRAM.format(statement=statement), module, first]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"importing {module} failed:\n{done.stderr}")
    said = json.loads(done.stdout.splitlines()[-1])
    if said["there"] or not said["loaded"]:
        state = "was there before it was imported" if said["there"] else "is not there after its import"
        raise AssertionError(f"{module} {state}")
    return said["seconds"]


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=11)
    candidates = {
        "hetgraph": ("hetgraph",),
        "torch_geometric": ("torch_geometric",),
        "torch itself": ("torch", ""),
    }
    peers = {"PyG": "torch_geometric"}
    left_out = []
    try:
        load_dgl()
    except HetgraphError as error:
        left_out.append(f"DGL: {error}")
    else:
        # our loader repairs what keeps DGL from being imported beside a recent torch; hetgraph itself is not counted
        candidates["dgl"] = ("dgl", "hetgraph", _DGL)
        peers["DGL"] = "dgl"
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    rounds = 1 if found.quick else found.rounds
    # the first round fills the disk cache and writes byte code; it does not count
    for turn in range(rounds + (not found.quick)):
        for name, call in candidates.items():
            measured = seconds_of(*call)
            if turn or found.quick:
                seconds[name].append(measured)
    values = {"beyond torch": {name: summary(one, 1.0) for name, one in seconds.items()}}
    setting = Setting("fresh interpreter", "s", {"interpreters": rounds}, "hetgraph", peers, values)
    finish("import_time", "Import", found, [setting], left_out)


if __name__ == "__main__":
    main()

"""Does ``torch.compile`` make a training step faster?

``Fusion`` and the TransformerEncoder of :mod:`benchmarks.training_step`, as they are and compiled (by inductor, which
needs a C++ compiler), on the standard batch with the graph ready. Compiling takes minutes and is not timed; the
first step's seconds are printed. Losses are compared first.

    python -m benchmarks.compiling --json FILE [--quick]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from torch import Tensor

from .common import Setting, arguments, finish, sizes_of
from .peers import OURS
from .standard import SAMPLES, alternate, standard_samples, summary
from .training_step import CLASSES, Trained, candidates_for

BACKEND = "inductor"


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=9)
    samples = standard_samples(4 if found.quick else SAMPLES)
    target = torch.arange(len(samples)) % CLASSES
    plain = {one.name: one for one in candidates_for(samples)[1:]}
    ours, encoder = f"{OURS} Fusion", "TransformerEncoder"
    fast = {name: compiled(plain[name], target) for name in (ours, encoder)}

    def step(one: Trained) -> Callable[[], Tensor]:
        return lambda: one.step(one.ready, target)

    steps = {name: step(plain[name]) for name in (ours, encoder)}
    steps |= {f"{name}, compiled": step(one) for name, one in fast.items()}
    values = {"graph ready": {name: summary(times) for name, times in alternate(steps, found.rounds).items()}}
    peers = {name: name for name in steps if name != ours}
    setting = Setting("standard batch", "ms", sizes_of(plain[ours].ready), ours, peers, values)
    finish("compiling", "Training step, compiled", found, [setting], [])


def compiled(one: Trained, target: Tensor) -> Trained:
    """The same network through the compiler, once run; its loss must be the same.

    Raises:
        AssertionError: the losses differ.
    """
    before = float(torch.nn.functional.cross_entropy(one.network(one.ready), target).detach())
    began = time.perf_counter()
    fast = Trained(f"{one.name}, compiled", torch.compile(one.network, backend=BACKEND), one.ready, one.build)
    loss = torch.nn.functional.cross_entropy(fast.network(fast.ready), target)
    loss.backward()
    fast.optimizer.zero_grad()
    Console().print(f"{one.name}: compiled in {time.perf_counter() - began:.0f} s")
    if abs(float(loss.detach()) - before) > 1e-4 * (1 + abs(before)):
        raise AssertionError(f"{one.name}: loss {before:.6f}, compiled {float(loss.detach()):.6f}")
    return fast


if __name__ == "__main__":
    main()

"""Where the loops over edges and pairs of nodes come from that torch has no fast operation for.

They are optional: whoever calls one has a form in torch too, for other devices and for batches so small that
waking numba would cost more than it saves.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def compiled() -> Any:
    """The loops of :mod:`hetgraph._numba`; numba is imported and they are compiled on first use."""
    from . import _numba

    return _numba

"""Recurrent networks over the nodes of each type in time order, as sentiment pipelines have them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..edges import Counts
from ..errors import HetgraphError
from ..graph import Graph
from ..schema import Schema

KINDS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class TemporalEncoder(nn.Module):
    """A bidirectional LSTM (Hochreiter and Schmidhuber, 1997) or GRU (Cho et al., EMNLP 2014) per node type.

    ``x_i = x_i + dropout(W [forward_i; backward_i])`` over the nodes of a sample in the order of their field
    ``time`` (its start; nodes without one come last), or in the order they were given where the type has none.

    Args:
        schema: the types.
        width: width of the states; each direction has half of it.
        kind: ``"lstm"`` or ``"gru"``.
        dropout: probability.

    Shapes:
        ``{type: [N, width]}`` -> the same.

    Raises:
        HetgraphError: another kind.
    """

    def __init__(self, schema: Schema, width: int, kind: str, dropout: float = 0.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise HetgraphError(f"unknown temporal encoder {kind!r}; known: {', '.join(KINDS)}")
        half = max(width // 2, 1)
        self.timed = ["time" in node.all_fields for node in schema.nodes.values()]
        self.names = list(schema.nodes)
        self.recurrent = nn.ModuleList(
            [KINDS[kind](width, half, batch_first=True, bidirectional=True) for _ in self.names]
        )
        self.join = nn.ModuleList([nn.Linear(2 * half, width) for _ in self.names])
        self.dropout = nn.Dropout(dropout)

    def forward(self, graph: Graph, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = {}
        for i, name in enumerate(self.names):
            counts, state = graph.layout[name], x[name]
            if not counts.total:
                out[name] = state
                continue
            order = _order(graph, name) if self.timed[i] else None
            heard = self._run(self.recurrent[i], counts, state if order is None else state[order])
            if order is not None:
                heard = torch.zeros_like(heard).index_copy(0, order, heard)
            out[name] = state + self.dropout(self.join[i](heard))
        return out

    def _run(self, recurrent: nn.Module, counts: Counts, state: Tensor) -> Tensor:
        """``[N, width] -> [N, 2 * half]``, both directions of every node."""
        some = counts.per_sample > 0
        lengths = counts.per_sample[some].cpu()
        packed = pack_padded_sequence(counts.pad(state)[some], lengths, batch_first=True, enforce_sorted=False)
        heard, _ = pad_packed_sequence(recurrent(packed)[0], batch_first=True)
        # the samples that have nodes, one after the other, are the packed order again
        return heard[counts.valid[some]]


def _order(graph: Graph, name: str) -> Tensor:
    """The nodes of a type sample by sample in the order of their time, int64 ``[N]``."""
    time = graph.fields[name]["time"]
    start = time if time.dim() == 1 else time[:, 0]
    by_time = torch.argsort(start, stable=True)
    return by_time[torch.argsort(graph.batch[name][by_time], stable=True)]

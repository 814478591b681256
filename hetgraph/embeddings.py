"""Writing representations to files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from .errors import HetgraphError
from .files import write_atomically


def write_embeddings(
    path: str | Path, ids: Sequence[str], z: Tensor, nodes: Mapping[str, Tensor], owner: Mapping[str, Tensor]
) -> None:
    """Write Z and the node states.

    Args:
        path: ``.safetensors`` (tensors ``z``, ``nodes/TYPE``, ``sample/TYPE``; the ids as JSON in the header) or
            ``.parquet`` (a row per sample: ``id``, ``z``, and per node type a list of states).
        ids: B names.
        z: ``[B, width]``.
        nodes: type -> ``[N, width]``.
        owner: type -> int64 ``[N]``, the row of the sample of every node.

    Raises:
        HetgraphError: another suffix, pyarrow missing, or the file could not be written.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        tensors = {"z": z.contiguous()}
        tensors |= {f"nodes/{name}": value.contiguous() for name, value in nodes.items()}
        tensors |= {f"sample/{name}": value.contiguous() for name, value in owner.items()}
        write_atomically(path, safetensors.torch.save(tensors, {"ids": json.dumps(list(ids))}))
    elif path.suffix == ".parquet":
        write_atomically(path, _parquet(ids, z, nodes, owner))
    else:
        raise HetgraphError(f"{path}: expected .safetensors or .parquet, got {path.suffix or 'no suffix'}")


def _parquet(ids: Sequence[str], z: Tensor, nodes: Mapping[str, Tensor], owner: Mapping[str, Tensor]) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise HetgraphError("writing Parquet needs pyarrow: pip install 'hetgraph[parquet]'") from error
    taken = {"id", "z"} & set(nodes)
    if taken:
        raise HetgraphError(f"node type {min(taken)!r} is the name of another column in Parquet; write .safetensors")
    columns = {"id": pa.array(list(ids)), "z": pa.array(z.tolist(), pa.list_(pa.float32()))}
    for name, value in nodes.items():
        sizes = torch.bincount(owner[name], minlength=len(ids)).tolist()
        states = [part.tolist() for part in value.split(sizes)]
        columns[name] = pa.array(states, pa.list_(pa.list_(pa.float32())))
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()

"""Shards in the form of WebDataset: a ``.tar`` with ``KEY.safetensors`` and ``KEY.json`` for every sample.

The two files of a sample hold what a shard of that sample alone would (:mod:`hetgraph.shards`). Whatever reads
WebDataset streams them; :class:`hetgraph.shards.Shards` reads any sample from the mapped file. The same samples make
the same bytes: members have no times and no owners.

Source: the format of the library webdataset (Aizman, Maltby and Breuel, High Performance I/O For Large Scale Deep
Learning, IEEE Big Data 2019).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import HetgraphError
from .files import written_atomically


def write_tar(path: Path, members: Iterable[tuple[bytes, str]]) -> None:
    """Write pairs of tensors (a safetensors file) and JSON as the samples of a tar file.

    Raises:
        HetgraphError: the file cannot be written.
    """
    with written_atomically(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for i, (tensors, text) in enumerate(members):
            for suffix, data in (("json", text.encode()), ("safetensors", tensors)):
                member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def read_tar(path: Path, size: int) -> list[tuple[dict[str, Any], int, int]]:
    """For every sample of a tar file: its JSON, and where its tensors begin and end in the file.

    Raises:
        HetgraphError: missing, damaged, or not of so many samples.
    """
    found: list[tuple[dict[str, Any], int, int]] = []
    try:
        with tarfile.open(path, "r:") as tar:
            about: Any = None
            for member in tar:
                key, _, suffix = member.name.partition(".")
                if key != f"{len(found):09d}" or not member.isfile():
                    raise ValueError(f"unexpected member {member.name!r}")
                if suffix == "json":
                    content = tar.extractfile(member)
                    assert content is not None
                    about = json.load(content)
                    if not isinstance(about, dict):
                        raise ValueError(f"{member.name}: expected an object")
                elif suffix == "safetensors" and about is not None:
                    found.append((about, member.offset_data, member.offset_data + member.size))
                    about = None
                else:
                    raise ValueError(f"unexpected member {member.name!r}")
        if len(found) != size:
            raise ValueError(f"expected {size} samples, got {len(found)}")
    except (OSError, tarfile.TarError, ValueError) as error:
        raise HetgraphError(f"{path} cannot be read: {error}") from error
    return found

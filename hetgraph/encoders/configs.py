"""Rebuilding an encoder from the configuration that a checkpoint or manifest stores."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from hetgraph.errors import HetgraphError

from .audio import AudioFeatures
from .audio_pitch import Pitch
from .audio_spectrum import LogMel, Mfcc
from .base import Encoder
from .image import ImagePatches
from .image_boxes import ImageCrops
from .image_detector import ObjectDetector
from .image_networks import EfficientNetLite0, ImageGrid
from .superpixels import Superpixels
from .table import TableCells, TableRows
from .text import HashWords
from .text_networks import MiniLM, TextTransformer
from .timed_words import TimedWords
from .video import VideoFrames, VideoSound
from .word_vectors import WordVectors

BUILT_IN: tuple[type[Encoder], ...] = (
    ImagePatches,
    ImageGrid,
    EfficientNetLite0,
    Superpixels,
    ImageCrops,
    ObjectDetector,
    HashWords,
    WordVectors,
    TextTransformer,
    MiniLM,
    TimedWords,
    LogMel,
    Mfcc,
    Pitch,
    AudioFeatures,
    VideoFrames,
    VideoSound,
    TableCells,
    TableRows,
)


def encoder_from_config(
    config: Mapping[str, Any], known: Mapping[str, type[Encoder]] | None = None, **settings: Any
) -> Encoder:
    """The encoder that ``encoder.config()`` describes.

    Args:
        config: what ``config()`` gave, possibly by way of JSON.
        known: user-made encoder classes by name, also for encoders inside. A configuration never imports code by
            itself.
        settings: replace or complete single settings, such as ``model="/new/place"`` for a folder that has moved,
            or ``local_files_only=False`` to allow a download.

    Raises:
        HetgraphError: not a configuration, an unknown encoder, settings it does not take, a model that is
            missing, or other weights than those the configuration was made with. To accept other weights, leave
            the entry ``weights`` out.
    """
    classes = {cls.__name__: cls for cls in BUILT_IN} | dict(known or {})
    if not isinstance(config, Mapping) or not isinstance(config.get("encoder"), str):
        raise HetgraphError(f"expected an encoder's config with the entry 'encoder', got {config!r}")
    name = config["encoder"]
    if name not in classes:
        raise HetgraphError(f"unknown encoder {name!r}; known: {sorted(classes)}")
    given = {key: value for key, value in config.items() if key not in ("encoder", "weights")} | settings
    try:
        inspect.signature(classes[name]).bind(**given)
    except TypeError as error:
        raise HetgraphError(f"encoder {name!r}: the config does not fit: {error}") from error
    given = {key: encoders_of(value, known) if key in classes[name].nested else value for key, value in given.items()}
    encoder = classes[name].from_settings(given)
    wanted = config.get("weights")
    if wanted is not None and wanted != encoder.weights:
        raise HetgraphError(
            f"encoder {name!r}: the config was made with the weights {wanted!r}, found {encoder.weights!r}"
        )
    return encoder


def is_built_in(encoder: Encoder) -> bool:
    """Whether :func:`encoder_from_config` knows the encoder, and all those inside it, without being told of any."""
    return type(encoder) in BUILT_IN and all(map(is_built_in, encoder.inside))


def encoders_of(setting: Any, known: Mapping[str, type[Encoder]] | None = None) -> Any:
    """The encoders of a ``nested`` setting: of a config, or of each config in a list; encoders stay as they are.

    Raises:
        HetgraphError: as :func:`encoder_from_config`.
    """
    if isinstance(setting, Sequence) and not isinstance(setting, str):
        return [encoders_of(one, known) for one in setting]
    return setting if isinstance(setting, Encoder) else encoder_from_config(setting, known)

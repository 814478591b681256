"""Encoders: raw pictures, texts, sounds, videos and tables in, the nodes of a :class:`hetgraph.Sample` out.

    encoder = default_image_encoder()
    [region] = encoder(["photo.jpg"])              # {"x": [N, encoder.dim], "box": [N, 4]}
    sample = Sample(region=region)
    schema = Schema([encoder.node_type("region")])

A user-made encoder is a subclass of :class:`Encoder`. Nothing here is downloaded unless asked for, and the heavy
libraries (transformers, librosa, Pillow) are imported when first needed.
"""

from .audio import AudioFeatures, FrameEncoder
from .audio_pitch import Pitch
from .audio_spectrum import LogMel, Mfcc
from .base import Encoder, Nodes
from .cache import Cached
from .configs import encoder_from_config
from .defaults import (
    default_audio_encoder,
    default_boxes_encoder,
    default_image_encoder,
    default_sound_encoder,
    default_table_encoder,
    default_text_encoder,
    default_video_encoder,
    default_words_encoder,
)
from .image import ImageEncoder, ImagePatches
from .image_boxes import ImageCrops
from .image_detector import ObjectDetector
from .image_networks import EfficientNetLite0, ImageGrid
from .media import Item
from .superpixels import Superpixels
from .table import TableCells, TableEncoder, TableRows
from .table_columns import Column
from .text import HashWords, TextEncoder, words
from .text_networks import MiniLM, TextTransformer
from .timed_words import TimedWords
from .video import VideoFrames, VideoSound
from .word_vectors import WordVectors

__all__ = [
    "AudioFeatures",
    "Cached",
    "Column",
    "EfficientNetLite0",
    "Encoder",
    "FrameEncoder",
    "HashWords",
    "ImageCrops",
    "ImageEncoder",
    "ImageGrid",
    "ImagePatches",
    "Item",
    "LogMel",
    "Mfcc",
    "MiniLM",
    "Nodes",
    "ObjectDetector",
    "Pitch",
    "Superpixels",
    "TableCells",
    "TableEncoder",
    "TableRows",
    "TextEncoder",
    "TextTransformer",
    "TimedWords",
    "VideoFrames",
    "VideoSound",
    "WordVectors",
    "default_audio_encoder",
    "default_boxes_encoder",
    "default_image_encoder",
    "default_sound_encoder",
    "default_table_encoder",
    "default_text_encoder",
    "default_video_encoder",
    "default_words_encoder",
    "encoder_from_config",
    "words",
]

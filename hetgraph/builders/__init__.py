"""Ready-made schemas for common kinds of samples; extend them with your own types."""

from .knowledge import with_knowledge
from .media import (
    audio_text,
    conversation,
    image_text,
    image_text_audio,
    media,
    table,
    video_text,
)

__all__ = [
    "audio_text",
    "conversation",
    "image_text",
    "image_text_audio",
    "media",
    "table",
    "video_text",
    "with_knowledge",
]

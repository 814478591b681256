"""Reading one picture, whatever form it comes in, as 8-bit RGB."""

from __future__ import annotations

import io
import logging
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .media import Item, is_bytes, read_file, to_numpy

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)


def read_image(item: Item, path: Path | None) -> Image:
    """The picture as a PIL image of mode RGB, upright.

    Files and bytes: anything Pillow opens; the EXIF orientation is applied, transparency is laid on white, 16
    bits are scaled down to 8, and an animation gives its first frame.
    Arrays: ``[H, W]`` or ``[H, W, 1 | 3 | 4]``, uint8, or floats from 0 to 1.
    PIL images are taken like files, and left as they are.

    Raises:
        MediaError: unreadable, truncated, empty, no picture, too large (Pillow's ``MAX_IMAGE_PIXELS``), or an
            array of another shape, type or range.
    """
    from PIL import Image

    value = item.value
    if isinstance(value, Image.Image):
        return _decode(value, item)
    if path is None and not is_bytes(value):
        return _to_rgb(Image.fromarray(_picture_array(to_numpy(value, item), item)))
    data = read_file(path, item) if path is not None else bytes(value)
    if not data:
        raise item.error("expected a picture, got 0 bytes")
    return _decode(data, item)


def _decode(source: Image | bytes, item: Item) -> Image:
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns about oddities of a file that it can read all the same; the size is checked below.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(source), formats=_formats()) if isinstance(source, bytes) else source
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(
                    f"{image.width} x {image.height} pixels are more than the limit of {limit} "
                    "(PIL.Image.MAX_IMAGE_PIXELS)"
                )
            image.load()
        except Image.UnidentifiedImageError as error:
            raise item.error("expected a picture, got something that is not one (or of an unknown format)") from error
        except Image.DecompressionBombError as error:
            raise item.error(f"the picture is too large: {error}") from error
        except Exception as error:  # damaged files raise anything: OSError, SyntaxError, struct.error, zlib.error
            raise item.error(f"the picture is damaged or truncated: {type(error).__name__}: {error}") from error
        if 0 in image.size:
            raise item.error(f"expected a picture, got one of {image.width} x {image.height} pixels")
        try:
            return _to_rgb(_upright(image, item))
        except ValueError as error:
            raise item.error(f"a picture of mode {image.mode!r} cannot be converted: {error}") from error


@cache
def _formats() -> list[str]:
    """What Pillow decodes by itself; for PostScript it would start another program with the file as its input."""
    from PIL import Image

    Image.init()
    return [name for name in Image.ID if name != "EPS"]


def _upright(image: Image, item: Item) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # a damaged EXIF block raises anything; the pixels are sound
        logger.info("%s: EXIF data cannot be read, the picture is taken as it lies: %s", item.name, error)
        return image


def _to_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion cuts values above 255 off instead of scaling them.
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"expected values from 0 to 65535, found {wide.min()} to {wide.max()}")
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(_bytes_of_floats(np.asarray(image)))
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        return Image.alpha_composite(white, colour).convert("RGB")
    return image.convert("RGB")


def _bytes_of_floats(array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):  # also refuses NaN
        raise ValueError(f"expected floats from 0 to 1, found {low:g} to {high:g}")
    return (array * 255.0).round().astype(np.uint8)


def _picture_array(array: np.ndarray, item: Item) -> np.ndarray:
    def refuse(what: Any) -> Exception:
        return item.error(
            "expected a picture [height, width] or [height, width, 1 | 3 | 4] of uint8 or of floats from 0 to 1, "
            f"got {what}"
        )

    flat = array.ndim == 2
    if not flat and (array.ndim != 3 or array.shape[2] not in (1, 3, 4)):
        raise refuse(f"shape {list(array.shape)}")
    if 0 in array.shape:
        raise refuse(f"shape {list(array.shape)}, which is empty")
    if array.dtype.kind == "f":
        try:
            array = _bytes_of_floats(array)
        except ValueError as error:
            raise refuse(f"something else: {error}") from error
    elif array.dtype != np.uint8:
        raise refuse(f"type {array.dtype}")
    return array if flat or array.shape[2] > 1 else array[:, :, 0]

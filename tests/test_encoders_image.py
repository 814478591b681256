"""Reading pictures of every kind, and cutting them into patches."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from hetgraph.encoders import ImagePatches
from hetgraph.encoders.image import grid_boxes
from hetgraph.encoders.media import Item
from hetgraph.encoders.read_image import read_image
from hetgraph.errors import MediaError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(value, path=None):
    return np.asarray(read_image(Item(value, "it"), path))


@pytest.fixture
def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8))


def test_a_patch_is_the_crop_of_the_resized_picture(noise):
    [nodes] = ImagePatches((2, 3), 4)([noise])
    small = noise.resize((12, 8), Image.Resampling.BICUBIC)
    for node, (row, column) in enumerate([(r, c) for r in range(2) for c in range(3)]):
        crop = small.crop((column * 4, row * 4, column * 4 + 4, row * 4 + 4))
        expected = torch.tensor(np.asarray(crop) / 127.5 - 1.0, dtype=torch.float32).flatten()
        torch.testing.assert_close(nodes["x"][node], expected)
        box = [column / 3, row / 2, (column + 1) / 3, (row + 1) / 2]
        torch.testing.assert_close(nodes["box"][node], torch.tensor(box))


def test_boxes_tile_the_picture():
    boxes = grid_boxes(3, 5)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert areas.sum().item() == pytest.approx(1.0)
    assert boxes.min() == 0.0
    assert boxes.max() == 1.0


def test_path_bytes_array_and_image_give_the_same(noise, tmp_path):
    path = tmp_path / "noise.png"
    path.write_bytes(encoded(noise))
    forms = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), np.asarray(noise), noise]
    forms.append(np.asarray(noise) / 255.0)
    results = ImagePatches()(forms)
    assert all(torch.equal(nodes["x"], results[0]["x"]) for nodes in results)


def test_pictures_of_one_pixel_and_of_extreme_shape_are_taken():
    for shape in ((1, 1, 3), (1, 3000, 3), (3000, 1)):
        assert ImagePatches()([np.zeros(shape, np.uint8)])[0]["x"].shape == (49, 192)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (3, 5)), (6, (0, 3)), (8, (5, 0))])
def test_exif_orientation_is_applied(orientation, corner):
    image = Image.new("RGB", (6, 4), "blue")
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = pixels(encoded(image, exif=exif))
    assert tuple(upright[corner]) == RED
    assert upright.shape[:2] == ((4, 6) if orientation in (1, 3) else (6, 4))


def test_damaged_exif_does_not_spoil_the_picture(noise):
    data = encoded(noise, "JPEG", exif=b"Exif\0\0garbage that is no TIFF header")
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "P", "RGBA", "LA", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new("RGB", (8, 8), "white").convert(mode)
    assert pixels(image).shape == (8, 8, 3)
    assert np.all(pixels(image) >= 253)


def test_cmyk_jpeg_keeps_its_colours():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixels(encoded(red, "JPEG", quality=95)).astype(int) - RED).max() <= 6


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    clear.putpixel((1, 0), (0, 0, 0, 0))
    assert pixels(encoded(clear)).tolist() == [[list(RED), list(WHITE)]]
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert pixels(half)[0, 0, 0] == 127


def test_a_transparent_palette_is_laid_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, transparency=1)).tolist() == [[list(RED), list(WHITE)]]
    assert pixels(encoded(image, transparency=b"\xff\x00")).tolist() == [[list(RED), list(WHITE)]]


def test_sixteen_bits_are_scaled_and_not_cut_off():
    levels = np.array([[0, 257 * 50, 257 * 200, 65535]], dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        assert pixels(encoded(Image.fromarray(levels), form))[0, :, 0].tolist() == [0, 50, 200, 255]


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    assert tuple(pixels(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0]) == RED


def test_an_image_that_is_passed_in_stays_as_it_is():
    image = Image.new("P", (4, 4))
    ImagePatches()([image])
    assert (image.mode, image.size) == ("P", (4, 4))


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3), (5, 6, 4)])
def test_array_layouts(shape):
    assert pixels(np.full(shape, 255, np.uint8)).tolist() == np.full((5, 6, 3), 255).tolist()
    assert pixels(np.ones(shape, np.float32)).tolist() == np.full((5, 6, 3), 255).tolist()


@pytest.mark.parametrize(
    ("array", "came"),
    [
        (np.zeros((3, 20, 20), np.uint8), r"shape \[3, 20, 20\]"),
        (np.zeros((2, 5, 6, 3), np.uint8), r"shape \[2, 5, 6, 3\]"),
        (np.zeros(5, np.uint8), r"shape \[5\]"),
        (np.zeros((0, 6, 3), np.uint8), "empty"),
        (np.zeros((5, 6), np.int64), "type int64"),
        (np.zeros((5, 6), bool), "type bool"),
        (np.full((5, 6), 2.0), "found 2 to 2"),
        (np.full((5, 6), -0.1), "found -0.1"),
        (np.full((5, 6), np.nan), "found nan"),
        (np.full((5, 6), np.inf), "found inf"),
        (np.array([[None]]), "type object"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(array, came):
    with pytest.raises(MediaError, match=rf"item 1: expected a picture \[height, width\].*{came}"):
        ImagePatches()([np.zeros((2, 2), np.uint8), array])


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bad_files(noise):
    png, jpeg = encoded(noise), encoded(noise, "JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 255
    header = struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0)
    return {
        "empty": (b"", "got 0 bytes"),
        "text named png": (b"this is a text", "is not one"),
        "cut png": (png[: len(png) // 2], "damaged or truncated"),
        "cut jpeg": (jpeg[: len(jpeg) // 2], "damaged or truncated"),
        "header only": (png[:30], "damaged|is not one"),
        "flipped byte": (bytes(flipped), "damaged or truncated"),
        "no width": (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""), "."),
        "float tiff of 0..255": (encoded(Image.fromarray(np.full((2, 2), 200, np.float32)), "TIFF"), "from 0 to 1"),
    }


@pytest.mark.parametrize("fault", bad_files(Image.new("RGB", (1, 1))))
def test_bad_files_are_refused_by_path(noise, tmp_path, fault):
    data, message = bad_files(noise)[fault]
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=rf"^'.*bad\.png': .*({message})"):
        ImagePatches()([path])
    with pytest.raises(MediaError, match=rf"^item 0: .*({message})"):
        ImagePatches()([data])


def test_a_missing_file_a_folder_and_a_device_are_refused(tmp_path):
    for path, fault in ((tmp_path / "gone.png", "no such file"), (tmp_path, "got a folder"), ("/dev/null", "device")):
        with pytest.raises(MediaError, match=fault):
            ImagePatches()([path])
    with pytest.raises(MediaError, match="not a path"):
        ImagePatches()(["a\0b"])


@pytest.mark.parametrize("limit", [2000, 1000])
def test_a_decompression_bomb_is_refused(noise, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # 45 x 70: above the limit, and above twice the limit
    for form in (encoded(noise), noise):
        with pytest.raises(MediaError, match="item 0: the picture is too large"):
            ImagePatches()([form])


def test_a_closed_image_is_refused(tmp_path, noise):
    path = tmp_path / "a.png"
    noise.save(path)
    image = Image.open(path)
    image.close()
    with pytest.raises(MediaError, match="item 0: the picture is damaged"):
        ImagePatches()([image])


def test_the_digest_of_an_image_is_that_of_what_is_seen(noise):
    encoder = ImagePatches()
    drawn = noise.copy()
    ImageDraw.Draw(drawn).point((0, 0), fill="white" if noise.getpixel((0, 0)) != WHITE else "black")
    digests = [encoder.digest(Item(image, "it")) for image in (noise, noise.copy(), drawn)]
    assert digests[0] == digests[1] != digests[2]

"""Superpixels against a loop, crops of given boxes against Pillow, detected objects against transformers itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from hetgraph.encoders import HashWords, ImageCrops, ImagePatches, LogMel, ObjectDetector, Superpixels
from hetgraph.encoders.media import Item
from hetgraph.encoders.superpixels import slic
from hetgraph.errors import HetgraphError, MediaError

transformers = pytest.importorskip("transformers")

RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def shapes():
    image = Image.new("RGB", (90, 60), "red")
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 10, 69, 49), fill="blue")
    draw.rectangle((40, 20, 59, 39), fill="white")
    return image


def test_superpixels_follow_the_edges_of_what_is_seen(shapes):
    groups = slic(np.asarray(shapes) / 255.0, 40)
    colours = np.asarray(shapes).reshape(-1, 3)
    for group in range(groups.max() + 1):
        inside = colours[groups.ravel() == group]
        assert (inside == inside[0]).all()
    assert 25 <= groups.max() + 1 <= 60


@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    count=st.integers(1, 40),
    levels=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_every_superpixel_hangs_together_and_none_is_tiny(height, width, count, levels, seed):
    rgb = np.random.default_rng(seed).integers(0, levels, (height, width, 3)) / max(1, levels - 1)
    groups = slic(rgb, count, iterations=3)
    numbers, sizes = np.unique(groups, return_counts=True)
    assert numbers.tolist() == list(range(len(numbers)))
    for number in numbers:
        assert ndimage.label(groups == number)[1] == 1
    assert sizes.min() >= min(height * width, max(1.0, height * width / count) / 4)


def test_groups_are_those_of_slic_written_as_a_loop():
    """Nine nearest grid cells, CIELAB distance, two iterations; a smooth picture, so that all groups hang together."""
    y, x = np.mgrid[0:24, 0:36]
    rgb = np.stack([x / 36, y / 24, (x + y) / 60], axis=2)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    assert (xyz / [0.9505, 1.0, 1.089])[1:, 1:].min() > 0.0001
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=2)
    dark = xyz / [0.9505, 1.0, 1.089] <= (6 / 29) ** 3
    spacing = (24 * 36 / 24) ** 0.5
    rows, columns = round(24 / spacing), round(36 / spacing)
    centres = {}
    for r in range(rows):
        for c in range(columns):
            cy, cx = (2 * r + 1) * 24 // (2 * rows), (2 * c + 1) * 36 // (2 * columns)
            centres[r * columns + c] = lab[cy, cx], cy, cx
    groups = np.zeros((24, 36), int)
    for _ in range(2):
        for g in set(groups.flat) if groups.any() else ():
            inside = groups == g
            centres[g] = lab[inside].mean(0), y[inside].mean(), x[inside].mean()
        new = groups.copy()
        for i in range(24):
            for j in range(36):
                best = None
                for a in (-1, 0, 1):
                    for b in (-1, 0, 1):
                        r, c = i * rows // 24 + a, j * columns // 36 + b
                        if 0 <= r < rows and 0 <= c < columns:
                            colour, cy, cx = centres[r * columns + c]
                            far = ((lab[i, j] - colour) ** 2).sum()
                            far += (10 / spacing) ** 2 * ((i - cy) ** 2 + (j - cx) ** 2)
                            if best is None or far < best[0]:
                                best = far, r * columns + c
                new[i, j] = best[1]
        groups = new
    found = slic(rgb, 24, 10.0, 2)
    # dark corner pixels have the linear branch of CIELAB, which the loop leaves out
    bright = ~dark.any(2)
    agreed = sum(np.bincount(found[bright & (groups == group)]).max(initial=0) for group in set(groups.flat))
    assert agreed >= 0.99 * bright.sum()


def test_features_of_a_superpixel_are_those_of_its_pixels(shapes):
    [nodes] = Superpixels(count=40)([shapes])
    groups = slic(np.asarray(shapes) / 255.0, 40)
    assert len(nodes["x"]) == groups.max() + 1
    for number in (0, 5, groups.max()):
        y, x = np.nonzero(groups == number)
        colour = np.asarray(shapes)[y, x] / 255.0
        place = [2 * (x.mean() + 0.5) / 90 - 1, 2 * (y.mean() + 0.5) / 60 - 1]
        share = len(y) / (90 * 60 / (groups.max() + 1))
        expected = [*colour.mean(0), *colour.std(0), *place, share]
        torch.testing.assert_close(
            nodes["x"][number], torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=1e-5
        )
        box = torch.tensor([x.min() / 90, y.min() / 60, (x.max() + 1) / 90, (y.max() + 1) / 60], dtype=torch.float32)
        torch.testing.assert_close(nodes["box"][number], box)


def test_a_large_picture_is_grouped_as_its_small_form(shapes):
    large = shapes.resize((900, 600), Image.Resampling.NEAREST)
    [one], [other] = Superpixels(side=90)([shapes]), Superpixels(side=90)([large])
    torch.testing.assert_close(one["x"], other["x"])


BOXES = [[0, 0, 30, 20], [10, 5, 60, 40], [59, 39, 60, 40]]


def test_a_box_is_encoded_as_its_crop():
    inside = ImagePatches((2, 2), 4)
    [nodes] = ImageCrops(inside)([(NOISE, BOXES)])
    crops = inside([NOISE.crop(tuple(box)) for box in BOXES])
    torch.testing.assert_close(nodes["x"], torch.stack([crop["x"].mean(0) for crop in crops]))
    torch.testing.assert_close(nodes["box"], torch.tensor(BOXES) / torch.tensor([60, 40, 60, 40]))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda boxes: tuple(map(tuple, boxes))])
def test_boxes_in_pixels_and_in_shares_of_any_library_are_the_same(kind):
    encoder = ImageCrops(ImagePatches(1, 4))
    shares = [[x1 / 60, y1 / 40, x2 / 60, y2 / 40] for x1, y1, x2, y2 in BOXES]
    one, other = encoder([(NOISE, kind(BOXES)), (NOISE, kind(shares))])
    torch.testing.assert_close(one["x"], other["x"])
    torch.testing.assert_close(one["box"], other["box"])


def test_a_box_over_the_edge_is_cut_and_many_boxes_are_counted():
    encoder = ImageCrops(ImagePatches(1, 4), max_boxes=2)
    [nodes] = encoder([(NOISE, [[-5, -5, 30, 20], [30, 20, 999, 999], [0, 0, 2, 2]])])
    assert nodes["box"].tolist() == [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    assert encoder.truncated == 1


def test_more_boxes_than_a_batch_are_the_same(monkeypatch):
    boxes = [[i, 0, i + 5, 9] for i in range(20)]
    [whole] = ImageCrops(ImagePatches(1, 4))([(NOISE, boxes)])
    monkeypatch.setattr("hetgraph.encoders.image_boxes.BATCH", 3)
    assert torch.equal(ImageCrops(ImagePatches(1, 4))([(NOISE, boxes)])[0]["x"], whole["x"])


@pytest.mark.parametrize(
    ("boxes", "fault"),
    [
        ([], r"expected boxes \[N >= 1, 4\], got shape \[0\]"),
        ([1, 2, 3, 4], r"got shape \[4\]"),
        ([[1, 2, 3]], r"got shape \[1, 3\]"),
        ([[1, 2, 3, 4], [1, 2]], "expected boxes"),
        ([[1, 2, "a", 4]], "expected boxes"),
        ([[3, 2, 1, 4]], r"box 0: expected x1 < x2 and y1 < y2, got \[3.0, 2.0, 1.0, 4.0\]"),
        ([[0, 0, 5, 5], [1, 2, 1, 4]], "box 1: expected x1 < x2"),
        ([[0, 0, float("nan"), 4]], "box 0: expected x1 < x2"),
        ([[0, 0, float("inf"), 4]], "box 0: expected x1 < x2"),
        ([[100, 0, 200, 4]], r"box 0: \[100.0, 0.0, 200.0, 4.0\] lies outside"),
        ("boxes", "expected boxes"),
        (None, r"expected boxes \[N, 4\], got NoneType"),
    ],
)
def test_boxes_that_are_none_are_refused_by_name(boxes, fault):
    with pytest.raises(MediaError, match=f"^sample 'a': .*{fault}"):
        ImageCrops(ImagePatches())([(NOISE, boxes)], names=["sample 'a'"])


def test_crops_need_an_encoder_of_pictures():
    for wrong in (LogMel(), HashWords(), None, ImageCrops(ImagePatches())):
        with pytest.raises(HetgraphError, match="expected an encoder of pictures"):
            ImageCrops(wrong)


def test_the_digest_of_a_picture_with_boxes_follows_both(tmp_path):
    encoder = ImageCrops(ImagePatches())
    path = tmp_path / "a.png"
    NOISE.save(path)
    one, same, boxes, picture = (
        encoder.digest(Item(value, "it"))
        for value in (
            (path, BOXES),
            (str(path), np.array(BOXES)),
            (path, BOXES[:2]),
            (NOISE.rotate(180), BOXES),
        )
    )
    assert one == same
    assert len({one, boxes, picture}) == 3


def save_detector(folder, kind="detr"):
    """A random detector of three classes with six (of YOLOS five) queries, and its image processor."""
    torch.manual_seed(0)
    if kind == "detr":
        backbone = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
        )
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 6, "num_labels": 3}
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
        config = transformers.DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=backbone,
            **heads,
            **sizes,
        )
        model = transformers.DetrForObjectDetection(config)
        # queries that differ, or all would find the same
        torch.nn.init.normal_(model.model.query_position_embeddings.weight, std=20.0)
        processor = transformers.DetrImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64})
    else:
        config = transformers.YolosConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=[32, 48],
            patch_size=8,
            num_detection_tokens=5,
            num_labels=3,
        )
        model = transformers.YolosForObjectDetection(config)
        processor = transformers.YolosImageProcessorPil(size={"height": 32, "width": 48})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["detr", "yolos"])
def detector(request, tmp_path_factory):
    return save_detector(tmp_path_factory.mktemp(request.param), request.param)


def test_objects_are_those_that_transformers_finds(detector):
    """Against the processor's own post_process_object_detection, for all objects and for those above a threshold."""
    processor = transformers.AutoImageProcessor.from_pretrained(detector)
    model = transformers.AutoModelForObjectDetection.from_pretrained(detector).eval()
    with torch.no_grad():
        output = model(**processor(images=[NOISE], return_tensors="pt"))
    [found] = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(1, 1)])
    order = found["scores"].argsort(descending=True, stable=True)
    [nodes] = ObjectDetector(detector, threshold=1e-6)([NOISE])
    torch.testing.assert_close(nodes["score"][:, 0], found["scores"][order])
    torch.testing.assert_close(nodes["box"], found["boxes"][order].clamp(0, 1), atol=1e-5, rtol=1e-5)
    assert nodes["label"].tolist() == found["labels"][order].tolist()
    queries = len(output.logits[0])
    torch.testing.assert_close(nodes["x"], output.last_hidden_state[0][-queries:][order], atol=1e-5, rtol=1e-4)
    middle = (nodes["score"][1, 0] + nodes["score"][2, 0]).item() / 2
    above = int((nodes["score"][:, 0] >= middle).sum())
    [some] = ObjectDetector(detector, threshold=middle)([NOISE])
    assert torch.equal(some["x"], nodes["x"][:above])
    assert len(ObjectDetector(detector, threshold=1e-6, max_objects=2)([NOISE])[0]["x"]) == 2


def test_a_picture_without_objects_has_its_best_one(detector):
    encoder = ObjectDetector(detector, threshold=1.0)
    [nodes] = encoder([NOISE])
    assert {name: tuple(value.shape) for name, value in nodes.items()} == {
        "x": (1, 16),
        "box": (1, 4),
        "score": (1, 1),
        "label": (1,),
    }
    assert nodes["score"].item() < 1.0
    assert set(encoder.labels) == {0, 1, 2}


def test_a_model_that_is_no_detector_is_refused(tmp_path):
    from test_encoders_networks import save_vision

    with pytest.raises(HetgraphError, match="cannot load it"):
        ObjectDetector(save_vision(tmp_path, "vit"))

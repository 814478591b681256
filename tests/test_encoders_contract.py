"""What every encoder promises, whatever it reads."""

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from extras import needs_av
from test_encoders_networks import needs_efficientnet, needs_minilm, save_bert, save_vision
from test_encoders_objects import save_detector
from videos import save_video

from hetgraph import encoders
from hetgraph.encoders import (
    AudioFeatures,
    Cached,
    EfficientNetLite0,
    Encoder,
    HashWords,
    ImageCrops,
    ImageEncoder,
    ImageGrid,
    ImagePatches,
    LogMel,
    Mfcc,
    MiniLM,
    ObjectDetector,
    Pitch,
    Superpixels,
    TableCells,
    TableRows,
    TextTransformer,
    TimedWords,
    VideoFrames,
    VideoSound,
    WordVectors,
    default_audio_encoder,
    default_boxes_encoder,
    default_image_encoder,
    default_sound_encoder,
    default_table_encoder,
    default_text_encoder,
    default_video_encoder,
    encoder_from_config,
)
from hetgraph.encoders.configs import BUILT_IN
from hetgraph.errors import HetgraphError, MediaError
from hetgraph.pipeline import Medium, Pipeline

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((20, 30), (64, 64), (7, 90))]
SOUNDS = [(0.1 * RNG.standard_normal(n)).astype(np.float32) for n in (300, 4000, 9000)]
TEXTS = ["the cat", "a", "dogs and a fox!"]
WORDS = [[{"word": w, "start": i / 2, "end": i / 2 + 0.4} for i, w in enumerate(text.split())] for text in TEXTS]
BOXED = [(picture, [[0, 0, 5, 7], [2, 3, 7, 6]][: i + 1]) for i, picture in enumerate(PICTURES[:2])] + [
    (PICTURES[2], [[0.0, 0.0, 0.5, 1.0]])
]
TABLES = ["a,b,c\n1,x,2020-01-01\n2,,2021-05-05\n", [{"a": 3, "b": "y"}], {"c": "2020-02-02"}]

MAKERS = {
    "ImagePatches": lambda folder: ImagePatches((2, 3), 4),
    "ImageGrid": lambda folder: ImageGrid(save_vision(folder / "vit", "vit"), batch_size=2),
    "EfficientNetLite0": lambda folder: EfficientNetLite0(pool=2, batch_size=2),
    "HashWords": lambda folder: HashWords(20),
    "TextTransformer": lambda folder: TextTransformer(save_bert(folder / "bert"), max_tokens=32, batch_size=2),
    "MiniLM": lambda folder: MiniLM(max_tokens=16, batch_size=2),
    "TimedWords": lambda folder: TimedWords(HashWords(6)),
    "LogMel": lambda folder: LogMel(bands=10, stack=3),
    "Mfcc": lambda folder: Mfcc(n=5),
    "Pitch": lambda folder: Pitch(max_seconds=0.5),
    "AudioFeatures": lambda folder: AudioFeatures([LogMel(stack=2), Pitch(stack=2)]),
    "Superpixels": lambda folder: Superpixels(count=9, side=32, iterations=2),
    "ImageCrops": lambda folder: ImageCrops(ImagePatches((2, 1), 4)),
    "ObjectDetector": lambda folder: ObjectDetector(save_detector(folder / "detr"), threshold=0.3),
    "WordVectors": lambda folder: WordVectors(save_vectors(folder / "vectors")),
    "VideoFrames": lambda folder: VideoFrames(ImagePatches(2, 4), rate=4, regions=True),
    "VideoSound": lambda folder: VideoSound(LogMel(stack=5)),
    "TableCells": lambda folder: TableCells(name_dim=4).fitted(TABLES),
    "TableRows": lambda folder: TableRows().fitted(TABLES),
}
MARKS = {
    "EfficientNetLite0": [needs_efficientnet],
    "MiniLM": [needs_minilm],
    "VideoFrames": [needs_av],
    "VideoSound": [needs_av],
}


def save_vectors(path):
    path.write_text("the 1 2 3\ncat 0 -1 2\n")
    return path


@cache
def videos():
    with tempfile.TemporaryDirectory() as folder:
        paths = [save_video(Path(folder, f"{i}.mp4"), frames=n, sound_start=i / 4) for i, n in enumerate((3, 8, 12))]
        return [path.read_bytes() for path in paths]


def items_of(encoder):
    if isinstance(encoder, VideoFrames | VideoSound):
        return videos()
    if isinstance(encoder, TableCells | TableRows):
        return TABLES
    if isinstance(encoder, ImageCrops):
        return BOXED
    if isinstance(encoder, TimedWords):
        return WORDS
    return PICTURES if "box" in encoder.fields else TEXTS if "span" in encoder.fields else SOUNDS


@pytest.fixture(scope="module", params=[pytest.param(name, marks=MARKS.get(name, ())) for name in MAKERS])
def encoder(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp("models"))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_every_encoder_has_a_contract_test():
    assert set(MAKERS) == {cls.__name__ for cls in BUILT_IN}


def test_nodes_have_the_announced_widths(encoder):
    items = items_of(encoder)
    encoded = encoder(items)
    assert len(encoded) == len(items)
    for nodes in encoded:
        widths = {"x": encoder.dim, **encoder.fields}
        shapes = {name: (len(nodes["x"]), width) if width else (len(nodes["x"]),) for name, width in widths.items()}
        assert {name: tuple(tensor.shape) for name, tensor in nodes.items()} == shapes
        for name, tensor in nodes.items():
            assert tensor.dtype == (torch.float32 if widths[name] else torch.int64)
            assert torch.isfinite(tensor).all()


def test_a_batch_equals_its_items_one_by_one_in_any_order(encoder):
    items = items_of(encoder)
    for item, nodes in zip(reversed(items), encoder(items[::-1]), strict=True):
        assert_same(nodes, encoder([item])[0])


def test_a_config_by_way_of_json_rebuilds_an_equal_encoder(encoder):
    again = encoder_from_config(json.loads(json.dumps(encoder.config())))
    assert type(again) is type(encoder)
    assert again.config() == encoder.config()
    assert again.fingerprint == encoder.fingerprint
    assert (again.dim, again.fields) == (encoder.dim, encoder.fields)
    for one, other in zip(encoder(items_of(encoder)), again(items_of(encoder)), strict=True):
        assert_same(one, other)


def test_features_can_be_trained_on(encoder):
    weight = torch.ones(encoder.dim, 1, requires_grad=True)
    (encoder(items_of(encoder)[:1])[0]["x"] @ weight).sum().backward()
    assert weight.grad is not None


def test_a_schema_takes_the_fields_as_optional(encoder):
    node = encoder.node_type("thing")
    assert (node.name, node.dim, dict(node.fields), dict(node.optional)) == ("thing", encoder.dim, {}, encoder.fields)


def test_no_items_give_no_nodes(encoder):
    assert encoder([]) == []


def test_a_single_item_in_place_of_a_list_is_refused(encoder):
    for single in ("name", b"bytes", PICTURES[0], torch.zeros(4), {"b": 1}, 3):
        with pytest.raises(HetgraphError, match="takes a list of items"):
            encoder(single)


@pytest.mark.parametrize("thing", [None, 3, object(), {"d": 1}, np.array(["a", "b"]), np.array(1.0), (1, 2, 3)])
def test_what_is_no_item_at_all_is_refused_by_number(encoder, thing):
    with pytest.raises(MediaError, match=r"^item 1: expected"):
        encoder([items_of(encoder)[0], thing])


def test_names_given_by_the_caller_appear_in_errors(encoder, tmp_path):
    gone = (tmp_path / "gone", [[0, 0, 1, 1]]) if isinstance(encoder, ImageCrops) else tmp_path / "gone"
    with pytest.raises(MediaError, match=r"^sample 'b': '.*gone': no such file"):
        encoder([items_of(encoder)[0], gone], names=["sample 'a'", "sample 'b'"])
    with pytest.raises(HetgraphError, match="1 items but 2 names"):
        encoder(items_of(encoder)[:1], names=["a", "b"])


@pytest.mark.parametrize("library", ["torch", "dlpack", "__array__"])
def test_arrays_of_any_library_are_taken(library):
    class Foreign:
        def __init__(self, array):
            self._array = array
            self._torch = torch.from_numpy(array)

    class WithDlpack(Foreign):
        def __dlpack__(self, **options):
            return self._torch.__dlpack__()

        def __dlpack_device__(self):
            return self._torch.__dlpack_device__()

    class WithArray(Foreign):
        def __array__(self, dtype=None, copy=None):
            return self._array

    wrap = {"torch": torch.from_numpy, "dlpack": WithDlpack, "__array__": WithArray}[library]
    for made, items in ((ImagePatches(2, 4), PICTURES), (LogMel(), SOUNDS)):
        for one, other in zip(made(items), made([wrap(item) for item in items]), strict=True):
            assert_same(one, other)


def test_a_user_made_encoder_needs_three_things_only():
    class Length(Encoder):
        dim, fields = 1, {}

        def encode(self, items):
            return [{"x": torch.tensor([[float(len(item.value))]])} for item in items]

        def settings(self):
            return {}

    assert Length()([[1, 2, 3]])[0]["x"].item() == 3.0
    assert isinstance(encoder_from_config(Length().config(), known={"Length": Length}), Length)


class Brightness(ImageEncoder):
    """The mean of a picture, times a number."""

    dim = 1

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def encode(self, items):
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        return [{"x": torch.tensor([[self.factor * np.asarray(self.read(i)).mean()]]), "box": whole} for i in items]

    def settings(self):
        return {"factor": self.factor}


class Doubled(Encoder):
    """Two encoders of pictures, side by side."""

    nested = ("both",)
    fields: ClassVar = {}

    def __init__(self, both):
        self.both = list(both)
        self.dim = sum(one.dim for one in self.both)

    def encode(self, items):
        parts = zip(*(one.run(items) for one in self.both), strict=True)
        return [{"x": torch.cat([nodes["x"].mean(0) for nodes in some])[None]} for some in parts]

    def settings(self):
        return {"both": [one.config() for one in self.both]}


KNOWN = {"Brightness": Brightness, "Doubled": Doubled}


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImageCrops(Brightness(2.0)),
        pytest.param(lambda: VideoFrames(Brightness(0.5), regions=True), marks=needs_av),
        lambda: Doubled([ImagePatches(1), Doubled([Brightness(3.0), Brightness()])]),
        lambda: ImageCrops(Doubled([Brightness(), Brightness(2.0)])),
    ],
)
def test_user_made_encoders_inside_others_come_back_from_a_config_that_is_told_of_them(make, tmp_path):
    encoder = make()
    config = json.loads(json.dumps(encoder.config()))
    items = items_of(encoder) if not isinstance(encoder, Doubled) else PICTURES
    for again in (
        encoder_from_config(config, known=KNOWN),
        type(encoder).from_settings({**encoder.settings(), **{n: getattr(encoder, n) for n in encoder.nested}}),
    ):
        assert again.config() == encoder.config()
        assert again.fingerprint == encoder.fingerprint
        for one, other in zip(encoder(items), again(items), strict=True):
            assert_same(one, other)
    for known in (None, {"Doubled": Doubled}):
        with pytest.raises(HetgraphError, match="unknown encoder"):
            encoder_from_config(config, known=known)
    pipeline = Pipeline([Medium("thing", "image", "region", encoder)])
    pipeline.save(tmp_path)
    [loaded] = Pipeline.load(tmp_path, known=KNOWN).media
    assert loaded.encoder.config() == encoder.config()
    with pytest.raises(HetgraphError, match="unknown encoder"):
        Pipeline.load(tmp_path)


@pytest.mark.parametrize(
    "returned", [[], [{"y": torch.zeros(1, 2)}], [{"x": torch.zeros(1, 3)}], [{"x": torch.zeros(0, 2)}]]
)
def test_a_user_made_encoder_that_breaks_its_promise_is_told(returned):
    class Broken(HashWords):
        def __init__(self):
            super().__init__(2)
            self.fields = {}

        def encode(self, items):
            return returned

    with pytest.raises(HetgraphError, match="Broken"):
        Broken()(["a"])


def test_features_that_are_not_finite_are_refused_with_the_item():
    class Broken(HashWords):
        def encode(self, items):
            return [{**nodes, "x": nodes["x"] / 0} for nodes in super().encode(items)]

    with pytest.raises(MediaError, match="item 0: Broken gave features that are not finite"):
        Broken()(["a"])


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        {},
        {"encoder": 3},
        {"encoder": "os.system"},
        {"encoder": "HashWords", "width": 3},
        {"encoder": "HashWords", "dim": "64"},
        {"encoder": "HashWords", "dim": -1},
        {"encoder": "HashWords", "dim": True},
        {"encoder": "ImagePatches", "grid": "7x7"},
        {"encoder": "ImagePatches", "grid": [7]},
        {"encoder": "ImagePatches", "grid": None},
        {"encoder": "ImageGrid"},
        {"encoder": "ImageGrid", "model": None},
        {"encoder": "TextTransformer", "model": 3},
        {"encoder": "TextTransformer", "model": ""},
        {"encoder": "TextTransformer", "model": "a/b", "revision": 3},
        {"encoder": "LogMel", "hop": float("nan")},
        {"encoder": "LogMel", "window": 0.0},
        {"encoder": "LogMel", "bands": 900},
        {"encoder": "LogMel", "low": 9000.0},
        {"encoder": "LogMel", "rate": 1000, "hop": 1e-6},
        {"encoder": "Mfcc", "n": 41},
        {"encoder": "Pitch", "span": 0.02},
        {"encoder": "Superpixels", "count": 0},
        {"encoder": "Superpixels", "compactness": float("inf")},
        {"encoder": "ImageCrops"},
        {"encoder": "ImageCrops", "image": 3},
        {"encoder": "ImageCrops", "image": {"encoder": "HashWords"}},
        {"encoder": "ObjectDetector", "model": "a/b", "threshold": 2.0},
        {"encoder": "WordVectors", "file": None},
        {"encoder": "VideoFrames", "image": {"encoder": "LogMel"}},
        {"encoder": "VideoFrames", "image": {"encoder": "ImagePatches"}, "rate": "1"},
        {"encoder": "VideoSound", "audio": {"encoder": "ImagePatches"}},
        {"encoder": "VideoSound", "audio": {}},
        {"encoder": "TableCells", "columns": [{"name": "a"}]},
        {"encoder": "TableCells", "kinds": {"a": "colour"}},
        {"encoder": "TableRows", "max_rows": 0},
        {"encoder": "AudioFeatures", "parts": []},
        {"encoder": "AudioFeatures", "parts": 3},
        {"encoder": "AudioFeatures", "parts": [{"encoder": "HashWords"}]},
        {"encoder": "AudioFeatures", "parts": [{"encoder": "LogMel"}, {"encoder": "Pitch", "hop": 0.02}]},
    ],
)
def test_a_damaged_config_is_refused_clearly(config):
    with pytest.raises(HetgraphError) as caught:
        encoder_from_config(config)
    assert type(caught.value) is HetgraphError


def test_other_settings_have_another_fingerprint():
    made = [LogMel(), LogMel(bands=41), LogMel(stack=2), Mfcc(), Pitch(), HashWords(), HashWords(65), ImagePatches()]
    assert len({encoder.fingerprint for encoder in made}) == len(made)


def test_a_new_edition_of_a_part_changes_the_fingerprint_of_the_whole(monkeypatch):
    before = AudioFeatures([LogMel()]).fingerprint
    monkeypatch.setattr(LogMel, "edition", 2)
    assert AudioFeatures([LogMel()]).fingerprint != before


def test_defaults_say_which_encoder_they_chose(caplog, monkeypatch):
    monkeypatch.setattr("hetgraph.encoders.defaults.is_installed", lambda *packages: False)
    with caplog.at_level("INFO"):
        chosen = [default_image_encoder(), default_text_encoder(), default_audio_encoder(), default_boxes_encoder()]
        chosen.append(default_table_encoder())
    kinds = ["ImagePatches", "HashWords", "LogMel", "ImageCrops", "TableCells"]
    assert [type(encoder).__name__ for encoder in chosen] == kinds
    said = [record.getMessage().split(" encoder: ")[0] for record in caplog.records]
    assert said == ["image", "text", "audio", "boxes", "table"]


@needs_av
def test_the_defaults_of_videos_are_those_of_pictures_and_sounds():
    assert default_video_encoder().image.config() == default_image_encoder().config()
    assert default_sound_encoder().audio.config() == default_audio_encoder().config()


@needs_efficientnet
@needs_minilm
def test_defaults_are_pretrained_where_installed():
    assert default_image_encoder().dim == 1280
    assert default_text_encoder().dim == 384


def test_importing_the_encoders_loads_no_heavy_library():
    heavy = "'transformers', 'librosa', 'soundfile', 'av', 'pandas', 'pyarrow', 'PIL', 'scipy.sparse'"
    code = f"import sys, hetgraph.encoders; print([m for m in ({heavy}) if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_everything_that_is_exported_exists():
    assert all(hasattr(encoders, name) for name in encoders.__all__)


def test_a_cached_encoder_looks_like_the_encoder_inside(encoder, tmp_path):
    cached = Cached(encoder, tmp_path)
    assert (cached.dim, cached.fields, cached.config(), cached.fingerprint) == (
        encoder.dim,
        encoder.fields,
        encoder.config(),
        encoder.fingerprint,
    )
    for _ in range(2):
        for one, other in zip(cached(items_of(encoder)), encoder(items_of(encoder)), strict=True):
            assert_same(one, other)
    assert (cached.hits, cached.misses) == (3, 3)

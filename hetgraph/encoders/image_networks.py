"""Pretrained networks that turn a picture into the cells of a feature map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hetgraph.errors import HetgraphError

from .base import whole
from .efficientnet import FeatureNetwork, packaged_network
from .image import FeatureMapEncoder
from .pretrained import folder_hash, load, model_folder

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageGrid(FeatureMapEncoder):
    """The last feature map of any vision backbone of transformers.

    Takes convolutional maps ``[B, C, h, w]`` (ResNet, ConvNeXt), token sequences (ViT, DINOv2, DeiT, whose
    leading class and register tokens are dropped; Swin), and the vision half of two-tower models (CLIP,
    SigLIP). One node per cell, ``dim`` as wide as the network.

    The picture is resized as a whole to the network's input size (aspect not kept) and then rescaled and
    normalised by the model's own image processor. Nothing is cropped away, also where the processor would by
    default, so that the boxes cover all of the picture.

    Args:
        model: local folder with ``config.json``, safetensors weights and ``preprocessor_config.json``, or the id
            of a model on the hub.
        batch_size: how many pictures go through the network at once; no influence on the result.
        revision: branch, tag or commit of a model of the hub.
        local_files_only: with False a model of the hub is downloaded if need be. Not part of the config.

    Raises:
        HetgraphError: the model is missing, damaged, or not a vision backbone of the kinds above.
    """

    neutral = frozenset({"model", "revision", "batch_size"})

    def __init__(
        self,
        model: str | Path,
        batch_size: int = 16,
        revision: str | None = None,
        local_files_only: bool = True,
    ) -> None:
        from transformers import AutoImageProcessor, AutoModel

        super().__init__(batch_size)
        folder = model_folder(model, revision, local_files_only)
        self.model = str(folder.resolve()) if Path(model).expanduser().is_dir() else str(model)
        self.revision = revision
        self.weights = folder_hash(folder)
        self._processor = load(AutoImageProcessor, folder)
        self._size = _input_size(self._processor, self.model)
        network = load(AutoModel, folder)
        self.network = getattr(network, "vision_model", network)
        self.dim = self._dim_of_blank()

    def settings(self) -> dict[str, Any]:
        return {"model": self.model, "batch_size": self.batch_size, "revision": self.revision}

    def _dim_of_blank(self) -> int:
        from PIL import Image

        pixels = self._pixels(Image.new("RGB", (8, 8)))
        with torch.inference_mode():
            return int(self._map(pixels[None]).shape[1])

    def _pixels(self, image: Image) -> torch.Tensor:
        height, width = self._size
        whole_picture = image.resize((width, height), resample=self._processor.resample)
        pixels = self._processor(images=[whole_picture], do_resize=False, do_center_crop=False, return_tensors="pt")[
            "pixel_values"
        ]
        if tuple(pixels.shape) != (1, 3, height, width):
            raise HetgraphError(
                f"model {self.model!r}: expected its image processor to give [1, 3, {height}, {width}], "
                f"got {list(pixels.shape)}"
            )
        return pixels[0].float()

    def _map(self, pixels: torch.Tensor) -> torch.Tensor:
        try:
            hidden = self.network(pixel_values=pixels).last_hidden_state
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise HetgraphError(
                f"model {self.model!r} does not encode pictures of shape {list(pixels.shape)}: {error}"
            ) from error
        if hidden.dim() == 4:
            return hidden
        height, width = self._cells(hidden.shape[1], *pixels.shape[2:])
        return hidden[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))

    def _cells(self, tokens: int, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a token sequence. A hierarchical network (Swin) halves them stage by stage."""
        config = self.network.config
        patch = getattr(config, "patch_size", None)
        if patch is not None:
            patch_height, patch_width = (patch, patch) if isinstance(patch, int) else patch
            leading = 2 + (getattr(config, "num_register_tokens", 0) or 0)  # class, distillation, registers
            rows, columns = height // patch_height, width // patch_width
            while rows * columns > tokens:
                rows, columns = -(-rows // 2), -(-columns // 2)
            if tokens - rows * columns <= leading:
                return rows, columns
        raise HetgraphError(
            f"model {self.model!r}: {tokens} tokens of a {height} x {width} picture cannot be told as a grid "
            f"(patch_size {patch!r})"
        )


def _input_size(processor: Any, model: str) -> tuple[int, int]:
    crops = getattr(processor, "do_center_crop", False)
    size = getattr(processor, "crop_size" if crops else "size", None)
    if size is not None:
        sides = (getattr(size, "height", None), getattr(size, "width", None))
        edge = getattr(size, "shortest_edge", None)
        if None not in sides:
            return sides  # type: ignore[return-value]
        if edge is not None:
            return edge, edge
    raise HetgraphError(f"model {model!r}: its image processor has no fixed input size, got {size!r}")


AT_ONCE = 4
"""Pictures that go through EfficientNet-Lite0 together on a processor; the maps of more do not fit into its caches."""


class EfficientNetLite0(FeatureMapEncoder):
    """EfficientNet-Lite0 trained on ImageNet, from installed packages (no download).

    The picture is resized as a whole to 224 x 224 (bicubic, aspect not kept) and scaled as (value - 127) / 128;
    The 7 x 7 x 1280 map after the head convolution and its ReLU6 (``extract_features`` of the package) gives ``x`` in
    0..6.

    Args:
        pool: average the 7 x 7 cells to ``pool`` x ``pool`` (adaptive: for 3 the windows overlap by a cell; the
            boxes are those of an even grid). None keeps 49 nodes.
        batch_size: how many pictures go through the network at once; no influence on the result.

    Raises:
        HetgraphError: the packages are not installed, or the weights are damaged.

    Source: Tan and Le, EfficientNet, ICML 2019; the Lite variant of TensorFlow's TPU models.
    """

    side = 224

    def __init__(self, pool: int | None = None, batch_size: int = 16) -> None:
        super().__init__(batch_size)
        self.pool = None if pool is None else whole("EfficientNetLite0", "pool", pool, 1, 7)
        network, self.weights = packaged_network()
        self.network = FeatureNetwork(network)
        self.dim = 1280

    def settings(self) -> dict[str, Any]:
        return {"pool": self.pool, "batch_size": self.batch_size}

    def _pixels(self, image: Image) -> torch.Tensor:
        from PIL import Image

        small = image.resize((self.side, self.side), Image.Resampling.BICUBIC)
        return (torch.from_numpy(np.array(small)).permute(2, 0, 1).float() - 127.0) / 128.0

    def _map(self, pixels: torch.Tensor) -> torch.Tensor:
        few = AT_ONCE if pixels.device.type == "cpu" else len(pixels)
        maps = torch.cat([self.network(some) for some in pixels.split(few)])
        return maps if self.pool is None else torch.nn.functional.adaptive_avg_pool2d(maps, self.pool)

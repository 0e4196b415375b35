"""Networks of our own, by name: what timm lacks, or an article asks for to the last parameter."""

from collections.abc import Callable

from lightning_modules.networks.alexnet import AlexNet
from lightning_modules.networks.article_cnn import ArticleCNN
from lightning_modules.networks.cifar_resnet import CifarResNet
from lightning_modules.networks.dense import Dense
from lightning_modules.networks.googlenet import GoogLeNet
from lightning_modules.networks.lenet5 import LeNet5
from lightning_modules.networks.network import Network
from lightning_modules.networks.small_cnn import SmallCNN
from lightning_modules.networks.wide_resnet import WideResNet

# Each takes (num_outputs, image_shape, dropout) and keywords of its own.
NETWORKS: dict[str, Callable[..., Network]] = {
    "alexnet": AlexNet,
    "article_cnn": ArticleCNN,
    "cifar_resnet": CifarResNet,
    "dense": Dense,
    "googlenet": GoogLeNet,
    "lenet5": LeNet5,
    "small_cnn": SmallCNN,
    "wide_resnet": WideResNet,
}

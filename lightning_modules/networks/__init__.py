"""Networks of our own, by name: what timm lacks, or an article asks for to the last parameter."""

from collections.abc import Callable

from .alexnet import AlexNet
from .article_cnn import ArticleCNN
from .cifar_resnet import CifarResNet
from .dense import Dense
from .googlenet import GoogLeNet
from .lenet5 import LeNet5
from .network import Network
from .small_cnn import SmallCNN
from .wide_resnet import WideResNet

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

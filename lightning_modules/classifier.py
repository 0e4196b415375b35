"""One LightningModule for binary and multiclass image classification."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_modules.backbones import Initialization, build_network, is_backbone, pretrained_statistics
from lightning_modules.losses import CrossEntropy, to_probabilities, weight_penalty
from lightning_modules.metrics import build_metrics
from lightning_modules.optimization import Schedule, build_optimizer, build_schedule, optimizer_names
from lightning_modules.outputs import EpochOutputs, Predictions, mean_over_ranks, num_ranks

Stage = Literal["train", "val", "test"]

FINITE_CHECK_STEPS = 50  # on a GPU each look at the loss waits for it


class Batch(Protocol):
    """What a step needs of a batch."""

    @property
    def images(self) -> Tensor: ...  # float32 (B, C, H, W)
    @property
    def targets(self) -> Tensor: ...  # int64 (B,)
    @property
    def indices(self) -> Tensor: ...  # int64 (B,), places in the split
    @property
    def seed(self) -> int: ...  # of this step
    @property
    def global_targets(self) -> Tensor | None: ...  # of all processes' shares, where there are several


class NonFiniteLossError(RuntimeError):
    """The training loss became NaN or infinite."""


class ImageClassifier(pl.LightningModule):
    """A backbone with a classification head, its loss, optimizer and metrics.

    The number of classes and the shape of images come from the data: call `build` with them before
    anything else. Two classes make a binary task with a single logit. Multi-label tasks have no
    place here yet.

    Args:
        backbone: A network of our own (small_cnn, dense, article_cnn, lenet5) or any of timm's.
        backbone_options: Arguments of the network's own constructor.
        pretrained: Start from the weights that timm's hub has for the backbone.
        initialization: "glorot_uniform" starts all weights as Keras does, biases at zero.
        dropout: Probability of dropping a feature before the head, in [0, 1).
        optimizer: One of timm's names: adam, adamw, sgd, rmsprop, lamb, ...
        optimizer_options: Further arguments of the optimizer.
        lr: Peak learning rate, reached after warm-up.
        weight_decay: Of weights, not of biases and norms.
        schedule: How the learning rate moves after warm-up.
        warmup_epochs: Epochs over which the learning rate rises from zero.
        label_smoothing: Share of each label spread over all classes, in [0, 1).
        class_weights: "balanced" weighs classes inversely to their training counts.
        l1: Factor of the sum of absolute weights, added to the loss.
        l2: Factor of the sum of squared weights, added to the loss.
    """

    network: nn.Module

    def __init__(
        self,
        backbone: str = "small_cnn",
        backbone_options: dict[str, Any] | None = None,
        pretrained: bool = False,
        initialization: Initialization = "default",
        dropout: float = 0.0,
        optimizer: str = "adamw",
        optimizer_options: dict[str, Any] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
        warmup_epochs: int = 0,
        label_smoothing: float = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        super().__init__()
        if not is_backbone(backbone):
            raise ValueError(f"model.backbone: no backbone is named {backbone!r}")
        if optimizer.lower() not in optimizer_names():
            raise ValueError(f"model.optimizer: no optimizer is named {optimizer!r}")
        if not (lr > 0 and math.isfinite(lr)):
            raise ValueError(f"model.lr must be positive, got {lr}; 0.001 is customary for Adam")
        for name, value in (("dropout", dropout), ("label_smoothing", label_smoothing)):
            if not 0 <= value < 1:
                raise ValueError(f"model.{name} must lie in [0, 1), got {value}")
        for name, value in (("weight_decay", weight_decay), ("l1", l1), ("l2", l2)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"model.{name} must be at least 0, got {value}")
        if warmup_epochs < 0:
            raise ValueError(f"model.warmup_epochs must be at least 0, got {warmup_epochs}")
        self.save_hyperparameters()
        # Lightning starts no epoch when it goes on in the midst of one, hence the default.
        self._outputs: defaultdict[Stage, EpochOutputs] = defaultdict(EpochOutputs)
        self.predictions: dict[Stage, Predictions] = {}

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        """Makes the network, from torch's global generator.

        Args:
            num_classes: C, at least 2.
            image_shape: (C, H, W) as batches have it.

        Raises:
            ValueError: The backbone can't be built for such images, or with its options; nor can the
                optimizer.
        """
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least two classes, the data has {num_classes}")
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.network = build_network(
            self.hparams["backbone"],
            self.hparams["backbone_options"] or {},
            num_outputs=1 if num_classes == 2 else num_classes,
            image_shape=image_shape,
            dropout=self.hparams["dropout"],
            pretrained=self.hparams["pretrained"],
            initialization=self.hparams["initialization"],
        )
        self._build_optimizer()  # thrown away: what it refuses is to be known before training
        self.criterion = CrossEntropy(self.hparams["label_smoothing"])
        metrics = build_metrics(num_classes)
        # One collection each, because stages interleave. Keys carry a suffix: "train" is a method.
        self.metrics = nn.ModuleDict({f"{stage}_": metrics.clone() for stage in ("train", "val", "test")})

    def weigh_classes(self, counts: Sequence[int]) -> None:
        """Tells the loss how many training images each class has, where it is to be balanced."""
        if self.hparams["class_weights"] == "balanced":
            self.criterion.weigh_classes(counts)

    def pretrained_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The normalisation that the backbone was pretrained with.

        Raises:
            ValueError: It was not.
        """
        return pretrained_statistics(self.hparams["backbone"], self.image_shape[0])

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, K)."""
        logits: Tensor = self.network(images)
        return logits

    # Steps --------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        _seed_dropout(batch.seed)
        loss = self._step("train", batch)
        if batch_idx % FINITE_CHECK_STEPS == 0:
            self._check_finite()
        return loss + weight_penalty(self.network, self.hparams["l1"], self.hparams["l2"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step("test", batch)

    def _step(self, stage: Stage, batch: Batch) -> Tensor:
        logits = self(batch.images)[: len(batch.targets)]  # (B, K); an empty share has an image all the same
        loss = self._loss(logits, batch)
        outputs = self._outputs[stage]
        outputs.losses.append(loss.detach())
        outputs.logits.append(logits.detach())
        outputs.targets.append(batch.targets)
        outputs.indices.append(batch.indices)
        return loss

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Whose mean over all processes is the criterion on the global batch, and so are its gradients."""
        if batch.global_targets is None:
            whole: Tensor = self.criterion(logits, batch.targets)
            return whole
        if len(batch.targets) == 0:
            return logits.sum()  # 0, with gradients of 0
        share = self.criterion.weight(batch.targets) / self.criterion.weight(batch.global_targets)
        scaled: Tensor = self.criterion(logits, batch.targets) * share * num_ranks()
        return scaled

    # Epochs -------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        self._outputs["train"] = EpochOutputs()

    def on_validation_epoch_start(self) -> None:
        self._outputs["val"] = EpochOutputs()

    def on_test_epoch_start(self) -> None:
        self._outputs["test"] = EpochOutputs()

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        train_loss = self._report("train")
        scheduler: Any = self.lr_schedulers()
        if scheduler:  # as timm's own loop does, and before the checkpoint is written
            val_loss = self.trainer.callback_metrics.get("val/loss", train_loss)
            scheduler.step(self.current_epoch + 1, val_loss)

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, stage: Stage) -> Tensor:
        """Computes the epoch's metrics, all at once, logs them as `stage/name`, returns the loss."""
        outputs = self._outputs.pop(stage)
        logits, targets, indices = outputs.whole()
        probabilities = to_probabilities(logits.float())  # (N, C)
        self.predictions[stage] = Predictions(probabilities, targets, indices)
        loss = outputs.mean_loss()
        collection = self.metrics[f"{stage}_"]
        collection.update(probabilities, targets)  # type: ignore[operator]
        values = {"loss": loss, **collection.compute()}  # type: ignore[operator]
        collection.reset()  # type: ignore[operator]
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})
        return loss

    def _check_finite(self) -> None:
        losses = self._outputs["train"].losses
        # All processes look at the same values, and leave together.
        unchecked = mean_over_ranks(torch.stack(losses[-FINITE_CHECK_STEPS:]))
        finite = torch.isfinite(unchecked)
        if finite.all():
            return
        first = int((~finite).nonzero()[0])
        step = len(losses) - len(unchecked) + first
        raise NonFiniteLossError(
            f"the training loss became {unchecked[first].item()} at step {step} of epoch "
            f"{self.current_epoch}. "
            f"Most often model.lr is too high (it is {self.hparams['lr']}; try a tenth, or warm-up); "
            "with 16-bit precision try trainer.precision=32-true, and clipping with "
            "trainer.gradient_clip_norm=1"
        )

    # Optimization -------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        optimizer = self._build_optimizer()
        max_epochs = self.trainer.max_epochs
        assert max_epochs is not None  # our trainer always sets it
        steps_per_epoch = math.ceil(self.trainer.estimated_stepping_batches / max_epochs)
        scheduler = build_schedule(
            optimizer,
            self.hparams["schedule"],
            max_epochs=max_epochs,
            warmup_epochs=self.hparams["warmup_epochs"],
            steps_per_epoch=steps_per_epoch,
        )
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _build_optimizer(self) -> Optimizer:
        return build_optimizer(
            self.network,
            self.hparams["optimizer"],
            self.hparams["lr"],
            self.hparams["weight_decay"],
            self.hparams["optimizer_options"] or {},
        )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step_update(self.global_step)

    # Checkpoints --------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["built_for"] = {"num_classes": self.num_classes, "image_shape": list(self.image_shape)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not hasattr(self, "network"):
            built_for = checkpoint["built_for"]
            self.hparams["pretrained"] = False  # the checkpoint's weights follow
            self.build(built_for["num_classes"], tuple(built_for["image_shape"]))


def _seed_dropout(seed: int) -> None:
    # Layers draw from the global generators, which checkpoints do not keep. Reseeding the generators
    # themselves takes a microsecond where torch.manual_seed takes hundreds. The constant keeps masks
    # apart from the augmentation, which starts from the same seed.
    seed ^= 0x5DEECE66D
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)

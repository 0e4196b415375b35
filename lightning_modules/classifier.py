"""One LightningModule for binary, multiclass and multi-label image classification."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .argument_checks import check_arguments
from .backbones.factory import Initialization, build_network, pretrained_statistics
from .backbones.head import classify
from .backbones.weight_loading import LoadedWeights, load_weights
from .batch import TrainingBatch
from .losses.modules import weight_penalty
from .losses.registry import LossName, build_criterion
from .metrics.epoch_outputs import EpochOutputs, Predictions, mean_over_ranks, num_ranks
from .mixup import mix
from .optimization.accumulation import Accumulation
from .optimization.finetuning import FineTuning, as_finetuning
from .optimization.fsdp import shard
from .optimization.optimizers import Schedule, build_optimizer, build_schedule
from .optimization.sam import SharpnessAware
from .seeding import mixing_generator, seed_dropout
from .task import TaskName, build_task

Stage = Literal["train", "val", "test"]
FINITE_CHECK_STEPS = 50  # on a GPU each look at the loss waits for it


class NonFiniteError(RuntimeError):
    """The network gives no numbers any more."""


class NonFiniteLossError(NonFiniteError):
    """The training loss became NaN or infinite."""


class NonFiniteOutputError(NonFiniteError):
    """The network's outputs for some image are NaN or infinite."""


class ImageClassifier(pl.LightningModule):
    """A backbone with a classification head, its loss, optimizer and metrics.

    The task, the number of classes and the shape of images come from the data: call `build` with them
    before anything else. A binary task has a single logit, a multi-label one a logit for each label.

    Where images are mixed, `train/loss` is of the mixed images against mixed targets, and the other
    metrics of training are of the mixed images against the targets that they had before.

    The arguments, by what they concern:

    - the network: backbone, backbone_options, dropout
    - its first weights: pretrained, weights, initialization
    - what is trained: finetuning
    - steps: optimizer, optimizer_options, lr, weight_decay, sam_rho
    - the rate over time: schedule, schedule_options, warmup_epochs, warmup_prefix
    - the loss: loss, loss_options, label_smoothing, class_weights, l1, l2
    - mixing of images: mixup, cutmix

    Args:
        backbone: A network of our own (small_cnn, dense, article_cnn, lenet5) or any of timm's.
        backbone_options: Arguments of the network's own constructor.
        pretrained: Start from the weights that timm's hub has for the backbone.
        weights: A file to start from instead: safetensors, or what torch.save wrote (pth, th, pt, ckpt).
            Only its head may have other classes.
        initialization: "glorot_uniform" starts all weights as Keras does, biases at zero.
        finetuning: Which parts are trained, from which epoch on, and at which rates.
        dropout: Probability of dropping a feature before the head, in [0, 1).
        optimizer: One of timm's names: adam, adamw, sgd, rmsprop, lamb, ...
        optimizer_options: Further arguments of the optimizer.
        lr: Peak learning rate, reached when warm-up ends.
        weight_decay: Of weights, not of biases and norms.
        sam_rho: Steps follow the gradient of the worst loss within this distance of the weights
            (sharpness-aware minimisation, Foret et al. 2021), for two passes in place of one; 0.05 is
            customary, null turns it off.
        schedule: How the learning rate moves after warm-up.
        schedule_options: Of multistep: milestones, after each of which the rate is multiplied by gamma: below
            1 they are shares of training, from 1 on epochs. Null takes [0.5, 0.75] and 0.1.
        warmup_epochs: Epochs over which the learning rate rises from zero.
        warmup_prefix: The schedule begins when warm-up ends, and takes the epochs that are left, so that the
            rate reaches lr. False counts warm-up as the schedule's first epochs, as timm does by default: the
            rate goes on from where the schedule stands by then, below lr. The milestones of multistep count
            from the beginning of training either way.
        loss: One of cross_entropy, bce, focal and poly1; of several labels bce, focal, asymmetric and poly1.
            Null takes the first that is named here.
        loss_options: gamma of focal; gamma_positive, gamma_negative and margin of asymmetric; epsilon of
            poly1; target_threshold of bce.
        label_smoothing: Share of each label spread over all classes, in [0, 1); over presence and
            absence where an image may have several labels.
        class_weights: "balanced" weighs classes inversely to their training counts, and of labels the
            presence by how often the label is absent.
        mixup: Alpha of mixup: training images are blended with others of the batch, by one share drawn
            from Beta(alpha, alpha) for each batch; 0 for none, 0.2 is customary.
        cutmix: Alpha of CutMix: a box of each training image is another's; 0 for none, 1 is customary.
            With mixup too, each batch gets one of the two, by a fair coin.
        l1: Factor of the sum of absolute weights, added to the loss.
        l2: Factor of the sum of squared weights, added to the loss.
    """

    network: nn.Module

    def __init__(
        self,
        backbone: str = "small_cnn",
        backbone_options: dict[str, Any] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        initialization: Initialization = "default",
        finetuning: FineTuning = FineTuning(),  # noqa: B008 (frozen)
        dropout: float = 0.0,
        optimizer: str = "adamw",
        optimizer_options: dict[str, Any] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        sam_rho: float | None = None,
        schedule: Schedule = "constant",
        schedule_options: dict[str, Any] | None = None,
        warmup_epochs: int = 0,
        warmup_prefix: bool = True,
        loss: LossName | None = None,
        loss_options: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_arguments(self.hparams)
        self.finetuning = as_finetuning(finetuning)
        self.hparams["finetuning"] = asdict(self.finetuning)  # checkpoints hold no classes of ours
        self.accumulation = Accumulation()
        self._accumulated = 1  # batches that a step is made of
        self._sharpness = None if sam_rho is None else SharpnessAware(sam_rho)
        # Lightning starts no epoch when it goes on in the midst of one, hence the default.
        self._outputs: defaultdict[Stage, EpochOutputs] = defaultdict(EpochOutputs)
        self._outputs_before: dict[str, Tensor] | None = None  # of an epoch that another process began
        self._validated_epoch = -1
        self.predictions: dict[Stage, Predictions] = {}
        self.loaded_weights: LoadedWeights | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # Forty times a step Lightning notes at which hook it is, and torch looks whether that is a parameter.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def build(
        self, num_classes: int, image_shape: tuple[int, int, int], task: TaskName | None = None
    ) -> None:
        """Makes the network, from torch's global generator.

        Args:
            num_classes: C, at least 2; or the number of labels.
            image_shape: (C, H, W) as batches have it.
            task: Follows from the number of classes where it is not given: binary or multiclass.

        Raises:
            ValueError: The backbone can't be built for such images, or with its options; nor can the
                optimizer; or there are too few classes; or the weights don't fit.
        """
        self.task = build_task(num_classes, task)
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.network = build_network(
            self.hparams["backbone"],
            self.hparams["backbone_options"] or {},
            num_outputs=self.task.num_outputs,
            image_shape=image_shape,
            dropout=self.hparams["dropout"],
            pretrained=self.hparams["pretrained"],
            initialization=self.hparams["initialization"],
        )
        if self.hparams["weights"] is not None:
            self.loaded_weights = load_weights(self.network, Path(self.hparams["weights"]), image_shape[0])
        self.finetuning.adapt(self.network, image_shape)
        self.finetuning.apply(self.network, epoch=0)
        self._build_optimizer()  # thrown away: what it refuses is to be known before training
        self.criterion = build_criterion(
            self.hparams["loss"],
            self.hparams["loss_options"],
            self.hparams["label_smoothing"],
            self.task.name,
        )
        metrics = self.task.metrics()
        # One collection each, because stages interleave. Keys carry a suffix: "train" is a method.
        self.metrics = nn.ModuleDict({f"{stage}_": metrics.clone() for stage in ("train", "val", "test")})

    def weigh_classes(self, counts: Sequence[int], num_images: int | None = None) -> None:
        """Tells the loss how many training images each class has, where it is to be balanced.

        Of labels it also needs the number of images.
        """
        if self.hparams["class_weights"] == "balanced":
            self.criterion.weigh_classes(counts, num_images)

    def start_from_scratch(self) -> None:
        """Asks for no weights: those of a checkpoint follow, or only the shapes are wanted."""
        self.hparams["pretrained"] = False
        self.hparams["weights"] = None

    def pretrained_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The normalisation that the backbone was pretrained with.

        Raises:
            ValueError: It was not.
        """
        return pretrained_statistics(self.hparams["backbone"], self.image_shape[0])

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W), or the head's inputs (B, F) in their place, to logits (B, K)."""
        if images.ndim == 2:
            return classify(self.network, images, self.hparams["dropout"])
        logits: Tensor = self.network(images)
        return logits

    # Steps --------------------------------------------------------------------------------------

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        seed_dropout(batch.seed)
        again = self._sharpness is not None and self._sharpness.has_seen(batch)
        loss, weight = self._step("train", batch, recorded=not again)
        if batch_idx % FINITE_CHECK_STEPS == 0 and not again:
            self._check_finite()
        l1, l2 = self.hparams["l1"], self.hparams["l2"]
        if l1 or l2:
            loss = loss + weight_penalty(self.network, l1, l2)
        if self._accumulated == 1:
            return loss
        begins = batch_idx % self._accumulated == 0
        return self.accumulation.weighted(loss, weight, begins=begins, again=again)

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        self._step("val", batch)

    def test_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        self._step("test", batch)

    def _step(self, stage: Stage, batch: TrainingBatch, recorded: bool = True) -> tuple[Tensor, Tensor | int]:
        """The loss, and what the global batch counts as against others; recorded for the epoch's metrics."""
        images, targets, all_targets = self._mixed(batch) if stage == "train" else _given(batch)
        logits = self(images)[: len(targets)]  # (B, K); an empty share has an image all the same
        loss = self._loss(logits, targets, all_targets)
        weight = self.criterion.weight(targets if all_targets is None else all_targets)
        if not recorded:
            return loss, weight
        outputs = self._outputs[stage]
        outputs.losses.append(loss.detach())
        outputs.weights.append(weight)
        outputs.logits.append(logits.detach())
        outputs.targets.append(batch.targets)
        outputs.indices.append(batch.indices)
        return loss, weight

    def _mixed(self, batch: TrainingBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, their targets, and those of all processes, mixed where they are to be.

        Each process mixes the images of its share.
        """
        alphas = {name: self.hparams[name] for name in ("mixup", "cutmix")}
        if not any(alphas.values()):
            return _given(batch)
        generator = mixing_generator(batch.seed)
        images, targets = mix(batch.images, self.task.soft(batch.targets), generator, **alphas)
        everything = None if batch.global_targets is None else self.task.soft(batch.global_targets)
        return images, targets, everything

    def _loss(self, logits: Tensor, targets: Tensor, all_targets: Tensor | None) -> Tensor:
        """Whose mean over all processes is the criterion on the global batch, and so are its gradients."""
        if all_targets is None:
            return self._mean_loss(logits, targets)
        if len(targets) == 0:
            return logits.sum()  # 0, with gradients of 0
        weight = self.criterion.weight(all_targets)
        if isinstance(weight, Tensor):  # 0 where all images are of classes without training images
            weight = weight.clamp(min=torch.finfo(weight.dtype).tiny)
        share = self.criterion.weight(targets) / weight
        return self._mean_loss(logits, targets) * share * num_ranks()

    def _mean_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The criterion, and 0 where its weights add up to 0: the epoch's loss counts such images by 0."""
        loss: Tensor = self.criterion(logits, targets)
        weight = self.criterion.weight(targets)
        return torch.where(weight > 0, loss, 0.0) if isinstance(weight, Tensor) else loss

    # Epochs -------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        # Lightning starts no epoch when it goes on in the midst of one.
        self.finetuning.apply(self.network, self.current_epoch)
        self._accumulated = self.trainer.accumulate_grad_batches
        if self._outputs_before is not None:
            place = (self.global_rank, self.device)
            self._outputs["train"] = EpochOutputs.unpacked(self._outputs_before, *place)
            self._outputs_before = None

    def on_train_epoch_start(self) -> None:
        self.finetuning.apply(self.network, self.current_epoch)
        self._outputs["train"] = EpochOutputs()

    def on_validation_epoch_start(self) -> None:
        self._outputs["val"] = EpochOutputs()

    def on_test_epoch_start(self) -> None:
        self._outputs["test"] = EpochOutputs()

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        train_loss = self._report("train")
        measured = self._validated_epoch == self.current_epoch
        if not measured:  # Lightning keeps those of an earlier epoch, which would pass for this one's
            self._forget_validation()
        scheduler: Any = self.lr_schedulers()
        if scheduler and self._is_scheduled(
            measured
        ):  # as timm's own loop does, before the checkpoint is written
            val_loss = self.trainer.callback_metrics.get("val/loss", train_loss)
            scheduler.step(self.current_epoch + 1, val_loss)

    def _forget_validation(self) -> None:
        metrics = self.trainer.callback_metrics
        for name in [name for name in metrics if name.startswith("val/")]:
            del metrics[name]
        self.predictions.pop("val", None)

    def _is_scheduled(self, measured: bool) -> bool:
        """Whether the epoch moves the schedule; an epoch without validation tells a plateau nothing."""
        judged = measured or self.trainer.check_val_every_n_epoch == 1
        warming_up = self.current_epoch + 1 <= self.hparams["warmup_epochs"]
        return judged or warming_up or self.hparams["schedule"] != "plateau"

    def on_validation_epoch_end(self) -> None:
        self._report("val")
        self._validated_epoch = self.current_epoch

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, stage: Stage) -> Tensor:
        """Computes the epoch's metrics, all at once, logs them as `stage/name`, returns the loss."""
        outputs = self._outputs.pop(stage)
        logits, targets, indices = outputs.whole()
        self._check_outputs(stage, logits)
        probabilities = self.task.probabilities(logits.float())  # (N, C)
        log_odds = self.task.log_odds(logits)  # (N, C)
        self.predictions[stage] = Predictions(probabilities, targets, indices, log_odds)
        loss = outputs.mean_loss()
        if stage != "train":  # whose losses have been looked at, step by step
            self._check_loss(stage, loss)
        collection = self.metrics[f"{stage}_"]
        collection.update(probabilities, targets, ranking=log_odds)  # type: ignore[operator]
        values = {"loss": loss, **collection.compute()}  # type: ignore[operator]
        collection.reset()  # type: ignore[operator]
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})
        return loss

    def _check_outputs(self, stage: Stage, logits: Tensor) -> None:
        """Refuses to measure what is no number: the largest of NaNs is class 0, and would often be right.

        Raises:
            NonFiniteOutputError: Some of the logits (N, K) are NaN or infinite.
        """
        bad = int((~torch.isfinite(logits)).any(1).sum())
        if bad == 0:
            return
        if self._outputs["train"].losses:  # a loss that went before names the step
            self._check_finite()
        when = f" in epoch {self.current_epoch}" if self.trainer.state.fn == "fit" else ""
        raise NonFiniteOutputError(
            f"the network's outputs for {bad:,} of {len(logits):,} {stage} images are NaN or infinite{when}, "
            "and nothing can be measured on them. Most often weights or batch-norm statistics diverged: "
            f"lower model.lr (it is {self.hparams['lr']}), warm up, or clip with "
            "trainer.gradient_clip_norm=1; where 16 bits overflow, take trainer.precision=32-true"
        )

    def _check_loss(self, stage: Stage, loss: Tensor) -> None:
        """Refuses a loss that could neither be compared nor choose an epoch.

        Raises:
            NonFiniteOutputError: It is NaN or infinite, though the logits are not.
        """
        if torch.isfinite(loss):
            return
        when = f" in epoch {self.current_epoch}" if self.trainer.state.fn == "fit" else ""
        raise NonFiniteOutputError(
            f"the loss of the {stage} images is {loss.item()}{when}, though the network's outputs are "
            f"finite. Either they are too large for it: lower model.lr (it is {self.hparams['lr']}) or warm "
            "up; or model.class_weights weighs all of these images by 0, because no training image is of "
            "their classes"
        )

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

    def configure_model(self) -> None:
        """Shares the weights out among devices, where the trainer's strategy is to."""
        if self.device_mesh is not None:
            shard(self.network, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        optimizer = self._build_optimizer()
        max_epochs = self.trainer.max_epochs
        assert max_epochs is not None  # our trainer always sets it
        steps = self.trainer.estimated_stepping_batches  # which first loads the batches, to count them
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        scheduler = build_schedule(
            optimizer,
            self.hparams["schedule"],
            max_epochs=max_epochs,
            warmup_epochs=self.hparams["warmup_epochs"],
            warmup_prefix=self.hparams["warmup_prefix"],
            steps_per_epoch=max(1, steps_per_epoch),
            max_steps=max(1, int(steps)),
            options=self.hparams["schedule_options"],
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
            self.finetuning,
        )

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        if self._sharpness is not None and optimizer_closure is not None:
            optimizer_closure = self._sharpness.closure(self, optimizer, optimizer_closure)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self._accumulated > 1:
            self.accumulation.complete(optimizer, self._accumulated)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step_update(self.global_step)

    # Checkpoints --------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "train" in self._outputs:  # in the midst of an epoch, whose metrics are of all its steps
            checkpoint["train_outputs"] = self._outputs["train"].packed()
        checkpoint["built_for"] = {
            "num_classes": self.num_classes,
            "image_shape": list(self.image_shape),
            "task": self.task.name,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._outputs_before = checkpoint.get("train_outputs")
        if not hasattr(self, "network"):
            built_for = checkpoint["built_for"]
            self.start_from_scratch()  # the checkpoint's weights follow
            shape = tuple(built_for["image_shape"])
            self.build(built_for["num_classes"], shape, built_for.get("task"))


def _given(batch: TrainingBatch) -> tuple[Tensor, Tensor, Tensor | None]:
    return batch.images, batch.targets, batch.global_targets

"""Losses by name, against timm's and torchvision's, and against their formulas written out."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from support.classifiers import IMAGE_SHAPE, built, prepared, trainer
from timm.loss import AsymmetricLossMultiLabel
from timm.loss import BinaryCrossEntropy as TimmBinaryCrossEntropy
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.losses.registry import LOSSES, Criterion, LossName, build_criterion
from darkroom.lightning_modules.task import TaskName

LOGITS = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 3
CLASSES = torch.randint(4, (40,), generator=torch.Generator().manual_seed(1))
LABELS = (torch.rand(40, 4, generator=torch.Generator().manual_seed(2)) < 0.3).float()
SHARES = torch.rand(40, 4, generator=torch.Generator().manual_seed(3)).softmax(1)
OF_CLASSES: list[LossName] = ["cross_entropy", "bce", "focal", "poly1"]
OF_LABELS: list[LossName] = ["bce", "focal", "asymmetric", "poly1"]
TASKS: list[tuple[LossName, TaskName]] = [
    *((name, task) for name in OF_CLASSES for task in ("binary", "multiclass")),
    *((name, "multilabel") for name in OF_LABELS),
]


def criterion(
    name: LossName | None, task: TaskName = "multiclass", smoothing: float = 0.0, **options: Any
) -> Criterion:
    return build_criterion(name, options, smoothing, task)


def data_of(task: TaskName, count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets as batches have them, and mixed ones."""
    if task == "multilabel":
        return LOGITS[:count], LABELS[:count], SHARES[:count]
    if task == "multiclass":
        return LOGITS[:count], CLASSES[:count], SHARES[:count]
    positive = SHARES[:count, 0]
    return LOGITS[:count, :1], CLASSES[:count] % 2, torch.stack([1 - positive, positive], dim=1)


def weigh(loss: Criterion, task: TaskName) -> None:
    counts = {"binary": [90, 10], "multiclass": [40, 30, 20, 10], "multilabel": [50, 5, 20, 70]}[task]
    loss.weigh_classes(counts, 100)


# Against other people's -------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_of_classes_is_timms(smoothing: float) -> None:
    timms = TimmBinaryCrossEntropy(smoothing)
    torch.testing.assert_close(criterion("bce", smoothing=smoothing)(LOGITS, CLASSES), timms(LOGITS, CLASSES))
    torch.testing.assert_close(criterion("bce")(LOGITS, SHARES), timms(LOGITS, SHARES))  # it smooths indices
    hard = TimmBinaryCrossEntropy(smoothing, target_threshold=0.3)
    ours = criterion("bce", smoothing=smoothing, target_threshold=0.3)
    torch.testing.assert_close(ours(LOGITS, CLASSES), hard(LOGITS, CLASSES))
    torch.testing.assert_close(criterion("bce", target_threshold=0.3)(LOGITS, SHARES), hard(LOGITS, SHARES))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_labels_is_torchvisions(gamma: float) -> None:
    expected = sigmoid_focal_loss(LOGITS, LABELS, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(criterion("focal", "multilabel", gamma=gamma)(LOGITS, LABELS), expected)


def test_focal_of_two_classes_is_torchvisions_of_their_one_logit() -> None:
    logits, classes, _ = data_of("binary")
    expected = sigmoid_focal_loss(logits[:, 0], classes.float(), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(criterion("focal", "binary")(logits, classes), expected)


def test_balanced_focal_of_labels_is_torchvisions_with_the_ratio_of_its_alpha() -> None:
    loss = criterion("focal", "multilabel")
    loss.weigh_classes([20, 20, 20, 20], 100)  # four absences for each presence
    expected = sigmoid_focal_loss(LOGITS, LABELS, alpha=0.8, gamma=2, reduction="mean") / 0.2
    torch.testing.assert_close(loss(LOGITS, LABELS), expected)


@pytest.mark.parametrize(("negative", "positive", "margin"), [(4, 1, 0.05), (2, 0, 0.2), (4, 1, 0)])
def test_asymmetric_is_timms(negative: float, positive: float, margin: float) -> None:
    timms = AsymmetricLossMultiLabel(negative, positive, margin)  # sums over an image's labels
    loss = criterion(
        "asymmetric", "multilabel", gamma_negative=negative, gamma_positive=positive, margin=margin
    )
    each = [timms(logits[None], labels[None]) for logits, labels in zip(LOGITS, LABELS, strict=True)]
    torch.testing.assert_close(loss(LOGITS, LABELS), torch.stack(each).mean() / LABELS.shape[1])


def test_absent_labels_below_the_margin_cost_nothing_and_have_no_gradient() -> None:
    logits = torch.tensor([[-4.0, -2.0]], requires_grad=True)  # probabilities 0.018 and 0.12
    loss = criterion("asymmetric", "multilabel", margin=0.05)(logits, torch.zeros(1, 2))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 0] == 0
    assert gradient[0, 1] > 0


@pytest.mark.parametrize("epsilon", [-1.0, 2.0])
def test_poly1_adds_to_cross_entropy_what_the_true_class_lacks(epsilon: float) -> None:
    missing = 1 - LOGITS.softmax(1).gather(1, CLASSES[:, None])[:, 0]  # the paper's own code
    expected = (F.cross_entropy(LOGITS, CLASSES, reduction="none") + epsilon * missing).mean()
    torch.testing.assert_close(criterion("poly1", epsilon=epsilon)(LOGITS, CLASSES), expected)
    right = torch.where(LABELS == 1, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    expected = (epsilon * (1 - right) - right.log()).mean()
    loss = criterion("poly1", "multilabel", epsilon=epsilon)(LOGITS, LABELS)
    torch.testing.assert_close(loss, expected)


# What they are where they change nothing --------------------------------------------------------

NEUTRAL: dict[LossName, dict[str, Any]] = {
    "focal": {"gamma": 0.0},
    "poly1": {"epsilon": 0.0},
    "asymmetric": {"gamma_positive": 0.0, "gamma_negative": 0.0, "margin": 0.0},
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("name", "task"), [row for row in TASKS if row[0] in NEUTRAL])
def test_with_neutral_options_it_is_the_tasks_default_loss(
    name: LossName, task: TaskName, smoothing: float, weighted: bool
) -> None:
    loss, default = criterion(name, task, smoothing, **NEUTRAL[name]), criterion(None, task, smoothing)
    if weighted:
        weigh(loss, task)
        weigh(default, task)
    logits, targets, mixed = data_of(task)
    for truth in (targets, mixed):
        torch.testing.assert_close(loss(logits, truth), default(logits, truth))


def test_bce_of_two_classes_is_cross_entropy() -> None:
    logits, targets, mixed = data_of("binary")
    for truth in (targets, mixed):
        for smoothing in (0.0, 0.2):
            expected = criterion(None, "binary", smoothing)(logits, truth)
            torch.testing.assert_close(criterion("bce", "binary", smoothing)(logits, truth), expected)


def test_bce_of_classes_is_that_of_labels_of_which_each_image_has_one() -> None:
    of_classes, of_labels = criterion("bce"), criterion("bce", "multilabel")
    for loss in (of_classes, of_labels):
        loss.weigh_classes([40, 30, 20, 10], 100)
    torch.testing.assert_close(of_classes(LOGITS, CLASSES), of_labels(LOGITS, F.one_hot(CLASSES, 4).float()))


# What all of them promise -----------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("name", "task"), TASKS)
def test_unmixed_shares_cost_what_hard_targets_cost(
    name: LossName, task: TaskName, smoothing: float, weighted: bool
) -> None:
    loss = criterion(name, task, smoothing)
    if weighted:
        weigh(loss, task)
    logits, targets, _ = data_of(task)
    if task == "multilabel":  # a label present in part costs presence and absence, by its share
        mixed = 0.3 * loss(logits, targets) + 0.7 * loss(logits, 1 - targets)
        torch.testing.assert_close(loss(logits, 0.3 * targets + 0.7 * (1 - targets)), mixed)
        return
    shares = F.one_hot(targets, max(2, logits.shape[1])).float()
    averaged = loss(logits, targets) * loss.weight(targets) / loss.weight(shares)
    torch.testing.assert_close(loss(logits, shares), averaged)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "task"), TASKS)
def test_two_processes_shares_add_up_to_the_whole(name: LossName, task: TaskName, weighted: bool) -> None:
    loss = criterion(name, task, 0.1)
    if weighted:
        weigh(loss, task)
    logits, targets, mixed = data_of(task)
    for truth in (targets, mixed):
        parts = [slice(0, 13), slice(13, 40)]
        scaled = [loss(logits[part], truth[part]) * loss.weight(truth[part]) for part in parts]
        torch.testing.assert_close(sum(scaled) / loss.weight(truth), loss(logits, truth))


@pytest.mark.parametrize(("name", "task"), TASKS)
def test_its_gradient_is_finite_however_sure_the_network_is(name: LossName, task: TaskName) -> None:
    options = {"gamma": 0.5} if name == "focal" else {}  # the slope of a root at 0 is infinite
    loss = criterion(name, task, 0.1, **options)
    logits, targets, _ = data_of(task)
    for scale in (1.0, 40.0, 1e4):
        sure = (logits * scale).requires_grad_()
        value = loss(sure, targets)
        (gradient,) = torch.autograd.grad(value, sure)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "task"), TASKS)
def test_in_16_bits_it_is_computed_in_32(name: LossName, task: TaskName, dtype: torch.dtype) -> None:
    loss = criterion(name, task, 0.1)
    weigh(loss, task)
    logits, targets, mixed = data_of(task)
    rounded = logits.to(dtype)
    for truth in (targets, mixed):
        with torch.autocast("cpu", dtype):
            value = loss(rounded, truth)
        assert value.dtype is torch.float32
        torch.testing.assert_close(value, loss(rounded.float(), truth))


@pytest.mark.parametrize(("name", "task"), TASKS)
def test_its_weights_stay_out_of_the_state(name: LossName, task: TaskName) -> None:
    loss = criterion(name, task)
    weigh(loss, task)
    assert loss.state_dict() == {}


@pytest.mark.parametrize(("name", "options"), [("bce", {"target_threshold": 0.2}), ("focal", {"gamma": 1})])
def test_a_fit_with_mixed_images_learns_by_it_and_validates_by_it(
    name: LossName, options: dict[str, Any]
) -> None:
    data = prepared()
    arguments: dict[str, Any] = {"loss": name, "loss_options": options, "mixup": 0.2}
    model = built(data, class_weights="balanced", **arguments)
    fitted = trainer(max_epochs=8)
    fitted.fit(model, data)
    assert fitted.callback_metrics["val/accuracy"] > 0.9
    reloaded = copy.deepcopy(model).eval()
    validation = data.splits["val"]
    logits = reloaded(data.preprocess(validation.images))
    expected = model.criterion(logits, validation.targets)
    torch.testing.assert_close(fitted.callback_metrics["val/loss"], expected.detach(), rtol=1e-4, atol=1e-6)


# Refusals ---------------------------------------------------------------------------------------


def test_every_name_is_in_the_table_and_has_a_task() -> None:
    assert get_args(LossName) == tuple(LOSSES)
    assert {name for name, _ in TASKS} == set(LOSSES)


@pytest.mark.parametrize(
    ("name", "task", "admitted"),
    [
        ("asymmetric", "multiclass", "cross_entropy, bce, focal, poly1"),
        ("asymmetric", "binary", "cross_entropy, bce, focal, poly1"),
        ("cross_entropy", "multilabel", "bce, focal, asymmetric, poly1"),
    ],
)
def test_a_loss_that_the_task_has_not_is_refused_with_those_it_has(
    name: LossName, task: TaskName, admitted: str
) -> None:
    model = ImageClassifier(loss=name, backbone_options={"widths": [4]})
    with pytest.raises(ValueError, match=rf"model\.loss: a {task} task has no {name}; it has {admitted}$"):
        model.build(2 if task == "binary" else 4, IMAGE_SHAPE, task)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("focal", {"gama": 1}, r"focal has no option 'gama'; did you mean gamma\?"),
        ("asymmetric", {"clip": 0.1}, "it takes gamma_positive, gamma_negative, margin"),
        ("cross_entropy", {"gamma": 1}, "cross_entropy has no option 'gamma'; it takes none"),
        ("focal", {"gamma": -1}, "gamma of focal must be at least 0, got -1"),
        ("focal", {"gamma": float("nan")}, "got nan"),
        ("focal", {"gamma": "high"}, "got high"),
        ("poly1", {"epsilon": -1.5}, "epsilon of poly1 must be at least -1, got -1.5"),
        ("asymmetric", {"margin": 1}, r"margin of asymmetric must lie in \[0, 1\), got 1; 0.05 is customary"),
        ("bce", {"target_threshold": 1.0}, r"target_threshold of bce must lie in \[0, 1\), got 1.0"),
        (None, {"gamma": 1}, "belong to a model.loss"),
    ],
)
def test_options_are_refused_before_there_is_any_data(name: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^model.loss_options.*{message}"):
        ImageClassifier(loss=name, loss_options=options)

"""Published weights judged as they are: timm's logits, published accuracies, and runs like any other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.metrics import accuracy_score
from timm.data import ImageNetInfo, create_transform, resolve_data_config

from darkroom.datamodules import ImageFolder
from darkroom.experiments.cli.evaluate_untrained import load_untrained
from darkroom.experiments.errors import RequestError
from darkroom.experiments.training.class_order import _check_imagenet_order, class_order_notes
from darkroom.experiments.training.loop import evaluate
from darkroom.experiments.training.run import train
from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.backbones.factory import build_network

needs_files = pytest.mark.skipif(
    not {"DARKROOM_DATA", "DARKROOM_WEIGHTS"} <= os.environ.keys(),
    reason="DARKROOM_DATA and DARKROOM_WEIGHTS name no real images and weights",
)
WIDTHS = "--model.backbone_options.widths=[8]"
LITE0 = """
name: imagenet/lite0
data: {class_path: ImageFolder, init_args: {val_fraction: 0.0}}
model: {class_path: ImageClassifier, init_args: {backbone: tf_efficientnet_lite0}}
trainer: {precision: 32-true}
mlflow: {enabled: false}
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Of an untrained network for digits."""
    torch.manual_seed(0)
    network = build_network("small_cnn", {"widths": [8]}, num_outputs=10, image_shape=(1, 8, 8))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_untrained_weights_make_a_run_that_other_commands_read(darkroom, store, weights):
    answer = darkroom("evaluate", "digits/cnn", "--untrained", f"--model.weights={weights}", WIDTHS)
    assert answer.status == 0, answer.errors
    assert "untrained" in answer.output
    run = store.run(answer.output.rpartition("run ")[2].split()[0])
    assert run.status == "FINISHED"
    assert run.params["trainer.max_epochs"] == "0"
    assert run.metrics["best/epoch"] == 0
    assert not [name for name in run.metrics if name.startswith("train/")]
    state = torch.load(run.download("checkpoints/best.ckpt"), weights_only=True)["state_dict"]
    for name, tensor in torch.load(weights, weights_only=True).items():
        assert torch.equal(state[f"network.{name}"], tensor), name

    again = darkroom("evaluate", run.run_id)
    assert again.status == 0, again.errors
    assert "+0.0e+00" in again.output
    for command in (["slices", run.run_id], ["compare", run.run_id], ["rerun", run.run_id]):
        assert darkroom(*command).status == 0, command


def test_its_accuracy_is_that_of_the_weights(weights):
    keys = {"model.weights": str(weights), "model.backbone_options.widths": "[8]", "mlflow.enabled": "false"}
    experiment = load_untrained(["digits/cnn"], keys)
    result = train(experiment, None)
    network = build_network("small_cnn", {"widths": [8]}, num_outputs=10, image_shape=(1, 8, 8)).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    test, seen = experiment.data.splits["test"], experiment.data.splits["train"].images.double() / 255
    pixels = (test.images.double() / 255 - seen.mean()) / seen.std(correction=0)
    with torch.no_grad():
        predicted = network(pixels.float()).argmax(1)
    assert result.metrics["test/accuracy"] == pytest.approx(accuracy_score(test.targets, predicted))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "has no weights to judge"),
        (["--trainer.max_epochs=3"], "leave out trainer.max_epochs"),
        (["--split=val"], "leave out --split"),
    ],
)
def test_what_would_judge_nothing_is_refused(given, said, darkroom, store):
    answer = darkroom("evaluate", "digits/cnn", "--untrained", "--name=no/run", WIDTHS, *given)
    assert answer.status == 2
    assert said in answer.errors
    assert store.client.get_experiment_by_name("no/run") is None


def test_a_head_that_starts_anew_is_refused(darkroom, tmp_path):
    network = build_network("small_cnn", {"widths": [8]}, num_outputs=4, image_shape=(1, 8, 8))
    torch.save(network.state_dict(), tmp_path / "other.pth")
    given = f"--model.weights={tmp_path / 'other.pth'}"
    answer = darkroom("evaluate", "digits/cnn", "--untrained", WIDTHS, given)
    assert answer.status == 2
    assert "starts anew for 10 classes" in answer.errors


@pytest.mark.parametrize("command", [["sweep"], ["train", "--folds=3"], ["tune"]])
def test_commands_that_train_refuse_no_epochs(command, darkroom):
    answer = darkroom(*command, "digits/cnn", "--trainer.max_epochs=0")
    assert answer.status == 2
    assert "evaluate EXPERIMENT --untrained" in answer.errors


def test_classes_of_imagenet_go_by_synset_word_or_number_in_the_heads_order():
    known = ImageNetInfo("imagenet-1k")
    synsets = known.label_names()
    words = [description.split(",")[-1].strip() for description in known.label_descriptions()]
    for names in (synsets, words, [f"{index:04d}" for index in range(1000)]):
        _check_imagenet_order(names, known)
    with pytest.raises(RequestError, match="output 1 of the head is n01443537"):
        _check_imagenet_order([synsets[0], synsets[2], synsets[1], *synsets[3:]], known)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real ones, half of them enlarged to 3000x2000, below a class of ImageNet that they need not show."""
    root, synsets = tmp_path_factory.mktemp("photographs"), ImageNetInfo("imagenet-1k").label_names()
    for index, synset in enumerate(synsets):
        (root / "train" / synset).mkdir(parents=True)
        Image.new("RGB", (8, 8), (index % 256, 0, 0)).save(root / "train" / synset / "only.png")
    found = sorted((Path(os.environ["DARKROOM_DATA"]) / "hymenoptera").rglob("*.jpg"))[::20][:16]
    (root / "test" / synsets[0]).mkdir(parents=True)
    for number, file in enumerate(found):
        target = root / "test" / synsets[0] / f"{number:02d}.jpg"
        if number % 2:
            Image.open(file).convert("RGB").resize((3000, 2000)).save(target, quality=92)
        else:
            shutil.copy(file, target)
    return root


def logits(root: Path, cache: Path, decoding: str) -> torch.Tensor:
    """As darkroom judges lite0's own weights on the photographs, in the order of their files."""
    file = Path(os.environ["DARKROOM_WEIGHTS"]) / "tf_efficientnet_lite0.safetensors"
    recipe = cache / "recipe.yaml"
    recipe.write_text(LITE0)
    keys = {"data.root": str(root), "data.cache": str(cache), "data.decoding": decoding}
    experiment = load_untrained([str(recipe)], {**keys, "model.weights": str(file)})
    train(experiment, None)
    data, network = experiment.data, experiment.model.network.eval()
    images = data.preprocess(data.splits["test"].images[torch.arange(len(data.splits["test"]))])
    with torch.no_grad():
        seen: torch.Tensor = network(images)
    probabilities = evaluate(experiment, ["test"]).predictions["test"].probabilities
    torch.testing.assert_close(probabilities.float(), seen.softmax(1), atol=1e-5, rtol=1e-3)
    return seen


@needs_files
def test_logits_are_those_of_timms_own_evaluation(photographs, tmp_path):
    file = Path(os.environ["DARKROOM_WEIGHTS"]) / "tf_efficientnet_lite0.safetensors"
    network = timm.create_model("tf_efficientnet_lite0", checkpoint_path=str(file)).eval()
    transform = create_transform(**resolve_data_config(model=network))
    files = sorted((photographs / "test").rglob("*.jpg"))
    with torch.no_grad():
        expected = network(torch.stack([transform(Image.open(each).convert("RGB")) for each in files]))
    apart = (logits(photographs, tmp_path, "exact") - expected).abs().amax(1)
    # 0.03 is promised; the pixels are the same, so that only the kernels' rounding is left.
    assert apart.max() < 0.001, apart
    fast = (logits(photographs, tmp_path, "fast") - expected).abs().amax(1).numpy()
    large = np.array([max(Image.open(each).size) == 3000 for each in files])
    assert fast[large].max() > 0.03  # else the photographs would show nothing


@needs_files
def test_published_cifar_weights_reproduce_what_their_recipe_claims(darkroom, store, tmp_path):
    source = Path(os.environ["DARKROOM_DATA"]) / "cifar10_lossless_subset"
    shutil.copytree(source / "test", tmp_path / "test")
    for folder in sorted((source / "train").iterdir()):  # of which nothing is trained on
        (tmp_path / "train" / folder.name).mkdir(parents=True)
        shutil.copy(min(folder.iterdir()), tmp_path / "train" / folder.name)
    Path("weights").mkdir(exist_ok=True)  # in the project's folder, where the recipe looks for it
    published = Path(os.environ["DARKROOM_WEIGHTS"]) / "cifar10_resnet_akamaster"
    shutil.copy(published / "resnet20-12fca82f.th", "weights")
    keys = [f"--data.root={tmp_path}", f"--data.cache={tmp_path / 'cache'}"]
    answer = darkroom("reproduce", "cifar10/published_resnet20", *keys)
    assert answer.status == 0, answer.errors
    [run] = [run for run in store.runs_of("cifar10/published_resnet20") if run.is_training]
    assert round(run.metrics["test/accuracy"] * 846) == 776
    assert " reproduced " in answer.output


@pytest.mark.parametrize(("order", "used", "other"), [("natural", 2, 10), ("text", 10, 2)])
def test_a_head_that_is_kept_meets_classes_in_a_stated_order(tmp_path, order, used, other):
    for name in map(str, range(11)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (8, 8), 20 * int(name)).save(tmp_path / "images" / name / f"{number}.png")
    data = ImageFolder(str(tmp_path / "images"), image_size=8, cache=str(tmp_path), class_order=order)
    network = build_network("small_cnn", {"widths": [8]}, num_outputs=11, image_shape=(3, 8, 8))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = ImageClassifier("small_cnn", {"widths": [8]}, weights=str(tmp_path / "weights.pth"))
    model.build(11, (3, 8, 8), "multiclass")
    (note,) = class_order_notes(model, data)
    assert f"in this order: 0, 1, {used}" in note
    assert f"order 0, 1, {other}" in note
    data.classes = data.class_names
    assert class_order_notes(model, data) == []

"""1,001 images judged by two processes count once each: as one process judges the same weights."""

from __future__ import annotations

import pytest
import torch
from support.training import run_id

from darkroom.experiments.training.loop import evaluate
from darkroom.experiments.training.restore import restore

EPOCHS, BATCH_SIZE, STEPS = 2, 77, 39  # odd batches; of 3,004 images one is left, and joins the last
DATA = [
    "--data=Synthetic",
    "--data.num_images=4005",  # and a quarter as many for the test, 1,001
    "--data.val_fraction=0.2503",
    "--data.side=8",
    "--data.grayscale=true",
    "--data.num_classes=4",
    f"--data.batch_size={BATCH_SIZE}",
]
TRAINING = [
    "--model.backbone_options={widths: [4, 8]}",  # with batch norm
    "--model.lr=0.01",
    f"--trainer.max_epochs={EPOCHS}",
    "--trainer.monitor=null",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
]


@pytest.fixture(scope="module")
def by_two(workspace) -> str:
    answer = workspace.run("train", "digits/cnn", *DATA, *TRAINING, "--name=exact", "--trainer.devices=2")
    assert answer.status == 0, answer.errors
    return run_id(answer.output)


@pytest.mark.slow  # test_ranks has it of another recipe, at every run
def test_two_processes_record_one_run(by_two, store):
    (run,) = store.runs_of("exact")
    assert run.run_id == by_two
    assert run.status == "FINISHED"
    for name in ("train/loss", "val/loss"):
        assert [point.step for point in store.client.get_metric_history(by_two, name)] == [1, 2]


def test_they_take_equal_steps_which_are_those_of_one(by_two, store):
    checkpoint = torch.load(store.find_run(by_two).download("checkpoints/best.ckpt"), weights_only=True)
    assert checkpoint["global_step"] == EPOCHS * STEPS


@pytest.mark.parametrize(("split", "stage"), [("val", "best"), ("test", "test")])
def test_one_process_judges_the_same_weights_alike(split, stage, by_two, store):
    run = store.find_run(by_two)
    predictions = run.predictions(split)
    assert len(predictions) == predictions["id"].nunique() == 1001
    experiment = restore(run, {"trainer.devices": "1"})
    values = evaluate(experiment, [split]).metrics
    assert len(values) > 9
    for name, value in values.items():
        assert run.metrics[name.replace(split, stage)] == pytest.approx(value, abs=1e-6), name


def test_a_bare_loop_over_all_images_gives_the_recorded_accuracy(by_two, store):
    run = store.find_run(by_two)
    experiment = restore(run, {"trainer.devices": "1"})
    images, targets = experiment.data.splits["val"].images, experiment.data.splits["val"].targets
    network = experiment.model.network.eval()
    with torch.no_grad():
        said = [int(network(experiment.data.preprocess(image[None])).argmax()) for image in images]
    correct = sum(guess == target for guess, target in zip(said, targets.tolist(), strict=True))
    assert run.metrics["best/accuracy"] == pytest.approx(correct / 1001, abs=1e-6)

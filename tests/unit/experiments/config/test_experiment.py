"""A configuration is its classes' signatures, and survives being written down."""

from __future__ import annotations

import pytest
import yaml

from darkroom.experiments.config.experiment import load_experiment, parse_experiment
from darkroom.experiments.config.keys import flatten, source_arguments
from darkroom.experiments.errors import RequestError
from darkroom.experiments.recipes import recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_named_after_its_file_and_written_down_parses_to_itself(name):
    experiment = load_experiment([name])
    assert experiment.name == name
    again = parse_experiment([experiment.to_yaml()], {})
    assert again.config == experiment.config
    assert dict(again.model.hparams) == dict(experiment.model.hparams)
    assert again.trainer == experiment.trainer


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_with_a_claim_pins_what_its_number_depends_on(name):
    recipe = yaml.safe_load(load_experiment([name]).to_yaml())
    text = parse_keys(name)
    if recipe["claim"] is not None:
        assert "precision" in text["trainer"]
        assert "max_epochs" in text["trainer"]
        assert "monitor" in text["trainer"]


def parse_keys(name):
    from darkroom.experiments.recipes import find_recipe

    return yaml.safe_load(find_recipe(name).read_text())


def test_a_key_is_short_or_long_and_reaches_the_constructor():
    for key in ("model.lr", "model.init_args.lr"):
        assert load_experiment(["digits/cnn"], {key: "3e-4"}).model.hparams["lr"] == 3e-4


def test_the_last_of_several_files_wins_and_the_command_line_over_it(tmp_path):
    override = tmp_path / "override.yaml"
    override.write_text("model: {lr: 0.5, dropout: 0.25}\nseed: 7")
    experiment = load_experiment(["digits/cnn", str(override)], {"model.lr": "0.125"})
    assert experiment.model.hparams["lr"] == 0.125
    assert experiment.model.hparams["dropout"] == 0.25
    assert experiment.model.hparams["optimizer"] == "adamw"  # the recipe's
    assert experiment.seed == experiment.data.seed == 7


def test_a_later_range_replaces_an_earlier_one_whole(tmp_path):
    override = tmp_path / "override.yaml"
    override.write_text("sweep: {space: {model.lr: {choices: [0.1, 0.2]}}}")
    sweep = load_experiment(["digits/cnn", str(override)]).sweep
    assert sweep.space["model.lr"].choices == [0.1, 0.2]
    assert sweep.space["model.lr"].low is None
    assert sweep.space["model.dropout"].high == 0.5  # the recipe's


def test_another_data_set_keeps_the_arguments_it_shares():
    experiment = load_experiment(["digits/cnn"], {"data": "FashionMNIST", "data.root": "elsewhere"})
    assert experiment.data.batch_size == 64
    assert str(experiment.data.root) == "elsewhere"


def test_a_section_can_be_switched_off():
    assert load_experiment(["digits/cnn"], {"trainer.early_stopping": "null"}).trainer.early_stopping is None


def test_yaml_that_is_none_is_refused_with_its_place():
    with pytest.raises(RequestError, match=r"not YAML.*line 2"):
        parse_experiment(["name: x\nmodel: {lr: 0.1\ndata: y"], {})
    with pytest.raises(RequestError, match="mapping"):
        parse_experiment(["- a list"], {})


def test_a_configuration_without_model_or_name_is_refused():
    with pytest.raises(RequestError, match=r"names no model.*ImageClassifier"):
        parse_experiment(["name: x\ndata: Digits"], {})
    with pytest.raises(RequestError, match="name"):
        parse_experiment(["data: Digits\nmodel: ImageClassifier"], {})


def test_flat_keys_are_those_of_the_command_line():
    experiment = load_experiment(["digits/cnn"])
    flat = flatten(experiment.config)
    assert flat["model"] == "ImageClassifier"
    assert flat["model.lr"] == experiment.model.hparams["lr"]
    again = load_experiment(["digits/cnn"], {"model.lr": str(flat["model.lr"])})
    assert again.config == experiment.config


# The articles' networks, to the last parameter.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("fashion_mnist/dense", 59_130), ("fashion_mnist/article_cnn", 390_410), ("mnist/lenet5", 61_706)],
)
def test_a_recipe_builds_the_network_of_its_source(name, parameters):
    experiment = load_experiment([name])
    experiment.model.build(len(experiment.data.class_names), experiment.data.image_shape)
    assert experiment.model.num_parameters() == parameters


@pytest.mark.parametrize("name", ["fashion_mnist/dense", "fashion_mnist/article_cnn"])
def test_the_articles_recipes_train_on_all_images_and_test_the_last_checkpoint(name):
    experiment = load_experiment([name])
    assert experiment.data.num_train_images == 60_000
    assert experiment.data.batch_size == 32
    assert experiment.data.normalization == "unit"
    assert experiment.trainer.max_epochs == 10
    assert experiment.trainer.monitor is None
    assert experiment.trainer.early_stopping is None
    assert experiment.model.hparams["initialization"] == "glorot_uniform"
    assert experiment.model.hparams["optimizer"] == "adam"


def test_trials_share_decoded_images_only_where_all_that_makes_them_is_the_same():
    def source(**overrides: str):
        given = {f"data.{key}": value for key, value in overrides.items()}
        return source_arguments(load_experiment(["cats_dogs/tutorial_cnn"], given).config)

    assert source() == source(batch_size="7", val_fraction="0.3", normalization="imagenet")
    for key, value in (("image_size", "32"), ("interpolation", "bicubic"), ("resize", "crop"), ("root", "x")):
        assert source() != source(**{key: value}), key


FOLDER = """
name: birds/pretrained
data: {class_path: ImageFolder, init_args: {root: birds, classes: [crow, wren]}}
model: {class_path: ImageClassifier, init_args: {backbone: inception_v3, pretrained: true}}
"""
FILE_OF_WEIGHTS = {"model.pretrained": "false", "model.weights": "weights.pth"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, ("backbone", 299)),
        ({"model.backbone": "resnet18"}, ("backbone", 224)),
        (FILE_OF_WEIGHTS, ("backbone", 299)),
        ({"model.pretrained": "false"}, ("dataset", 224)),
        ({"model.backbone": "cifar_resnet", **FILE_OF_WEIGHTS}, ("dataset", 224)),
        ({"data.normalization": "imagenet"}, ("imagenet", 299)),
        ({"data.image_size": "96"}, ("backbone", 96)),
    ],
)
def test_images_are_seen_as_in_pretraining_unless_the_keys_are_given(overrides, expected):
    experiment = parse_experiment([FOLDER], overrides)
    assert (experiment.data.normalization, experiment.data.image_size) == expected
    again = parse_experiment([experiment.to_yaml()], {})
    assert again.config == experiment.config


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, ("bicubic", "crop", 0.875)),  # inception_v3
        ({"model.backbone": "resnet18.tv_in1k"}, ("bilinear", "crop", 0.875)),
        ({"model.backbone": "resnet50.a1_in1k"}, ("bicubic", "crop", 0.95)),
        ({"model.backbone": "vit_base_patch16_clip_224.openai"}, ("bicubic", "crop", 0.9)),
        ({"model.backbone": "convnext_base.fb_in22k_ft_in1k_384"}, ("bicubic", "squash", 1.0)),
        ({"model.pretrained": "false"}, ("bilinear", "crop", 0.875)),
        ({"data.interpolation": "nearest"}, ("nearest", "crop", 0.875)),
        ({"model.backbone": "resnet50.a1_in1k", "data.crop_fraction": "1"}, ("bicubic", "crop", 1.0)),
    ],
)
def test_images_are_resized_and_cropped_as_timm_evaluates_the_backbone(overrides, expected):
    data = parse_experiment([FOLDER], overrides).data
    assert (data.sizing.interpolation, data.sizing.resize, data.sizing.crop_fraction) == expected
    assert data.sizing.decoding == "exact"


def test_a_border_that_no_key_makes_is_told():
    experiment = parse_experiment([FOLDER], {"model.backbone": "volo_d4_448"})
    assert any("timm evaluates this backbone with a border" in note for note in experiment.data.notes)


def test_a_set_of_one_size_keeps_it_under_a_pretrained_backbone():
    keys = {"model.backbone": "resnet18", "model.pretrained": "true"}
    experiment = load_experiment(["mnist/lenet5"], {**keys, "model.backbone_options": "null"})
    assert experiment.data.image_shape == (1, 28, 28)

"""One network: its settings, what it says of pixels, and how it comes back from disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from urbanprint.errors import InputError
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.network import (
    CellClassifier,
    CellEpoch,
    GeolocationConfig,
    build_classifier,
    load_classifier,
)
from urbanprint.models.backbones import normalise
from urbanprint.models.card import CARD_FILE, REQUIRED

CARD: dict[str, Any] = dict.fromkeys(REQUIRED, "stated")


def untrained(tree: Hierarchy, config: GeolocationConfig, *, level: int | None) -> CellClassifier:
    return build_classifier(tree, design="joint" if level is None else "level", level=level, config=config)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_the_outputs_are_the_classes_of_the_level_or_the_leaves(tree: Hierarchy, config: GeolocationConfig) -> None:
    for level, classes, name in ((1, 2, "L1"), (3, 4, "L3"), (None, 8, "joint")):
        model = untrained(tree, config, level=level)
        assert model.logits(pixels(3)).shape == (3, classes)
        assert model.name == name


def test_batches_change_no_output_and_no_images_give_none(tree: Hierarchy, config: GeolocationConfig) -> None:
    views = pixels(9)
    views.setflags(write=False)  # as a memory-mapped file is
    whole = untrained(tree, replace(config, batch=16), level=5).logits(views)
    np.testing.assert_allclose(untrained(tree, replace(config, batch=4), level=5).logits(views), whole, atol=1e-5)
    assert untrained(tree, config, level=5).logits(views[:0]).shape == (0, 8)


def test_the_seed_decides_the_weights(tree: Hierarchy, config: GeolocationConfig) -> None:
    one, same, other = (untrained(tree, replace(config, seed=seed), level=5).logits(pixels(2)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


# --- style ----------------------------------------------------------------------------------------------------------


def test_style_is_the_mean_and_the_spread_of_each_channel_at_the_ends_of_the_early_stages(
    tree: Hierarchy, config: GeolocationConfig
) -> None:
    model = untrained(tree, replace(config, backbone="resnet18"), level=5)
    resnet: Any = model.network.backbone
    views = normalise(torch.from_numpy(pixels(3)), mean=model.backbone.mean, std=model.backbone.std)
    with torch.inference_mode():
        stem = resnet.relu(resnet.bn1(resnet.conv1(views)))
        first = resnet.layer1(resnet.maxpool(stem))
        maps = [stage.numpy() for stage in (stem, first, resnet.layer2(first))]
    wanted = [statistic(stage, axis=(2, 3)) for stage in maps for statistic in (np.mean, np.std)]
    found = model.logits_and_style(pixels(3))[1]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.concatenate(wanted, axis=1), atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("resnet18", 64 + 64 + 128),
        ("resnet50", 64 + 256 + 512),
        ("efficientnet_b0", 16 + 24 + 40),
        ("convnext_tiny", 96 + 192),
        ("regnet_y_400mf", 32 + 48 + 104),
        ("shufflenet_v2_x0_5", 24 + 24 + 48),
    ],
)
def test_one_pass_gives_the_same_outputs_and_the_style(
    tree: Hierarchy, config: GeolocationConfig, backbone: str, channels: int
) -> None:
    model = untrained(tree, replace(config, backbone=backbone, batch=4), level=5)
    model.network.train()
    logits, style = model.logits_and_style(pixels(5))
    np.testing.assert_array_equal(logits, model.logits(pixels(5)))
    assert style.shape == (5, 2 * channels)
    np.testing.assert_allclose(style[3:], model.logits_and_style(pixels(5)[3:])[1], atol=1e-4)  # batches change nothing
    nothing = model.logits_and_style(pixels(0))
    assert (nothing[0].shape, nothing[1].shape) == ((0, 8), (0, 2 * channels))
    assert not any(layer._forward_hooks for layer in model.network.modules())


# --- on disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [3, None])
def test_it_comes_back_from_disk_with_equal_outputs(
    tree: Hierarchy, config: GeolocationConfig, tmp_path: Path, level: int | None
) -> None:
    epoch = CellEpoch(
        epoch=0,
        train_loss=1.5,
        validation_loss=float("nan"),
        validation_accuracy=float("nan"),
        learning_rate=1e-5,
        seconds=1.0,
        best=True,
    )
    weights = (1.0, 2.0, 3.0) if level is None else None
    model = untrained(tree, replace(config, level_weights=weights), level=level)
    folder = replace(model, history=(epoch,)).save(tmp_path / "model", CARD)
    again = load_classifier(folder, device="cpu")
    np.testing.assert_array_equal(again.logits(pixels(4)), model.logits(pixels(4)))
    assert (again.config, again.design, again.level) == (model.config, model.design, model.level)
    assert again.hierarchy.to_json() == tree.to_json()
    card = json.loads((folder / CARD_FILE).read_text())
    assert card["history"][0]["validation_loss"] is None
    assert card["labels"]["classes"] == len(model.classes)


def test_a_card_of_another_network_is_refused(tree: Hierarchy, config: GeolocationConfig, tmp_path: Path) -> None:
    folder = untrained(tree, config, level=3).save(tmp_path / "model", CARD)
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps({**card, "level": 5}))
    with pytest.raises(InputError, match="not those of shufflenet_v2_x0_5 with 8 classes"):
        load_classifier(folder)
    (folder / CARD_FILE).write_text(json.dumps({**card, "architecture": "imagewise"}))
    with pytest.raises(InputError, match="'cell-classifier' is expected"):
        load_classifier(folder)


def test_a_level_goes_with_the_level_design_only(tree: Hierarchy, config: GeolocationConfig) -> None:
    with pytest.raises(InputError, match="design = 'joint' with level = 3"):
        build_classifier(tree, design="joint", level=3, config=config)
    with pytest.raises(InputError, match="design = 'level' with level = None"):
        build_classifier(tree, design="level", level=None, config=config)
    with pytest.raises(InputError, match=r"no level 2 among \[1, 3, 5\]"):
        build_classifier(tree, design="level", level=2, config=config)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("size", 31),
        ("epochs", 0),
        ("batch", 3),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("dropout", 1.0),
        ("label_smoothing", 1.0),
        ("cutmix", 1.1),
        ("tau_km", 0.0),
        ("sampling", "often"),
        ("validation_share", 1.0),
        ("patience", 0),
        ("seed", -1),
        ("workers", 0),
        ("checkpoint_seconds", -1.0),
    ],
)
def test_a_setting_out_of_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(InputError, match=f"geolocation setting {setting} = {value!r} must be"):
        GeolocationConfig(**{setting: value})  # type: ignore[arg-type]


def test_images_are_not_mirrored_by_default() -> None:
    assert GeolocationConfig().backbone == "resnet50"
    assert not GeolocationConfig().mirror

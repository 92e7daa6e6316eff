"""The compact parser: its parts, how it is made, and the weights that are part of the package."""

from pathlib import Path

import numpy as np
import pytest
import torch

from urbanprint.errors import InputError, MissingWeights
from urbanprint.models.card import CARD_FILE, WEIGHTS_FILE, load_card, save_model
from urbanprint.scenes import train_compact as making
from urbanprint.scenes.classes import SIMULATED
from urbanprint.scenes.compact import SIZE, WEIGHTS, CompactNetwork, CompactParser, load_compact
from urbanprint.scenes.train_compact import (
    TESTING_TOWNS,
    TRAINING_TOWNS,
    class_weights,
    fit,
    intersection_over_union,
    pictures_and_masks,
    train_compact,
)
from urbanprint.simulation.canvas import CLASSES


def test_every_pixel_gets_the_logits_of_every_class() -> None:
    network = CompactNetwork(7, width=8).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 48, 64)).shape == (2, 7, 48, 64)


def test_intersection_over_union_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    found, wanted = rng.integers(0, 3, (2, 4, 10, 10))
    iou = intersection_over_union(found, wanted, classes=4)
    for index in range(3):
        either, both = (found == index) | (wanted == index), (found == index) & (wanted == index)
        assert iou[index] == pytest.approx(both.sum() / either.sum())
    assert np.isnan(iou[3])  # in neither: not perfect, not wrong


def test_rare_classes_weigh_more_but_less_than_their_rarity() -> None:
    masks = np.zeros((1, 100, 100), np.uint8)
    masks[0, 0] = 1
    weights = class_weights(masks, classes=2)
    assert 1 < float(weights[1] / weights[0]) < 99
    assert float(weights.mean()) == pytest.approx(1)


def test_towns_of_training_and_testing_and_of_the_catalogue_are_different() -> None:
    assert not set(TRAINING_TOWNS) & set(TESTING_TOWNS)
    assert not (set(TRAINING_TOWNS) | set(TESTING_TOWNS)) & set(range(1000))


def test_a_picture_and_its_mask_show_the_same_street() -> None:
    pixels, masks = pictures_and_masks([9001], images=6)
    assert pixels.shape == (6, SIZE, SIZE, 3)
    assert masks.shape == (6, SIZE, SIZE)
    sky = masks == CLASSES.index("sky")
    assert (pixels.mean(axis=3)[sky].mean() - pixels.mean(axis=3)[~sky].mean()) > 20  # the sky is bright
    assert sky[:, : SIZE // 4].mean() > sky[:, -SIZE // 4 :].mean()


def test_it_learns_a_bright_sky_over_a_dark_road_the_same_way_every_time() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((16, SIZE, SIZE), np.uint8)
    masks[:, : SIZE // 2] = 1
    pixels = np.where(masks[..., None] == 1, 220, 40).astype(np.uint8) + rng.integers(0, 9, (16, 1, 1, 3), np.uint8)
    first, second = (fit(pixels, masks, epochs=25, seed=1, classes=2, width=4).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    network = CompactNetwork(2, width=4).eval()
    network.load_state_dict(first)
    found, _ = CompactParser(network, ("road", "sky"), "cpu").maps(pixels)
    assert intersection_over_union(found, masks, classes=2).mean() > 0.6  # chance: 0.33


def test_a_trained_parser_is_a_model_directory_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "TRAINING_TOWNS", (9001,))
    monkeypatch.setattr(making, "TESTING_TOWNS", (9101,))
    scores = train_compact(tmp_path / "made", images=16, testing_images=2, epochs=1, width=4)
    parser = load_compact(tmp_path / "made", device="cpu")
    assert parser.classes == tuple(SIMULATED[name] for name in CLASSES) == tuple(scores)
    assert load_card(tmp_path / "made")["split"]["testing_towns"] == [9101]
    amounts = parser.parse(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    np.testing.assert_allclose(amounts.fraction.sum(axis=1), 1)
    assert np.isnan(amounts.count[:, parser.classes.index("sky")]).all()
    assert np.isfinite(amounts.count[:, parser.classes.index("car")]).all()


def test_the_packaged_parser_is_small_and_knows_towns_it_has_not_seen() -> None:
    assert (WEIGHTS / WEIGHTS_FILE).stat().st_size < 1_000_000
    parser = load_compact(device="cpu")
    pixels, masks = pictures_and_masks([9201], images=24)  # neither trained nor scored on
    found, _ = parser.maps(pixels)
    iou = intersection_over_union(found, masks, classes=len(CLASSES))
    stated = load_card(WEIGHTS)["scores"]["mean_iou"]
    assert np.nanmean(iou) > 0.4
    assert np.nanmean(iou) == pytest.approx(stated, abs=0.1)
    truth = np.stack([(masks == index).mean(axis=(1, 2)) for index in range(len(CLASSES))], axis=1)
    fraction = parser.parse(pixels).fraction
    for name in ("vegetation", "car", "road", "sky"):
        column = parser.classes.index(name)
        assert np.corrcoef(fraction[:, column], truth[:, column])[0, 1] > 0.8


def test_another_kind_of_model_and_missing_weights_are_one_sentence(tmp_path: Path) -> None:
    card = {**load_card(WEIGHTS), "architecture": "probe"}
    save_model(tmp_path / "probe", {"a": np.zeros(1, np.float32)}, card)
    with pytest.raises(InputError, match="holds a model of kind 'probe'"):
        load_compact(tmp_path / "probe")
    save_model(tmp_path / "odd", {"a": np.zeros(1, np.float32)}, load_card(WEIGHTS))
    with pytest.raises(InputError, match="does not fit the network of this release"):
        load_compact(tmp_path / "odd")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / CARD_FILE).write_bytes((WEIGHTS / CARD_FILE).read_bytes())
    with pytest.raises(MissingWeights, match=r"no weights\.safetensors"):
        load_compact(tmp_path / "bare")

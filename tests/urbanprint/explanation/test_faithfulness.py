"""Faithfulness: a map on the cues passes, one drawn without looking does not."""

import numpy as np
import pytest

from urbanprint.explanation.faithfulness import deletion_curve, energy_share, null_p_value

CUE = 3


def masks(n: int = 40, size: int = 16) -> np.ndarray:
    """A cue of a quarter of the pixels at another corner in each picture."""
    found = np.zeros((n, size, size), dtype=np.uint8)
    for i in range(n):
        y, x = (i % 2) * size // 2, (i // 2 % 2) * size // 2
        found[i, y : y + size // 2, x : x + size // 2] = CUE
    return found


def test_a_map_on_the_cue_alone_has_all_its_energy_there_whatever_its_sign() -> None:
    cues = masks()
    for sign in (1.0, -1.0):
        share = energy_share(sign * (cues == CUE), cues, [CUE])
        assert share.cam_share == pytest.approx(1.0)
        assert share.pixel_share == pytest.approx(0.25)
        assert share.faithful


def test_shares_follow_the_closed_form() -> None:
    cues = masks()
    share = energy_share(np.where(cues == CUE, -3.0, 1.0), cues, [CUE])
    assert share.cam_share == pytest.approx(3 * 0.25 / (3 * 0.25 + 0.75))
    assert (share.low, share.high) == (pytest.approx(0.25), pytest.approx(0.25))


def test_random_maps_are_not_faithful() -> None:
    rng = np.random.default_rng(0)
    verdicts = [energy_share(rng.normal(size=(40, 4, 4)), masks(), [CUE], seed=i).faithful for i in range(40)]
    assert np.mean(verdicts) < 0.15  # 2.5 % are expected


def test_a_map_that_points_nowhere_counts_as_neutral() -> None:
    share = energy_share(np.zeros((40, 4, 4)), masks(), [CUE])
    assert share.cam_share == share.pixel_share
    assert not share.faithful


def test_views_of_one_area_count_as_one_witness() -> None:
    rng = np.random.default_rng(1)
    maps = np.repeat(np.abs(rng.normal(size=(10, 4, 4))) + 0.1, 4, axis=0)
    cues = np.repeat(masks(10), 4, axis=0)
    single = energy_share(maps, cues, [CUE])
    grouped = energy_share(maps, cues, [CUE], groups=np.repeat(np.arange(10), 4).astype(str))
    assert grouped.cam_share == single.cam_share
    assert grouped.high - grouped.low > 1.5 * (single.high - single.low)


def test_a_map_on_the_cue_beats_every_random_map_and_a_random_one_does_not() -> None:
    rng = np.random.default_rng(2)
    null = [energy_share(rng.normal(size=(40, 4, 4)), masks(), [CUE]) for _ in range(19)]
    assert null_p_value(energy_share(masks() == CUE, masks(), [CUE]), null) == pytest.approx(1 / 20)
    assert null_p_value(min(null, key=lambda share: share.gap), null) == 1.0


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="3 maps and 40 masks"):
        energy_share(np.zeros((3, 4, 4)), masks(), [CUE])


def test_deleting_what_the_map_ranks_first_moves_the_prediction_fastest() -> None:
    """A model that reads the red of one corner: its true map empties it in a quarter of the pixels."""
    images = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    images[:, :8, :8, 0] = 200
    truth = (images[..., 0] > 0).astype(float)
    random = np.random.default_rng(0).normal(size=truth.shape)

    def predict(views: np.ndarray) -> np.ndarray:
        return views[..., 0].mean(axis=(1, 2)) / 255.0

    fill = np.zeros(3, dtype=np.uint8)
    right = deletion_curve(predict, images, truth, fill=fill, steps=8)
    chance = deletion_curve(predict, images, random, fill=fill, steps=8)
    assert right[0] == chance[0] == pytest.approx(200 / 255 / 4)
    assert right[2] == 0.0
    assert right[-1] == chance[-1] == 0.0
    assert right.mean() < 0.5 * chance.mean()

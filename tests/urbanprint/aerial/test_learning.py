"""Networks of tiles: what they learn is in the tile, what they are judged on is not what they saw."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from urbanprint.aerial import attention, learning, transfer
from urbanprint.errors import InputError
from urbanprint.models.imagewise import ImagewiseModel
from urbanprint.models.ordinal import Calibration
from urbanprint.settings import TileTraining

# Learns the tiles below in seconds.
TRAINING = TileTraining(
    backbone="mobilenet_v3_small",
    stages=2,
    weights="none",
    size=32,
    epochs=14,
    patience=14,
    batch_areas=16,
    learning_rate=1e-2,
    heads=("binomial", "cumulative"),
)


@pytest.fixture(scope="module")
def tiles(images: pd.DataFrame, incomes: pd.Series, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Tiles whose colour is their income."""
    folder = tmp_path_factory.mktemp("tiles")
    rank = incomes.rank(pct=True)
    rng = np.random.default_rng(0)
    paths = []
    for area_id in images["area_id"]:
        noise = rng.integers(0, 40, (32, 32, 3))
        noise[..., 2] += int(200 * rank[area_id])
        paths.append(folder / f"{area_id}.png")
        Image.fromarray(noise.astype(np.uint8)).save(paths[-1])
    return images.assign(path=[str(path) for path in paths])


@pytest.fixture(scope="module")
def fitted(
    tiles: pd.DataFrame, incomes: pd.Series, folds: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[learning.Fitted]]:
    splits = learning.honest_splits(folds, buffer_m=300)
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        head: list(learning.fit_splits(splits, tiles, incomes, folds, head=head, training=TRAINING, checkpoints=folder))
        for head in TRAINING.heads
    }


@pytest.mark.parametrize("head", TRAINING.heads)
def test_a_tile_that_shows_its_income_is_told_in_blocks_never_seen(
    fitted: dict[str, list[learning.Fitted]], incomes: pd.Series, head: str
) -> None:
    predictions = learning.held_out_predictions(fitted[head], incomes, model=head)
    assert len(predictions) == len(incomes)
    assert np.corrcoef(predictions["observed"], predictions["predicted"])[0, 1] > 0.6


def test_a_fold_is_calibrated_on_the_others_alone(
    fitted: dict[str, list[learning.Fitted]], incomes: pd.Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[set[int]] = []

    def remembered(others: list[learning.Fitted], _: pd.Series) -> Calibration:
        used.append({each.split.fold for each in others})
        return Calibration()

    monkeypatch.setattr(learning, "calibration_of", remembered)
    learning.held_out_predictions(fitted["binomial"], incomes, model="binomial")
    assert used == [{1}, {0}]


def test_a_saved_network_says_the_same(
    fitted: dict[str, list[learning.Fitted]], tiles: pd.DataFrame, tmp_path: Path
) -> None:
    from urbanprint.models.imagewise import load_imagewise

    card = {
        **dict.fromkeys(("data_version", "licence", "intended_use", "limits"), "of the test"),
        "split": {"block": 2},
        "scores": [],
    }
    for head, models in fitted.items():
        model = models[0].model
        again = load_imagewise(model.save(tmp_path / head, card))
        pd.testing.assert_frame_equal(again.predict(tiles), model.predict(tiles))


def test_a_network_without_an_ordinal_head_has_no_probabilities(fitted: dict[str, list[learning.Fitted]]) -> None:
    from urbanprint.models.imagewise import ImagewiseConfig, build

    plain = build(ImagewiseConfig(backbone="mobilenet_v3_small", weights="none", size=32), ("income",))
    with pytest.raises(InputError, match="train it with an ordinal head"):
        plain.probabilities(np.zeros((2, 1)))


def test_conurbations_teach_each_other_and_the_one_left_out(
    fitted: dict[str, list[learning.Fitted]],
    tiles: pd.DataFrame,
    incomes: pd.Series,
    folds: pd.DataFrame,
    tmp_path: Path,
) -> None:
    names = ("a", "b", "c")
    studies, own = {}, {}
    predictions = learning.held_out_predictions(fitted["binomial"], incomes, model="binomial")
    for name in names:
        renamed = {area: f"{name}-{area}" for area in incomes.index}
        studies[name] = transfer.Study(
            images=tiles.assign(
                area_id=tiles["area_id"].map(renamed),
                image_id=f"{name}-" + tiles["image_id"],
                sequence_id=f"{name}-" + tiles["sequence_id"],
            ),
            incomes=incomes.rename(index=renamed) * {"a": 1, "b": 2, "c": 3}[name],
            folds=folds.assign(area_id=folds["area_id"].map(renamed)),
        )
        own[name] = predictions.assign(area_id=predictions["area_id"].map(renamed))
    model: ImagewiseModel = fitted["binomial"][0].model
    table = transfer.transfer_table(
        studies,
        own=own,
        model_of=lambda _: model,
        training=TRAINING,
        head="binomial",
        checkpoints=tmp_path,
        seed=1,
    ).set_index(["trained_on", "tested_on"])
    assert len(table) == 12
    assert (table["value"] > 0.7).all()
    assert (table["low"] < table["value"]).all()


def test_a_cell_in_two_conurbations_is_refused(tiles: pd.DataFrame, incomes: pd.Series, folds: pd.DataFrame) -> None:
    study = transfer.Study(images=tiles, incomes=incomes, folds=folds)
    with pytest.raises(InputError, match="is in two conurbations"):
        transfer.transfer_table(
            {"a": study, "b": study},
            own={},
            model_of=pytest.fail,
            training=TRAINING,
            head="binomial",
            checkpoints=Path(),
            seed=1,
        )


@pytest.mark.parametrize("method", ["grad-cam", "guided-grad-cam", "integrated"])
def test_the_rich_end_looks_at_what_raises_income_and_the_poor_end_at_the_rest(
    fitted: dict[str, list[learning.Fitted]],
    tiles: pd.DataFrame,
    folds: pd.DataFrame,
    tmp_path: Path,
    method: attention.Method,
) -> None:
    """Blue is rich: of tiles that are blue on one side alone, the rich end looks at that side."""
    rng = np.random.default_rng(1)
    left = np.arange(len(tiles)) % 2 == 0
    paths = []
    for number, blue_left in enumerate(left):
        pixels = rng.integers(0, 40, (32, 32, 3))
        pixels[:, :16, 2] += 200 * blue_left
        pixels[:, 16:, 2] += 200 * (not blue_left)
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    models = {each.split.fold: each.model for each in fitted["binomial"]}
    maps = attention.end_maps(tiles.assign(path=paths), folds, model_of=models.__getitem__, method=method)
    for end in attention.ENDS:
        assert (maps[end] >= 0).all()
    half = maps["rich"].shape[2] // 2
    share = maps["rich"][:, :, :half].sum(axis=(1, 2)) / maps["rich"].sum(axis=(1, 2))
    assert np.nanmean(np.where(left, share, 1 - share)) > 0.6

"""The training loop: it learns, masks, stops, refuses what leaks, and resumes as if it had never been killed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from urbanprint.errors import InputError, LeakingSplit, MissingImages
from urbanprint.models import training
from urbanprint.models.imagewise import EpochRecord, ImagewiseConfig, ImagewiseModel
from urbanprint.models.ordinal import BinomialHead
from urbanprint.models.training import augment, learning_rate_at, masked_loss, train, turned

CONFIG = ImagewiseConfig(
    backbone="shufflenet_v2_x0_5",
    weights="none",
    size=32,
    views=2,
    epochs=2,
    batch_areas=4,
    learning_rate=2e-3,
    dropout=0.2,
    patience=3,
    workers=1,
    device="cpu",
    checkpoint_seconds=0.0,
)
AREAS = [f"a{i:02d}" for i in range(24)]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """24 areas of three views whose amount of green falls with deprivation; half of the crime ranks are unknown."""
    folder, rng = tmp_path_factory.mktemp("town"), np.random.default_rng(0)
    deprivation = rng.permutation(np.linspace(0, 1, len(AREAS)))
    rows = []
    for area, level in zip(AREAS, deprivation, strict=True):
        for view in range(3):
            pixels = rng.integers(60, 120, (32, 32, 3), dtype=np.uint8)
            pixels[: round(28 * (1 - level)) + 2] = (40, 190, 40)
            path = folder / f"{area}_{view}.png"
            Image.fromarray(pixels).save(path)
            rows.append({"image_id": f"{area}_{view}", "area_id": area, "path": str(path)})
    labels = pd.DataFrame({"imd": deprivation, "crime": 1 - deprivation}, index=AREAS)
    labels.loc[AREAS[::2], "crime"] = np.nan
    return pd.DataFrame(rows), labels


def run(
    town: tuple[pd.DataFrame, pd.DataFrame], checkpoint: Path, config: ImagewiseConfig = CONFIG, **options: Any
) -> ImagewiseModel:
    images, labels = town
    split: dict[str, Any] = {"train_areas": AREAS[:18], "validation_areas": AREAS[18:]}
    return train(images, labels, config=config, checkpoint=checkpoint, **(split | options))


def same_weights(one: ImagewiseModel, other: ImagewiseModel) -> bool:
    theirs = other.network.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.network.state_dict().items())


# --- pieces ---------------------------------------------------------------------------------------------------------


def test_the_loss_is_cross_entropy_over_known_labels_only() -> None:
    logits = torch.tensor([[0.3, -2.0], [1.0, 5.0]], requires_grad=True)
    labels = torch.tensor([[0.9, float("nan")], [float("nan"), 0.2]])
    loss = masked_loss(logits, labels)
    p = torch.sigmoid(logits.detach())
    by_hand = [-(y * torch.log(q) + (1 - y) * torch.log(1 - q)) for y, q in ((0.9, p[0, 0]), (0.2, p[1, 1]))]
    torch.testing.assert_close(loss.detach(), sum(by_hand) / 2)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == logits.grad[1, 0] == 0.0


def test_the_loss_of_no_known_label_is_zero() -> None:
    assert masked_loss(torch.zeros(2, 1), torch.full((2, 1), float("nan"))) == 0.0


def test_an_ordinal_head_judges_the_known_classes_by_its_own_loss() -> None:
    outputs = torch.tensor([[0.3], [-1.0], [2.0]], requires_grad=True)
    labels = torch.tensor([[4.0], [float("nan")], [0.0]])
    head = BinomialHead(5)
    loss = masked_loss(outputs, labels, loss="binomial", ordinal=head)
    torch.testing.assert_close(loss, head.loss(outputs[[0, 2]], torch.tensor([4, 0])))
    # Up to a constant it is K - 1 times the cross-entropy with the class as a share.
    soft = masked_loss(outputs, labels / 4)
    (of_head,) = torch.autograd.grad(loss, outputs, retain_graph=True)
    (of_soft,) = torch.autograd.grad(soft, outputs)
    torch.testing.assert_close(of_head, 4 * of_soft)
    nothing = masked_loss(outputs, torch.full((3, 1), float("nan")), loss="binomial", ordinal=head)
    assert nothing == 0.0


def test_squares_are_turned_in_all_eight_ways_and_keep_their_pixels() -> None:
    square = torch.arange(9.0).reshape(1, 1, 3, 3).expand(400, 3, 3, 3)
    views = turned(square, torch.Generator().manual_seed(0))
    ways = {tuple(view[0].flatten().tolist()) for view in views}
    assert len(ways) == 8
    assert all(sorted(way) == list(range(9)) for way in ways)


def test_the_learning_rate_rises_to_its_peak_once_and_falls_to_almost_nothing() -> None:
    rates = np.array([learning_rate_at(p, peak=2.0) for p in np.linspace(0, 1, 401)])
    top = rates.argmax()
    assert rates[top] == pytest.approx(2.0, rel=1e-3)
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert rates[-1] == pytest.approx(0.02)


def sided_views() -> torch.Tensor:
    """Dark on the left, bright on the right, in every channel."""
    return torch.linspace(-1, 1, 32).expand(64, 3, 32, 32).clone()


def test_augmentation_never_mirrors_and_keeps_the_shape() -> None:
    views = augment(sided_views(), torch.Generator().manual_seed(0))
    assert views.shape == (64, 3, 32, 32)
    halves = views[..., 16:].mean(dim=(1, 2, 3)) - views[..., :16].mean(dim=(1, 2, 3))
    assert (halves > 0.3).all()


def test_augmentation_differs_between_views_and_repeats_with_its_generator() -> None:
    first, again, other = (augment(sided_views(), torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_augmentation_erases_in_about_half_of_the_views() -> None:
    views = augment(torch.full((400, 3, 32, 32), 5.0), torch.Generator().manual_seed(0))
    erased = (views == 0.0).float().mean(dim=(1, 2, 3))
    assert 0.4 < (erased > 0).float().mean() < 0.6
    assert erased.max() < 0.12


# --- learning -------------------------------------------------------------------------------------------------------


def test_it_learns_what_the_pictures_show_and_keeps_the_best_epoch(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    records: list[EpochRecord] = []
    config = replace(CONFIG, backbone="resnet18", epochs=6, checkpoint_seconds=60.0)
    model = run(town, tmp_path / "c.pt", config, on_epoch=records.append)
    images, labels = town
    unseen = images[images["area_id"].isin(AREAS[18:])]
    predicted = model.predict(unseen).set_index("area_id")
    error = ((predicted["imd"] - labels.loc[AREAS[18:], "imd"]) ** 2).mean()
    assert error < 0.5 * labels.loc[AREAS[18:], "imd"].var(ddof=0)
    assert np.corrcoef(predicted["imd"], predicted["crime"])[0, 1] < -0.5
    best = min(records, key=lambda record: record.validation_loss)
    assert best == [record for record in records if record.best][-1]
    by_hand = np.nanmean((predicted - labels.loc[predicted.index, ["imd", "crime"]]).to_numpy() ** 2)
    assert best.validation_loss == pytest.approx(by_hand, rel=1e-4)


def test_without_learning_it_predicts_the_mean_of_each_indicator(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    config = replace(CONFIG, epochs=1, learning_rate=1e-9)
    predicted = run(town, tmp_path / "c.pt", config).predict(town[0]).set_index("area_id")
    mean = town[1].loc[AREAS[:18]].mean()
    assert (predicted - mean).abs().to_numpy().max() < 0.1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    config = replace(CONFIG, epochs=1)
    first = run(town, tmp_path / "1.pt", config)
    assert same_weights(first, run(town, tmp_path / "2.pt", replace(config, workers=3)))
    assert not same_weights(first, run(town, tmp_path / "3.pt", replace(config, seed=1)))


def test_it_stops_when_the_validation_areas_no_longer_gain(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([0.5, 0.3, 0.4, 0.35, 0.1])
    monkeypatch.setattr(training, "_validate", lambda *_, **__: (next(errors), 0.0))
    model = run(town, tmp_path / "c.pt", replace(CONFIG, epochs=5, patience=2))
    assert [record.best for record in model.history] == [True, True, False, False]


def test_without_validation_areas_every_epoch_runs(town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    model = run(town, tmp_path / "c.pt", replace(CONFIG, epochs=2, patience=1), validation_areas=[])
    assert [record.best for record in model.history] == [True, True]
    assert np.isnan(model.history[-1].validation_loss)


def test_frozen_stages_keep_their_weights_and_statistics(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    config = replace(CONFIG, backbone="resnet18", epochs=1, frozen_stages=2)
    before = training.build(config, ("imd", "crime")).network.state_dict()
    after = run(town, tmp_path / "c.pt", config).network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))]
    assert {"backbone.layer2.0.conv1.weight", "backbone.layer4.1.bn2.running_mean", "head.weight"} <= changed


def test_the_statistics_of_batch_normalisation_keep_up_with_a_short_training(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    """MobileNetV3 publishes 0.01, which still remembers the untrained network when a demo's training is over."""
    network = run(town, tmp_path / "c.pt", replace(CONFIG, epochs=1)).network
    assert min(m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)) >= 0.1


# --- being killed ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def killed_after(epoch: int) -> Any:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Killed

    return on_epoch


def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    whole = run(town, tmp_path / "whole.pt")
    with pytest.raises(Killed):
        run(town, tmp_path / "killed.pt", on_epoch=killed_after(0))
    seen: list[EpochRecord] = []
    resumed = run(town, tmp_path / "killed.pt", on_epoch=seen.append)
    assert same_weights(whole, resumed)
    assert [record.epoch for record in seen] == [0, 1]
    assert [record.train_loss for record in seen] == [record.train_loss for record in whole.history]


def test_a_finished_training_is_not_repeated(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(town, tmp_path / "c.pt")
    monkeypatch.setattr(training, "_train_epoch", None)
    again = run(town, tmp_path / "c.pt")
    assert same_weights(first, again)
    assert again.history == first.history
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("change", ["config", "labels", "areas"])
def test_the_checkpoint_of_another_training_is_not_resumed(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, change: str
) -> None:
    images, labels = town
    config = replace(CONFIG, epochs=1)
    first = run(town, tmp_path / "c.pt", config)
    others: dict[str, tuple[Any, ImagewiseConfig, dict[str, Any]]] = {
        "config": (town, replace(config, learning_rate=1e-3), {}),
        "labels": ((images, labels.assign(imd=labels["imd"] ** 2)), config, {}),
        "areas": (town, config, {"train_areas": AREAS[:17]}),
    }
    other_town, other_config, options = others[change]
    other = run(other_town, tmp_path / "c.pt", other_config, **options)
    assert not same_weights(first, other)
    assert same_weights(other, run(other_town, tmp_path / "c.pt", other_config, **options))  # now it holds this one


def test_a_damaged_checkpoint_is_named(town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"c\.pt is damaged"):
        run(town, tmp_path / "c.pt")


def test_views_that_do_not_fit_in_memory_train_the_same_from_a_mapped_file(
    town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, epochs=1)
    in_memory = run(town, tmp_path / "1.pt", config)
    monkeypatch.setattr(training, "IN_MEMORY_BYTES", 0)
    assert same_weights(in_memory, run(town, tmp_path / "2.pt", config))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.pt", "2.pt"]


# --- refusals -------------------------------------------------------------------------------------------------------


def test_an_area_in_both_parts_leaks(town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(LeakingSplit, match="1 areas are in training and in validation: a17"):
        run(town, tmp_path / "c.pt", validation_areas=AREAS[17:])


def test_an_area_without_images_or_labels_is_named(town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    images, labels = town
    with pytest.raises(MissingImages, match="1 validation areas have 0 images and need at least 1: a20"):
        run((images[images["area_id"] != "a20"], labels), tmp_path / "c.pt")
    with pytest.raises(InputError, match="1 training areas have no row of labels: a03"):
        run((images, labels.drop("a03")), tmp_path / "c.pt")


def test_an_indicator_nobody_has_is_named(town: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="indicator 'crime' is known in no training area"):
        run((town[0], town[1].assign(crime=np.nan)), tmp_path / "c.pt")

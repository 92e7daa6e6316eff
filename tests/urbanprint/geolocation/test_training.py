"""The training loop: both designs learn, it stops, and it resumes as if it had never been killed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from urbanprint.errors import InputError, MissingImages
from urbanprint.geolocation import training
from urbanprint.geolocation.datasets import true_labels
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.network import CellClassifier, CellEpoch, GeolocationConfig
from urbanprint.geolocation.training import sampling_weights, train_classifier
from urbanprint.imagery.decoding import decode_many
from urbanprint.models import training as imagewise_training


@pytest.fixture(scope="module")
def short(config: GeolocationConfig) -> GeolocationConfig:
    """Two epochs of everything that draws: dropout, augmentation, mixing, mirroring, sampling, a held-out part."""
    return replace(
        config,
        epochs=2,
        batch=24,
        dropout=0.2,
        cutmix=0.5,
        augment=True,
        mirror=True,
        sampling="balanced",
        validation_share=0.2,
        checkpoint_seconds=0.0,
    )


@pytest.fixture
def run(parts: dict[str, pd.DataFrame], tree: Hierarchy, short: GeolocationConfig) -> Any:
    def train(checkpoint: Path, config: GeolocationConfig = short, **options: Any) -> CellClassifier:
        images = options.pop("images", parts["train"])
        settings: dict[str, Any] = {"design": "joint", "level": None} | options
        return train_classifier(images, tree, config=config, checkpoint=checkpoint, **settings)

    return train


def same_weights(one: CellClassifier, other: CellClassifier) -> bool:
    theirs = other.network.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.network.state_dict().items())


# --- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["L1", "L3", "L5", "joint"])
def test_both_designs_learn_what_the_photographs_show(
    classifiers: dict[str, CellClassifier], parts: dict[str, pd.DataFrame], name: str
) -> None:
    model, unseen = classifiers[name], parts["test"]
    views = decode_many([Path(path) for path in unseen["path"]], size=32, threads=1)
    true = true_labels(model.hierarchy, unseen)[:, model.hierarchy.numbers.index(model.level)]
    assert (model.logits(views).argmax(axis=1) == true).mean() >= 0.95
    assert model.history[-1].train_loss < model.history[0].train_loss
    assert np.isnan(model.history[-1].validation_loss)


def test_without_learning_it_predicts_how_often_each_class_is_drawn(
    run: Any, parts: dict[str, pd.DataFrame], tree: Hierarchy, config: GeolocationConfig, tmp_path: Path
) -> None:
    model = run(tmp_path / "c.pt", replace(config, epochs=1, batch=48, learning_rate=1e-9))
    views = decode_many([Path(path) for path in parts["test"]["path"]], size=32, threads=1)
    predicted = torch.softmax(torch.from_numpy(model.logits(views)), dim=1).mean(dim=0)
    share = np.bincount(true_labels(tree, parts["train"])[:, -1]) / len(parts["train"])
    np.testing.assert_allclose(predicted, share, atol=0.05)


def test_the_validation_figures_are_those_of_the_images_held_out(
    run: Any, parts: dict[str, pd.DataFrame], tree: Hierarchy, short: GeolocationConfig, tmp_path: Path
) -> None:
    model = run(tmp_path / "c.pt", design="level", level=5)
    held_out = training.deal_parts(parts["train"], seed=short.seed, shares={"train": 0.8, "validation": 0.2})
    unseen = parts["train"][held_out == "validation"]
    views = decode_many([Path(path) for path in unseen["path"]], size=32, threads=1)
    logits, true = torch.from_numpy(model.logits(views)), torch.from_numpy(true_labels(tree, unseen)[:, -1])
    best = next(epoch for epoch in reversed(model.history) if epoch.best)
    assert best.validation_accuracy == pytest.approx(float((logits.argmax(dim=1) == true).float().mean()))
    assert best.validation_loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, true)), rel=1e-4)
    assert best.validation_loss == min(epoch.validation_loss for epoch in model.history)


def test_it_stops_when_the_images_held_out_no_longer_gain(
    run: Any, short: GeolocationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.5, 0.3, 0.4, 0.35, 0.1])
    monkeypatch.setattr(training, "_train_epoch", lambda *_, **__: 1.0)
    monkeypatch.setattr(training, "_validate", lambda *_, **__: (next(losses), 0.0))
    model = run(tmp_path / "c.pt", replace(short, epochs=5, patience=2))
    assert [epoch.best for epoch in model.history] == [True, True, False, False]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    run: Any, parts: dict[str, pd.DataFrame], short: GeolocationConfig, tmp_path: Path
) -> None:
    config = replace(short, epochs=1)
    first = run(tmp_path / "1.pt", config)
    shuffled = parts["train"].sample(frac=1, random_state=0)
    assert same_weights(first, run(tmp_path / "2.pt", replace(config, workers=3), images=shuffled))
    assert not same_weights(first, run(tmp_path / "3.pt", replace(config, seed=1)))


def test_images_that_do_not_fit_in_memory_train_the_same_from_a_mapped_file(
    run: Any, short: GeolocationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(short, epochs=1)
    in_memory = run(tmp_path / "1.pt", config)
    monkeypatch.setattr(imagewise_training, "IN_MEMORY_BYTES", 0)
    assert same_weights(in_memory, run(tmp_path / "2.pt", config))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.pt", "2.pt"]


# --- sampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampling", "of_class"),
    [
        ("balanced", [1 / 3, 1 / 3, 0.0, 1 / 3]),
        # (1 - b) / (1 - b^n) with b = 0.999 is, for counts this small, all but 1 / n.
        ("effective-number", [1 / 3, 1 / 3, 0.0, 1 / 3]),
    ],
)
def test_rare_classes_are_drawn_more_often(config: GeolocationConfig, sampling: Any, of_class: list[float]) -> None:
    labels = np.repeat([0, 1, 3], [1, 2, 7])
    weights = sampling_weights(labels, 4, replace(config, sampling=sampling))
    assert weights is not None
    np.testing.assert_allclose(np.bincount(labels, weights, minlength=4), of_class, atol=0.002)


def test_the_effective_number_evens_out_less_than_balance_where_classes_are_large(config: GeolocationConfig) -> None:
    labels = np.repeat([0, 1], [2_000, 20_000])
    weights = sampling_weights(labels, 2, replace(config, sampling="effective-number"))
    assert weights is not None
    share = np.bincount(labels, weights)[0]
    effective = [1 - 0.999**n for n in (2_000, 20_000)]
    assert share == pytest.approx(2_000 / effective[0] / (2_000 / effective[0] + 20_000 / effective[1]))
    assert sampling_weights(labels, 2, config) is None


# --- being killed ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("design", ["level", "joint"])
def test_a_killed_training_resumes_and_ends_with_the_same_weights(run: Any, tmp_path: Path, design: str) -> None:
    def kill(epoch: CellEpoch) -> None:
        if epoch.epoch == 0:
            raise Killed

    options = {"design": design, "level": 3 if design == "level" else None}
    whole = run(tmp_path / "whole.pt", **options)
    with pytest.raises(Killed):
        run(tmp_path / "killed.pt", on_epoch=kill, **options)
    seen: list[CellEpoch] = []
    resumed = run(tmp_path / "killed.pt", on_epoch=seen.append, **options)
    assert same_weights(whole, resumed)
    assert [epoch.epoch for epoch in seen] == [0, 1]
    assert [epoch.train_loss for epoch in seen] == [epoch.train_loss for epoch in whole.history]


def test_a_finished_training_is_not_repeated_and_one_of_another_kind_is_not_resumed(
    run: Any, short: GeolocationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(short, epochs=1)
    first = run(tmp_path / "c.pt", config)
    trained: list[int] = []
    train_epoch = training._train_epoch

    def counted(*arguments: Any, epoch: int, **options: Any) -> float:
        trained.append(epoch)
        return train_epoch(*arguments, epoch=epoch, **options)

    monkeypatch.setattr(training, "_train_epoch", counted)
    again = run(tmp_path / "c.pt", replace(config, workers=2))
    assert same_weights(first, again)
    assert again.history == first.history
    assert not trained
    run(tmp_path / "c.pt", replace(config, tau_km=50.0))
    run(tmp_path / "c.pt", replace(config, tau_km=50.0), design="level", level=5)
    assert trained == [0, 0]


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_and_too_few_images_are_named(
    run: Any, parts: dict[str, pd.DataFrame], config: GeolocationConfig, tmp_path: Path
) -> None:
    (tmp_path / "c.pt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"c\.pt is damaged"):
        run(tmp_path / "c.pt")
    with pytest.raises(MissingImages, match="5 training images are too few to train on: at least one batch of 12"):
        run(tmp_path / "d.pt", config, images=parts["train"][:5])

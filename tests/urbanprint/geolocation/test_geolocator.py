"""The whole system, both designs: coherent, calibrated, honest about what it does not know, and the same from disk."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError, LeakingSplit
from urbanprint.geolocation.datasets import class_ids, true_labels
from urbanprint.geolocation.geolocator import Answer, Geolocator, fit_geolocator, load_geolocator
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.network import CellClassifier
from urbanprint.geolocation.probabilities import adaptive_k, joint, old_fusion
from urbanprint.geolocation.sphere import haversine_km
from urbanprint.models.card import CARD_FILE, REQUIRED

DESIGNS = ("level", "joint")
CARD: dict[str, Any] = dict.fromkeys(REQUIRED, "stated")


def paths(images: pd.DataFrame) -> list[Path]:
    return [Path(path) for path in images["path"]]


@pytest.fixture(scope="module")
def systems(classifiers: dict[str, CellClassifier], parts: dict[str, pd.DataFrame]) -> dict[str, Geolocator]:
    """The fitted system of each design."""
    by_design = {design: [c for c in classifiers.values() if c.design == design] for design in DESIGNS}
    return {
        design: fit_geolocator(chosen[::-1], training=parts["train"], calibration=parts["calibration"])
        for design, chosen in by_design.items()
    }


@pytest.fixture(scope="module")
def logits(systems: dict[str, Geolocator], parts: dict[str, pd.DataFrame]) -> dict[str, list[np.ndarray]]:
    """What each system makes of the test photographs."""
    return {design: system.read_logits(paths(parts["test"])) for design, system in systems.items()}


def unsure(system: Geolocator, *, images: int = 40, seed: int = 0, scale: float = 1.5) -> list[np.ndarray]:
    """Random logits, as of photographs the model knows nothing of."""
    rng = np.random.default_rng(seed)
    found = [scale * rng.normal(size=(images, len(level))) for level in system.hierarchy.levels]
    return found if system.design == "level" else joint(found[-1], system.hierarchy)


# --- probabilities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
def test_children_sum_to_their_parents_and_levels_to_one(
    systems: dict[str, Geolocator], logits: dict[str, list[np.ndarray]], design: str
) -> None:
    system = systems[design]
    for values in (logits[design], unsure(system)):
        above = np.ones((len(values[0]), 1))
        for level, log_p in zip(system.hierarchy.levels, system.log_probabilities(values), strict=True):
            sums = np.stack([np.exp(log_p[:, level.parents == p]).sum(axis=1) for p in range(above.shape[1])], axis=1)
            np.testing.assert_allclose(sums, above, atol=1e-6)
            above = np.exp(log_p)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_true_cells_are_found_and_the_positions_are_near(
    systems: dict[str, Geolocator],
    logits: dict[str, list[np.ndarray]],
    parts: dict[str, pd.DataFrame],
    design: str,
) -> None:
    system, test = systems[design], parts["test"]
    log_p = system.log_probabilities(logits[design])
    for values, true in zip(log_p, true_labels(system.hierarchy, test).T, strict=True):
        assert (values.argmax(axis=1) == true).mean() >= 0.95
    found = system.positions(log_p)
    km = haversine_km(test["longitude"], test["latitude"], found.longitude, found.latitude)
    assert np.median(km) < 400.0  # cells of L5 are 600 x 1,200 km, their towns up to 400 km apart
    assert (km <= found.radius_km).mean() >= 0.9


def test_temperatures_are_those_of_the_calibration_part_and_the_errors_say_what_they_changed(
    systems: dict[str, Geolocator], logits: dict[str, list[np.ndarray]], parts: dict[str, pd.DataFrame]
) -> None:
    labels = true_labels(systems["joint"].hierarchy, parts["test"])
    for design in DESIGNS:
        table = systems[design].calibration_errors(logits[design], labels)
        assert table["level"].tolist() == [1, 3, 5]
        assert table[["before", "after"]].to_numpy().min() >= 0.0
        plain = replace(systems[design], temperatures=(1.0, 1.0, 1.0)).calibration_errors(logits[design], labels)
        assert plain["after"].tolist() == plain["before"].tolist() == table["before"].tolist()


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
def test_an_answer_says_what_the_probabilities_say(systems: dict[str, Geolocator], design: str) -> None:
    system = systems[design]
    values = unsure(system)
    log_p = system.log_probabilities(values)
    names = [class_ids(level).tolist() for level in system.hierarchy.levels]
    for image, answer in enumerate(system.answers(values, confidence=0.6)):
        probability = [dict(zip(known, np.exp(v[image]), strict=True)) for known, v in zip(names, log_p, strict=True)]
        assert list(answer.candidates) == [1, 3, 5]
        for number, candidates in enumerate(answer.candidates.values()):
            assert [c.probability for c in candidates] == sorted([c.probability for c in candidates], reverse=True)
            assert all(c.probability == pytest.approx(probability[number][c.cell]) for c in candidates)
            assert len(candidates) <= adaptive_k(np.array(candidates[0].probability), len(names[number]))
        sure_enough = [c for of_level in probability for c, p in of_level.items() if p >= 0.6]
        assert answer.sure.cell == (sure_enough[-1] if sure_enough else "the Earth")
        finest = [c for c, p in probability[2].items() if np.log(p) >= system.thresholds[2]]
        best = max(probability[2], key=lambda cell: probability[2][cell])
        assert {c.cell for c in answer.cells} == {*finest, best}
        assert answer.cells_level == 5


@pytest.mark.parametrize("design", DESIGNS)
def test_a_capped_system_tells_nothing_finer(systems: dict[str, Geolocator], design: str) -> None:
    system = systems[design].capped(3)
    values = unsure(system, scale=6.0)
    told = []
    for answer in system.answers(values):
        told += [answer.sure.cell, *(c.cell for c in answer.cells)]
        told += [c.cell for candidates in answer.candidates.values() for c in candidates]
    assert {len(cell.split("/")) for cell in told} == {1, 3}
    coarse = {(x, y) for x, y in zip(system.circles[1].longitude, system.circles[1].latitude, strict=True)}
    certain = [np.zeros((1, len(level))) for level in system.hierarchy.levels]
    for level, logit in zip(system.hierarchy.levels, certain, strict=True):
        logit[0, 0] = 500.0 if level.number else 0.0
    answer = system.answers(certain)[0]
    assert min(haversine_km(answer.longitude, answer.latitude, x, y) for x, y in coarse) < 1.0
    assert system.capped(5).finest == 3
    with pytest.raises(InputError, match="finest = 0: the coarsest level is 1"):
        system.capped(0)


def test_a_set_is_told_at_the_finest_level_that_can_keep_its_promise(systems: dict[str, Geolocator]) -> None:
    system = systems["joint"]
    values = unsure(system)
    coarser = replace(system, thresholds=(*system.thresholds[:2], -np.inf))
    assert {answer.cells_level for answer in coarser.answers(values)} == {3}
    none = replace(system, thresholds=(-np.inf,) * 3)
    assert {(answer.cells_level, len(answer.cells)) for answer in none.answers(values)} == {(1, 2)}


def test_photographs_of_another_world_get_wide_answers_from_an_unsure_model(systems: dict[str, Geolocator]) -> None:
    system = systems["level"]
    flat = [np.zeros((1, len(level))) for level in system.hierarchy.levels]
    cautious = replace(system, thresholds=tuple(np.log(0.05) for _ in system.thresholds))
    answer = cautious.answers(flat)[0]
    assert answer.sure.cell == "the Earth"
    assert len(answer.cells) == 8
    assert answer.radius_km > 5_000.0


def test_paths_and_pixels_get_the_same_answers(
    systems: dict[str, Geolocator], parts: dict[str, pd.DataFrame], logits: dict[str, list[np.ndarray]]
) -> None:
    system = systems["level"]
    assert system.locate(paths(parts["test"])[:5]) == system.answers([values[:5] for values in logits["level"]])
    assert system.locate([]) == []


# --- the comparator -------------------------------------------------------------------------------------------------


def test_the_old_fusion_multiplies_logits_under_the_parents_it_keeps(systems: dict[str, Geolocator]) -> None:
    system = systems["level"]
    values = unsure(system, scale=3.0)
    scores = system.fused_scores(values)
    full = old_fusion(values, system.hierarchy)[-1]
    kept = np.isfinite(scores)
    np.testing.assert_array_equal(scores[kept], full[kept])
    assert 0.0 < kept.mean() < 1.0
    leaves = system.hierarchy.levels[-1]
    for row in kept:  # whole families are kept or none of it
        assert set(leaves.parents[row]).isdisjoint(leaves.parents[~row])
    found = system.fused_positions(values)
    best = scores.argmax(axis=1)
    np.testing.assert_array_equal(found.longitude, system.circles[-1].longitude[best])
    with pytest.raises(InputError, match="the joint design has none"):
        systems["joint"].fused_scores(values)


def test_the_old_fusion_is_capped_too(systems: dict[str, Geolocator]) -> None:
    values = unsure(systems["level"])
    assert systems["level"].capped(3).fused_scores(values).shape == (40, 4)
    np.testing.assert_array_equal(systems["level"].capped(1).fused_scores(values), values[0])


# --- on disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
def test_a_system_comes_back_from_disk_with_equal_answers(
    systems: dict[str, Geolocator], parts: dict[str, pd.DataFrame], tmp_path: Path, design: str
) -> None:
    system = replace(systems[design], thresholds=(*systems[design].thresholds[:2], -np.inf))
    folder = system.save(tmp_path / "geolocator", CARD)
    again = load_geolocator(folder, device="cpu")
    asked = paths(parts["test"])[::6]
    assert again.locate(asked) == system.locate(asked)
    for before, after in zip(system.circles, again.circles, strict=True):
        for name in ("longitude", "latitude", "radius_km"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert again.thresholds == system.thresholds
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "weights.safetensors"]


def test_the_cap_of_a_saved_system_can_only_become_coarser(systems: dict[str, Geolocator], tmp_path: Path) -> None:
    folder = systems["joint"].capped(3).save(tmp_path / "geolocator", CARD)
    assert load_geolocator(folder).finest == 3
    assert load_geolocator(folder, finest=5).finest == 3
    assert load_geolocator(folder, finest=1).finest == 1
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps({**card, "architecture": "imagewise"}))
    with pytest.raises(InputError, match="'geolocator' is expected"):
        load_geolocator(folder)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_calibration_images_the_training_knows_are_refused(
    classifiers: dict[str, CellClassifier], parts: dict[str, pd.DataFrame]
) -> None:
    leaking = parts["train"].assign(image_id="again " + parts["train"]["image_id"])
    with pytest.raises(LeakingSplit, match="sequences are in several"):
        fit_geolocator([classifiers["joint"]], training=parts["train"], calibration=leaking)


def test_classifiers_that_are_no_system_are_refused(
    classifiers: dict[str, CellClassifier],
    parts: dict[str, pd.DataFrame],
    make_tree: Callable[[int], Hierarchy],
) -> None:
    def fit(*chosen: CellClassifier) -> Geolocator:
        return fit_geolocator(chosen, training=parts["train"], calibration=parts["calibration"])

    one, three, five = (classifiers[name] for name in ("L1", "L3", "L5"))
    with pytest.raises(InputError, match="without classifiers"):
        fit()
    with pytest.raises(InputError, match="The classifiers are L1, L5, where L1, L3, L5 are expected"):
        fit(one, five)
    with pytest.raises(InputError, match=r"The classifiers are (joint, L5|L5, joint)"):
        fit(classifiers["joint"], five)
    with pytest.raises(InputError, match="L5 takes images of 64 pixels and L1 of 32"):
        fit(one, three, replace(five, config=replace(five.config, size=64)))
    other = Hierarchy.from_levels({1: np.array([0]), 3: np.array([0]), 5: np.array([0])})
    with pytest.raises(InputError, match="L5 and L1 were trained on different classes"):
        fit(one, three, replace(five, hierarchy=other))


def test_an_answer_is_made_of_plain_values(systems: dict[str, Geolocator]) -> None:
    answer = systems["joint"].answers(unsure(systems["joint"], images=1))[0]
    assert isinstance(answer, Answer)
    assert {type(value) for value in (answer.longitude, answer.radius_km, answer.sure.probability)} == {float}

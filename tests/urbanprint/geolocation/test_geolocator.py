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
from urbanprint.geolocation import geolocator as module
from urbanprint.geolocation.datasets import class_ids, true_labels
from urbanprint.geolocation.geolocator import Answer, Geolocator, Seen, fit_geolocator, load_geolocator
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.network import CellClassifier
from urbanprint.geolocation.probabilities import adaptive_k, joint, old_fusion
from urbanprint.geolocation.sphere import FARTHEST_KM, haversine_km
from urbanprint.imagery.decoding import decode_many
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
    return {design: list(system.read(paths(parts["test"])).level_logits) for design, system in systems.items()}


def unsure(system: Geolocator, *, images: int = 40, seed: int = 0, scale: float = 1.5) -> list[np.ndarray]:
    """Random logits, as of photographs the model knows nothing of."""
    rng = np.random.default_rng(seed)
    found = [scale * rng.normal(size=(images, len(level))) for level in system.hierarchy.levels]
    return found if system.design == "level" else joint(found[-1], system.hierarchy)


def ordinary(level_logits: list[np.ndarray]) -> Seen:
    """Photographs with these logits that are as like the training ones as can be."""
    return Seen(level_logits=level_logits, familiar=np.ones(len(level_logits[0])))


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
    for image, answer in enumerate(system.answers(ordinary(values), confidence=0.6)):
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
    for answer in system.answers(ordinary(values)):
        told += [answer.sure.cell, *(c.cell for c in answer.cells)]
        told += [c.cell for candidates in answer.candidates.values() for c in candidates]
    assert {len(cell.split("/")) for cell in told} == {1, 3}
    coarse = {(x, y) for x, y in zip(system.circles[1].longitude, system.circles[1].latitude, strict=True)}
    certain = [np.zeros((1, len(level))) for level in system.hierarchy.levels]
    for level, logit in zip(system.hierarchy.levels, certain, strict=True):
        logit[0, 0] = 500.0 if level.number else 0.0
    answer = system.answers(ordinary(certain))[0]
    assert min(haversine_km(answer.longitude, answer.latitude, x, y) for x, y in coarse) < 1.0
    assert system.capped(5).finest == 3
    with pytest.raises(InputError, match="finest = 0: the coarsest level is 1"):
        system.capped(0)


def test_a_set_is_told_at_the_finest_level_that_can_keep_its_promise(systems: dict[str, Geolocator]) -> None:
    system = systems["joint"]
    values = ordinary(unsure(system))
    coarser = replace(system, thresholds=(*system.thresholds[:2], -np.inf))
    assert {answer.cells_level for answer in coarser.answers(values)} == {3}
    none = replace(system, thresholds=(-np.inf,) * 3)
    assert {(answer.cells_level, len(answer.cells)) for answer in none.answers(values)} == {(1, 2)}


def test_an_unsure_model_gives_wide_answers(systems: dict[str, Geolocator]) -> None:
    system = systems["level"]
    flat = [np.zeros((1, len(level))) for level in system.hierarchy.levels]
    cautious = replace(system, thresholds=tuple(np.log(0.05) for _ in system.thresholds))
    answer = cautious.answers(ordinary(flat))[0]
    assert answer.sure.cell == "the Earth"
    assert len(answer.cells) == 8
    assert answer.radius_km > 5_000.0


@pytest.mark.parametrize("design", DESIGNS)
def test_paths_and_pixels_get_the_same_answers(
    systems: dict[str, Geolocator], parts: dict[str, pd.DataFrame], design: str
) -> None:
    system, asked = systems[design], paths(parts["test"])[:5]
    assert system.locate(asked) == system.answers(system.see(decode_many(asked, size=32, threads=1)))
    assert system.locate([]) == []


# --- photographs of another world -----------------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
def test_a_photograph_unlike_all_known_gets_the_whole_earth(systems: dict[str, Geolocator], design: str) -> None:
    system = systems[design]
    known = ordinary(unsure(system, images=4, scale=6.0))
    least = 1 / (1 + len(system.familiarity.distances))
    shares = np.array([1.0, 2 * least, least, least])
    before, after = system.answers(known), system.answers(replace(known, familiar=shares))
    assert [answer.widened for answer in after] == [False, False, True, True]
    assert after[:2] == [before[0], replace(before[1], familiar=2 * least)]
    for narrow, wide in zip(before[2:], after[2:], strict=True):
        assert (wide.familiar, wide.sure.cell, wide.sure.probability) == (least, "the Earth", 1.0)
        assert (wide.cells_level, wide.radius_km) == (1, FARTHEST_KM)
        assert {cell.cell for cell in wide.cells} == set(class_ids(system.hierarchy.levels[0]))
        chances = [cell.probability for cell in wide.cells]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1.0)
        assert (wide.candidates, wide.longitude, wide.latitude) == (
            narrow.candidates,
            narrow.longitude,
            narrow.latitude,
        )


def test_widening_breaks_no_promise(systems: dict[str, Geolocator]) -> None:
    """Wherever the set held the true cell, whichever that is, the widened one holds the cell around it."""
    system = systems["level"]
    known = ordinary(unsure(system, scale=3.0))
    unknown = replace(known, familiar=np.zeros(40))
    for narrow, wide in zip(system.answers(known), system.answers(unknown), strict=True):
        assert {cell.cell.split("/")[0] for cell in narrow.cells} <= {cell.cell for cell in wide.cells}
        assert wide.radius_km >= narrow.radius_km


@pytest.mark.parametrize("design", DESIGNS)
def test_what_is_familiar_is_learned_from_the_style_the_last_classifier_sees(
    systems: dict[str, Geolocator], parts: dict[str, pd.DataFrame], design: str
) -> None:
    system = systems[design]
    last = system.classifiers[-1]
    assert last.name == ("joint" if design == "joint" else "L5")
    style = {
        name: last.logits_and_style(decode_many(paths(parts[name]), size=32, threads=1))[1].astype(np.float64)
        for name in ("train", "calibration")
    }
    np.testing.assert_allclose(system.familiarity.mean, style["train"].mean(axis=0), rtol=1e-5, atol=1e-6)
    shares = system.familiarity.shares(style["calibration"])
    assert np.median(shares) == pytest.approx(0.5, abs=0.05)
    assert np.median(system.read(paths(parts["test"])).familiar) > 0.1
    strange = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    assert all(answer.widened for answer in system.answers(system.see(strange)))


def test_of_many_training_photographs_a_seeded_draw_is_read(
    classifiers: dict[str, CellClassifier], parts: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mean(training: pd.DataFrame) -> np.ndarray:
        fitted = fit_geolocator([classifiers["joint"]], training=training, calibration=parts["calibration"])
        return fitted.familiarity.mean

    everything = mean(parts["train"])
    monkeypatch.setattr(module, "FAMILIAR_IMAGES", 20)
    drawn = mean(parts["train"])
    np.testing.assert_array_equal(drawn, mean(parts["train"].sample(frac=1, random_state=0)))
    assert not np.allclose(drawn, everything)


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
    for name, array in system.familiarity.tensors().items():
        np.testing.assert_array_equal(again.familiarity.tensors()[name], array)
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
    answer = systems["joint"].answers(ordinary(unsure(systems["joint"], images=1)))[0]
    assert isinstance(answer, Answer)
    assert {
        type(value) for value in (answer.longitude, answer.radius_km, answer.sure.probability, answer.familiar)
    } == {float}
    assert type(answer.widened) is bool

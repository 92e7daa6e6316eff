"""What is said of a conurbation seen from above: each claim follows from intervals and nulls, in every case."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.maps.aerial_verdict import (
    above_chance,
    agreement,
    agreement_sentence,
    look_sentence,
    picture_sentence,
    random_sentence,
    sanity_sentence,
)

MINUS = "\N{MINUS SIGN}"


# --- does the picture say more ---------------------------------------------------------------------------------------


def _scores(**given: tuple[float, float, float]) -> pd.DataFrame:
    """Pearson r of each model under blocks, where none is given as of a network that wins; how far above the rivals the
    network is, as if the intervals were of independent scores."""
    wins = {"coordinates": (0.1, 0.02, 0.18), "neighbours": (0.2, 0.1, 0.3), "binomial": (0.5, 0.4, 0.6)}
    r = wins | given
    rows = [(model, "pearson_r", *score) for model, score in r.items()]
    value, low, high = r["binomial"]
    for rival in ("coordinates", "neighbours"):
        its, its_low, its_high = r[rival]
        down, up = np.hypot(value - low, its_high - its), np.hypot(high - value, its - its_low)
        rows.append(("binomial", f"r_over_{rival}", value - its, value - its - down, value - its + up))
    table = pd.DataFrame(rows, columns=["model", "measure", "value", "low", "high"])
    return table.assign(kind="block", areas=4210, units=88)


def test_more_is_said_where_every_difference_is_clear() -> None:
    assert picture_sentence(_scores(), model="binomial") == (
        "With spatial blocks and a buffer held out (4,210 cells in 88 blocks), the picture says more about income than "
        "coordinates and neighbours: Pearson r 0.50 [0.40, 0.60] against 0.10 [0.02, 0.18] for coordinates and 0.20 "
        "[0.10, 0.30] for neighbours, a difference of 0.30 [0.16, 0.44] from the harder to beat."
    )


@pytest.mark.parametrize(
    ("given", "claim"),
    [
        ({"neighbours": (0.45, 0.35, 0.55)}, "it cannot be told whether the picture says more"),
        ({"coordinates": (0.45, 0.35, 0.55)}, "it cannot be told whether the picture says more"),
        ({"neighbours": (0.8, 0.7, 0.9)}, "the picture says less about income than"),
        ({"neighbours": (0.8, 0.7, 0.9), "coordinates": (0.4, -0.6, 0.9)}, "the picture says less about income than"),
        ({"binomial": (0.5, np.nan, np.nan)}, "it cannot be told whether the picture says more"),
        ({"binomial": (0.02, -0.01, 0.05), "coordinates": (-0.5, -0.6, -0.4), "neighbours": (-0.5, -0.6, -0.4)},
         "it cannot be told whether the picture says more"),
    ],
)  # fmt: skip
def test_nothing_is_claimed_where_an_interval_is_not_clear(given: dict[str, Any], claim: str) -> None:
    assert f"blocks), {claim}" in picture_sentence(_scores(**given), model="binomial")


def test_few_cells_or_blocks_allow_no_claim() -> None:
    for few in ({"areas": 99}, {"units": 4}):
        assert "too little is scored to compare" in picture_sentence(_scores().assign(**few), model="binomial")
    enough = _scores().assign(areas=100, units=5)
    assert "the picture says more" in picture_sentence(enough, model="binomial")


def test_random_folds_decide_nothing() -> None:
    random = _scores(binomial=(0.9, 0.8, 1.0)).assign(kind="random")
    said = picture_sentence(pd.concat([random, _scores()], ignore_index=True), model="binomial")
    assert said == picture_sentence(_scores(), model="binomial")


def test_without_the_network_or_a_map_to_beat_there_is_no_verdict() -> None:
    scores = _scores()
    for less in (scores[scores["model"] != "binomial"], scores[scores["model"] == "binomial"]):
        with pytest.raises(InputError, match="score these first"):
            picture_sentence(less, model="binomial")
    left = scores[(scores["model"] != "coordinates") & (scores["measure"] != "r_over_coordinates")]
    alone = picture_sentence(left, model="binomial")
    assert "more about income than neighbours: Pearson r 0.50 [0.40, 0.60] against 0.20" in alone


def test_a_network_is_told_from_chance_by_its_interval() -> None:
    assert above_chance(_scores(), model="binomial")
    for weak in ((0.02, -0.01, 0.05), (np.nan, np.nan, np.nan), (0.5, np.nan, np.nan)):
        assert not above_chance(_scores(binomial=weak), model="binomial")


def test_what_random_folds_pretend_is_told_with_its_interval() -> None:
    audit = pd.DataFrame(
        [("binomial", 0.7, 0.5, 0.2, 0.1, 0.3), ("coordinates", 0.68, 0.1, 0.58, 0.5, 0.66)],
        columns=["model", "random", "block", "gap", "low", "high"],
    )
    assert random_sentence(audit, model="binomial") == (
        "Random folds would have pretended a Pearson r of 0.70, 0.20 [0.10, 0.30] more than blocks leave of it. "
        "Without any picture, coordinates reach 0.68 under random folds and 0.10 under blocks."
    )
    assert random_sentence(audit.iloc[:1].assign(low=-0.1), model="binomial") == (
        "Random folds give a Pearson r of 0.70, not clearly more than blocks: a difference of 0.20 "
        f"[{MINUS}0.10, 0.30]."
    )
    assert random_sentence(audit, model="cumulative") == ""


# --- where it looks --------------------------------------------------------------------------------------------------

Numbers = tuple[float, bool, float, bool]


def _findings(*classes: Numbers) -> pd.DataFrame:
    """Land, whether found, attention, whether found, of class 0, class 1, ..."""
    table = pd.DataFrame(classes, columns=["land", "land_found", "attention", "attention_found"])
    return table.assign(name=[f"class {number}" for number in range(len(table))])


def _sanity(*passed: bool) -> pd.DataFrame:
    return pd.DataFrame({"check": [f"Check {place}." for place in range(len(passed))], "passed": list(passed)})


def test_classes_are_named_at_the_end_that_looks_at_them_more() -> None:
    findings = _findings((0, False, 0.7, True), (0, False, -0.5, True), (0, False, 2.0, False))
    ratios = pd.DataFrame(
        {"end": ["poor", "poor", "rich"], "name": ["class 0", "class 1", "class 0"], "value": [0.8, 1.4, 1.5]}
    )
    assert look_sentence(ratios, findings) == (
        "Where the network looks: at the rich end it looks more at “class 0” (1.50 against 0.80); at the poor end it "
        "looks more at “class 1” (1.40 against -). In brackets the mean activation ratios of both ends."
    )
    assert look_sentence(ratios, findings.iloc[2:]).startswith("In no class does where the network looks differ")


def test_beyond_three_classes_are_counted() -> None:
    ratios = pd.DataFrame({"end": [], "name": [], "value": []})
    said = look_sentence(ratios, _findings(*((0.0, False, 0.1 + number / 10, True) for number in range(5))))
    assert re.findall(r"class \d", said) == ["class 4", "class 3", "class 2"]
    assert "and 2 more" in said


SAME: Numbers = (0.1, True, 0.2, True)
OTHER: Numbers = (0.1, True, -0.2, True)
SILENT: Numbers = (0.1, True, 0.2, False)
EXTRA: Numbers = (0.0, False, 1.0, True)


@pytest.mark.parametrize(
    ("classes", "answer"),
    [
        ([SAME], "yes"),
        ([SAME, SAME, SILENT, EXTRA, EXTRA, EXTRA], "yes"),
        ([SAME, SILENT], "partly"),
        ([SAME, SILENT, SILENT, SILENT], "partly"),
        ([SAME, SAME, SAME, OTHER], "partly"),
        ([SAME, OTHER], "no"),
        ([OTHER, SILENT], "no"),
        ([SAME, OTHER, OTHER], "no"),
        ([SILENT, SILENT, EXTRA], "cannot be told"),
        ([EXTRA, EXTRA], "cannot be told"),
    ],
)
def test_whether_the_network_follows_the_data_is_answered_by_the_rule(classes: list[Numbers], answer: str) -> None:
    findings = _findings(*classes)
    found = agreement(findings, _sanity(True), skilled=True)
    assert found.answer == answer
    counted = [len(names) for names in (found.same, found.other, found.silent, found.unlinked)]
    assert counted == [classes.count(kind) for kind in (SAME, OTHER, SILENT, EXTRA)]
    mirrored = findings.assign(land=-findings["land"], attention=-findings["attention"])
    assert agreement(mirrored, _sanity(True), skilled=True) == found, "which end comes first does not matter"


def test_the_answer_stands_with_its_counts() -> None:
    found = agreement(_findings(SAME, SAME, OTHER, SILENT, EXTRA), _sanity(True), skilled=True)
    assert agreement_sentence(found) == (
        "Does the network follow the spatial correlation between urban class and status? Partly. Classes linked to "
        "status in the data: 4. Its attention points the same way in 2 (“class 0” and “class 1”), the other way in 1 "
        "(“class 2”), and differs by no more than chance in 1. Not linked in the data, but different in attention: 1 "
        "(“class 4”)."
    )


@pytest.mark.parametrize(
    ("sanity", "skilled", "reason"),
    [
        (_sanity(True, False), True, "a check of the maps failed"),
        (_sanity(), True, "no check of the maps was made"),
        (_sanity(True), False, "the network cannot be told from chance"),
    ],
)
def test_an_unreliable_network_or_map_gives_no_answer_but_its_counts(
    sanity: pd.DataFrame, skilled: bool, reason: str
) -> None:
    said = agreement_sentence(agreement(_findings(SAME, OTHER), sanity, skilled=skilled))
    assert f"status? Cannot be told: {reason}. Classes linked to status in the data: 2." in said


def test_without_a_link_in_the_data_there_is_nothing_to_follow() -> None:
    said = agreement_sentence(agreement(_findings(EXTRA), _sanity(True), skilled=True))
    assert said.endswith(
        "Cannot be told: the data link no class to status. Not linked in the data, but different in attention: 1 "
        "(“class 0”)."
    )


def test_checks_that_failed_are_named() -> None:
    assert sanity_sentence(_sanity(True, True)) == "The attention maps passed all 2 checks made."
    assert sanity_sentence(_sanity(True)) == "The attention maps passed the one check made."
    assert sanity_sentence(_sanity(False, True, False)) == (
        "The attention maps failed 2 of 3 checks, so that they are not to be relied on: “Check 0” and “Check 2”."
    )
    assert sanity_sentence(_sanity()) == "No check of the attention maps was made: do not rely on them."

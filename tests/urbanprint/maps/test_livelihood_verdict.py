"""The verdict claims what the intervals allow and nothing more."""

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.evaluation.cluster_gain import GAIN_COLUMNS, cluster_gain
from urbanprint.evaluation.cluster_scores import score_clusters
from urbanprint.maps.livelihood_verdict import Verdict, picture_gains, verdict
from urbanprint.tables import CLUSTER_SCORES

SCORE = {"prior": 0.0, "coordinates": 0.4, "imagewise": 0.5, "graph_images": 0.6, "clusterwise": 0.45}


def scores(**low: float) -> pd.DataFrame:
    """R2 of wealth under block folds; the low end is the score minus 0.1, or that given."""
    rows = [
        (model, "block", "poverty", "regression", "r2", value, low.get(model, value - 0.1), value + 0.1, 300, 30)
        for model, value in SCORE.items()
    ]
    return CLUSTER_SCORES.validate(pd.DataFrame(rows, columns=list(CLUSTER_SCORES.columns)))


def compared(*rows: tuple[str, str, float, float], clusters: int = 300, units: int = 30) -> pd.DataFrame:
    """Gains from (model, rival, low, high)."""
    columns = list(GAIN_COLUMNS)
    made = [
        (model, rival, "block", "poverty", "regression", "r2", (low + high) / 2, low, high, clusters, units, 2)
        for model, rival, low, high in rows
    ]
    return pd.DataFrame(made, columns=columns)


def judged(*rows: tuple[str, str, float, float], own: pd.DataFrame | None = None, **size: int) -> Verdict:
    return verdict({"aland": scores() if own is None else own}, {"aland": compared(*rows, **size)})


def test_a_picture_model_that_beats_every_baseline_is_named_with_its_hardest_rival() -> None:
    found = judged(
        ("imagewise", "prior", 0.4, 0.6),
        ("imagewise", "coordinates", 0.04, 0.16),
        ("graph_images", "prior", 0.5, 0.7),
        ("graph_images", "coordinates", 0.1, 0.3),
    )
    (best,) = found.pictures
    assert (best.claim, best.model, best.rival, best.others) == ("beats", "graph_images", "coordinates", ("imagewise",))
    assert best.question == "aland, Asset wealth, R²"
    assert best.answer == (
        "“graph: image features” (0.60) beats “coordinates only” (0.40): a difference of 0.20 [0.10, 0.30]. "
        "Every baseline is beaten by “image-wise network” too."
    )
    assert found.paragraphs == (
        "With spatial blocks with a buffer held out, a picture model beats the best map without pictures in 1 of 1 "
        "questions. The clearest case is aland, Asset wealth, R²: “graph: image features” (0.60) beats “coordinates "
        "only” (0.40): a difference of 0.20 [0.10, 0.30].",
    )


def test_one_baseline_that_is_not_beaten_is_enough_to_claim_nothing() -> None:
    found = judged(("imagewise", "prior", 0.4, 0.6), ("imagewise", "coordinates", -0.02, 0.2))
    assert found.pictures[0].claim == "undecided"
    assert "beats the best map without pictures in none of 1 questions; in 1 it cannot be told from it." in str(
        found.paragraphs
    )


def test_beating_bad_maps_with_an_r2_that_may_be_nought_is_not_enough() -> None:
    rows = (("imagewise", "prior", 0.1, 0.6), ("imagewise", "coordinates", 0.1, 0.6))
    assert judged(*rows, own=scores(imagewise=-0.01)).pictures[0].claim == "undecided"
    assert judged(*rows, own=scores(imagewise=0.01)).pictures[0].claim == "beats"


def test_worse_is_said_only_if_every_picture_model_loses() -> None:
    lost = ("imagewise", "coordinates", -0.3, -0.1)
    assert judged(lost).pictures[0].claim == "loses"
    # The wide interval reaches lower, but that model is the one of which more can be said.
    found = judged(lost, ("graph_images", "coordinates", -0.5, 0.1))
    assert (found.pictures[0].claim, found.pictures[0].model) == ("undecided", "graph_images")


def test_a_model_that_loses_to_one_baseline_loses_however_unsure_another_comparison_is() -> None:
    (found,) = judged(("imagewise", "prior", -0.5, 0.2), ("imagewise", "coordinates", -0.3, -0.1)).pictures
    assert (found.claim, found.rival) == ("loses", "coordinates")


@pytest.mark.parametrize(("clusters", "units"), [(99, 30), (300, 4)])
def test_too_few_clusters_or_blocks_say_nothing_whatever_the_score(clusters: int, units: int) -> None:
    found = judged(("imagewise", "coordinates", 0.3, 0.5), clusters=clusters, units=units)
    assert found.pictures[0].claim == "too few"
    assert "too few clusters or blocks" in found.pictures[0].answer


def test_a_difference_without_an_interval_decides_nothing() -> None:
    row = compared(("imagewise", "coordinates", 0.1, 0.3)).assign(low=np.nan, high=np.nan)
    (best,) = verdict({"aland": scores()}, {"aland": row}).pictures
    assert best.claim == "undecided"
    assert best.answer.endswith("a difference of 0.20 (no interval).")


@pytest.mark.parametrize(
    ("low", "high", "claim"), [(0.02, 0.2, "beats"), (-0.02, 0.2, "undecided"), (-0.3, -0.1, "loses")]
)
def test_the_graph_is_judged_against_the_vote(low: float, high: float, claim: str) -> None:
    found = judged(("imagewise", "coordinates", 0.04, 0.16), ("graph_images", "imagewise", low, high))
    assert [each.claim for each in found.graph] == [claim]
    assert len(found.pictures) == 1
    assert found.paragraphs[1].startswith("The graph of image features beats the image-wise network in")


def test_other_kinds_of_fold_and_measures_are_not_mixed_in() -> None:
    other = scores().assign(kind="random", value=0.99)
    own = pd.concat([other, scores(), scores().assign(measure="pearson_r2", value=0.9)], ignore_index=True)
    (best,) = judged(("imagewise", "coordinates", 0.04, 0.16), own=own).pictures
    assert best.score.value == SCORE["imagewise"]


def test_a_verdict_without_a_comparison_is_refused() -> None:
    with pytest.raises(InputError, match="No picture model was compared"):
        judged(("graph_images", "imagewise", 0.1, 0.2))


# --- from predictions ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of 200 clusters in 25 blocks and their folds; two picture models see more than the coordinates."""
    rng = np.random.default_rng(2)
    truth = rng.normal(size=200)
    area_ids = [f"c{i:03d}" for i in range(200)]
    folds = pd.DataFrame({"area_id": area_ids, "kind": "block", "fold": 0, "borough": "r"})
    folds = folds.assign(block=[f"b{i % 25}" for i in range(200)], x_m=0.0, y_m=0.0)
    parts = []
    for model, noise in (("coordinates", 1.2), ("imagewise", 0.7), ("graph_images", 0.3)):
        part = pd.DataFrame({"area_id": area_ids, "model": model, "kind": "block", "fold": 0, "indicator": "poverty"})
        parts.append(part.assign(task="regression", observed=truth, predicted=truth + noise * rng.normal(size=200)))
    return pd.concat(parts, ignore_index=True), folds


def test_gains_hold_every_picture_model_against_every_baseline_and_the_graph_against_the_vote(
    predicted: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    predictions, folds = predicted
    table = picture_gains(predictions, folds=folds, seed=0)
    assert table[["model", "rival", "comparisons"]].to_numpy().tolist() == [
        ["graph_images", "coordinates", 2],
        ["imagewise", "coordinates", 2],
        ["graph_images", "imagewise", 1],
    ]
    alone = cluster_gain(predictions, "graph_images", "imagewise", folds=folds, repeats=4000, seed=0)
    pd.testing.assert_frame_equal(table.iloc[[2]].reset_index(drop=True), alone)


def test_what_was_planted_is_found(predicted: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    predictions, folds = predicted
    found = verdict(
        {"aland": score_clusters(predictions, folds=folds, repeats=200, seed=0)},
        {"aland": picture_gains(predictions, folds=folds, seed=0)},
    )
    assert [each.claim for each in (*found.pictures, *found.graph)] == ["beats", "beats"]
    assert found.pictures[0].others == ("imagewise",)


def test_gains_need_a_picture_model_and_a_baseline(predicted: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    predictions, folds = predicted
    with pytest.raises(InputError, match="are of coordinates: a verdict needs"):
        picture_gains(predictions[predictions["model"] == "coordinates"], folds=folds, seed=0)
    with pytest.raises(InputError, match="under whole regions are of no model"):
        picture_gains(predictions, folds=folds, kind="borough", seed=0)

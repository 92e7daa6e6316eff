"""What the scores of the livelihood models amount to: do pictures beat a map without them, does the graph beat a vote?

What belongs here: the comparisons behind the verdict, and its sentences. The scores themselves are in
`livelihood_table`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from urbanprint.errors import InputError
from urbanprint.evaluation.cluster_gain import cluster_gain
from urbanprint.evaluation.scores import FEWEST_AREAS, FEWEST_UNITS
from urbanprint.evaluation.tasks import Task
from urbanprint.maps.livelihood_table import CLUSTER_FOLDS, LEARNERS, SHORT_NAMES, SHOWN_MEASURES
from urbanprint.maps.style import Estimate, number_text
from urbanprint.vocabulary import CLUSTER_BASELINES, LIVELIHOODS, TASK_MEASURES

Claim = Literal["beats", "loses", "undecided", "too few"]
"""What the interval of a difference allows to say."""

GRAPH, IMAGEWISE = "graph_images", "imagewise"

_REPEATS = 4000  # of nine comparisons an interval ends at the 0.3rd percentile, the 11th of so many draws
_CLAIMS: dict[Claim, str] = {
    "beats": "beats",
    "loses": "does worse than",
    "undecided": "cannot be told from",
    "too few": "is scored on too few clusters or blocks to be compared with",
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One model against one rival on one indicator and task of a country: both scores, the difference, the claim.

    `others` are further models of which the same could be said.
    """

    country: str
    indicator: str
    task: str
    measure: str
    model: str
    rival: str
    score: Estimate
    rival_score: Estimate
    gain: Estimate
    claim: Claim
    others: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """What is asked: country, indicator and measure."""
        return f"{self.country}, {SHORT_NAMES[self.indicator]}, {TASK_MEASURES[self.task][self.measure]}"

    @property
    def answer(self) -> str:
        """What may be said, with the figures."""
        ours, theirs = (
            f"{_quoted(model)} ({_number(score.value)})"
            for model, score in ((self.model, self.score), (self.rival, self.rival_score))
        )
        answer = f"{ours} {_CLAIMS[self.claim]} {theirs}: a difference of {_span(self.gain)}."
        if not self.others:
            return answer
        *first, last = map(_quoted, self.others)
        return f"{answer} Every baseline is beaten by {', '.join(first)}{' and ' if first else ''}{last} too."


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answers to both questions: a paragraph each, and comparison by comparison."""

    paragraphs: tuple[str, ...]
    pictures: tuple[Comparison, ...]
    graph: tuple[Comparison, ...]


def picture_gains(predictions: pd.DataFrame, *, folds: pd.DataFrame, kind: str = "block", seed: int) -> pd.DataFrame:
    """Every comparison the verdict on a country needs (`GAIN_COLUMNS`), from its `tables.CLUSTER_PREDICTIONS`.

    Each picture model against each baseline, its interval widened for the number of picture models, for the best of
    them will be named; and the graph of image features against the image-wise network, where both are there.
    """
    chosen = predictions[predictions["kind"] == kind]
    models = set(chosen["model"])
    pictures = sorted(models - set(CLUSTER_BASELINES))
    parts = [
        cluster_gain(chosen, ours, rival, folds=folds, comparisons=len(pictures), repeats=_REPEATS, seed=seed)
        for ours in pictures
        for rival in CLUSTER_BASELINES
        if rival in models
    ]
    if {GRAPH, IMAGEWISE} <= models:
        parts.append(cluster_gain(chosen, GRAPH, IMAGEWISE, folds=folds, repeats=_REPEATS, seed=seed))
    if not parts:
        raise InputError(
            f"The predictions under {CLUSTER_FOLDS.get(kind, kind)} are of {', '.join(sorted(models)) or 'no model'}:"
            " a verdict needs those of a picture model and of a baseline."
        )
    return pd.concat(parts, ignore_index=True)


def verdict(scores: Mapping[str, pd.DataFrame], gains: Mapping[str, pd.DataFrame], *, kind: str = "block") -> Verdict:
    """Does any picture model beat the best baseline, and does the graph beat the image-wise network?

    `scores` maps a country to its `tables.CLUSTER_SCORES`, `gains` to what `picture_gains` made of its
    predictions. Asked of each country of `gains`, indicator and task under one kind of fold.

    - A picture model beats the map without pictures only if it beats every baseline: the whole interval of each
      difference above zero, and for R2 that of its own score too, on at least `FEWEST_AREAS` clusters in `FEWEST_UNITS`
      blocks. The model named is the one whose hardest baseline it beats by most (at the low end of the interval), the
      rival is that baseline.
    - "Worse" needs every picture model to lose against a baseline, the whole interval below zero.
    - The graph against the image-wise network was planned as a single comparison.

    Raises `InputError` where no picture model was compared with a baseline.
    """
    pictures, graph = [], []
    for country, table in gains.items():
        for task in SHOWN_MEASURES:
            for indicator in LIVELIHOODS:
                rows = table[(table["kind"] == kind) & (table["indicator"] == indicator) & (table["task"] == task)]
                against_maps = rows[rows["rival"].isin(list(CLUSTER_BASELINES))]
                against_vote = rows[(rows["model"] == GRAPH) & (rows["rival"] == IMAGEWISE)]
                own = _own_scores(scores[country], kind, indicator, task)
                if len(against_maps):
                    pictures.append(_best(against_maps, own, country))
                if len(against_vote):
                    graph.append(_comparison(against_vote.iloc[0], own, country))
    if not pictures:
        raise InputError(f"No picture model was compared with a baseline under {CLUSTER_FOLDS.get(kind, kind)}.")
    where = f"With {CLUSTER_FOLDS.get(kind, kind)} held out"
    paragraphs = [f"{where}, {_tally(pictures, 'a picture model', 'the best map without pictures')}"]
    if graph:
        paragraphs.append(_tally(graph, "The graph of image features", "the image-wise network"))
    return Verdict(paragraphs=tuple(paragraphs), pictures=tuple(pictures), graph=tuple(graph))


def _own_scores(scores: pd.DataFrame, kind: str, indicator: str, task: Task) -> dict[str, Estimate]:
    """Model -> its score in the first measure of the task."""
    keys = {"kind": kind, "indicator": indicator, "task": task, "measure": SHOWN_MEASURES[task][0]}
    rows = scores[(scores[list(keys)] == pd.Series(keys)).all(axis=1)]
    return {
        model: Estimate(*score) for model, *score in rows[["model", "value", "low", "high"]].itertuples(index=False)
    }


def _best(rows: pd.DataFrame, own: Mapping[str, Estimate], country: str) -> Comparison:
    """The picture model of which most can be claimed against its own hardest baseline, and of whom else the same."""
    hardest = [_comparison(_hardest(group), own, country) for _, group in rows.groupby("model", sort=False)]
    order: tuple[Claim, ...] = ("loses", "too few", "undecided", "beats")
    hardest.sort(key=lambda each: (order.index(each.claim), _low(each)), reverse=True)
    best, *rest = hardest
    others = tuple(each.model for each in rest if each.claim == "beats")
    return replace(best, others=others) if best.claim == "beats" else best


def _hardest(rows: pd.DataFrame) -> pd.Series:
    """The comparison of one model with the baseline it loses to, or else the one it is the least sure to beat."""
    lost = rows[rows["high"] < 0]
    return (lost if len(lost) else rows).sort_values("low", na_position="first").iloc[0]


def _comparison(row: pd.Series, own: Mapping[str, Estimate], country: str) -> Comparison:
    score, gain = own[row["model"]], Estimate(row["value"], row["low"], row["high"])
    claim: Claim = "undecided"
    if row["clusters"] < FEWEST_AREAS or row["units"] < FEWEST_UNITS:
        claim = "too few"
    elif gain.low > 0 and (row["measure"] != "r2" or score.low > 0):
        claim = "beats"
    elif gain.high < 0:
        claim = "loses"
    return Comparison(
        country=country,
        indicator=row["indicator"],
        task=row["task"],
        measure=row["measure"],
        model=row["model"],
        rival=row["rival"],
        score=score,
        rival_score=own[row["rival"]],
        gain=gain,
        claim=claim,
    )


def _tally(comparisons: list[Comparison], subject: str, rival: str) -> str:
    """How often each claim holds, and the clearest case of the first."""
    by_claim = {claim: [each for each in comparisons if each.claim == claim] for claim in _CLAIMS}
    won = by_claim.pop("beats")
    sentence = f"{subject} beats {rival} in {len(won) or 'none'} of {len(comparisons)} questions"
    rest = [f"in {len(found)} it {_CLAIMS[claim]} it" for claim, found in by_claim.items() if found]
    if rest:
        sentence += f"; {' and '.join(rest)}"
    if not won:
        return f"{sentence}."
    best = max(won, key=_low)
    return f"{sentence}. The clearest case is {best.question}: {replace(best, others=()).answer}"


def _low(comparison: Comparison) -> float:
    return -np.inf if np.isnan(comparison.gain.low) else comparison.gain.low


def _quoted(model: str) -> str:
    return f"“{LEARNERS.get(model, model)}”"


def _number(value: float) -> str:
    return number_text(round(value, 2) + 0.0)  # + 0.0: never -0.00


def _span(gain: Estimate) -> str:
    if np.isnan(gain.low):
        return f"{_number(gain.value)} (no interval)"
    return f"{_number(gain.value)} [{_number(gain.low)}, {_number(gain.high)}]"

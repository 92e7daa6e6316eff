"""Whether explanations depend on what was learned: maps of networks that learned nothing, or learned noise.

What belongs here: the checks and their bounds. Maps that look alike whatever the network has learned redraw the picture
(Adebayo et al. 2018, "Sanity checks for saliency maps", NeurIPS).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from urbanprint.aerial.attention import ENDS, End
from urbanprint.aerial.findings import LEAST_TILES, top_class
from urbanprint.evaluation.bootstrap import draw_sums, group_draws, interval, ratio
from urbanprint.models.imagewise import ImagewiseModel, build

ALIKE = 0.5
"""Rank correlation of maps, at and above which they are called alike."""

SANITY_COLUMNS = ("check", "value", "low", "high", "passed", "explanation")


def map_likeness(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman correlation (n,) of two maps (n, h, w) of each tile, missing where one is constant."""
    ranks = [rankdata(found.reshape(len(found), -1), axis=1) for found in (maps, others)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    product = (a * b).sum(axis=1)
    return ratio(product, np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def likeness_check(
    name: str,
    explanation: str,
    maps: Mapping[End, np.ndarray],
    others: Mapping[End, np.ndarray],
    units: pd.Series,
    *,
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """A row of `SANITY_COLUMNS`: passed where maps are surely less alike than `ALIKE`."""
    likeness = np.concatenate([map_likeness(maps[end], others[end]) for end in ENDS])
    both = pd.concat([units, units], ignore_index=True)
    known = np.isfinite(likeness)
    unit, weights = group_draws(both[known], repeats=repeats, seed=seed)
    total, count = draw_sums(np.stack([likeness[known], np.ones(known.sum())], axis=1), unit, weights).T
    value, low, high = interval(ratio(total, count))
    return {
        "check": name,
        "value": value,
        "low": low,
        "high": high,
        "passed": bool(high < ALIKE),
        "explanation": explanation,
    }


def planted_check(ratios: pd.DataFrame, planted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of `SANITY_COLUMNS`, one an end: passed where the class that holds the planted cue is `top_class`."""
    rows = []
    for end, name in planted.items():
        found = ratios[(ratios["end"] == end) & (ratios["name"] == name)].iloc[0]
        held = ratios[(ratios["end"] == end) & (ratios["tiles"] >= LEAST_TILES)]
        first = top_class(ratios, end) if len(held) else f"none, as no class is on {LEAST_TILES} tiles predicted {end}"
        rows.append(
            {
                "check": f"planted cue, {end} end",
                "value": found["value"],
                "low": found["low"],
                "high": found["high"],
                "passed": first == name,
                "explanation": f"the cue was planted in {name}; most surely looked at is {first}",
            }
        )
    return rows


def untrained(trained: ImagewiseModel, *, seed: int) -> ImagewiseModel:
    """The same network with random weights, from a seed of its own."""
    return build(replace(trained.config, weights="none", seed=seed), trained.indicators)


def shuffled(incomes: pd.Series, *, seed: int) -> pd.Series:
    """Incomes dealt out to cells anew, so that a network trained on them can only learn by heart."""
    order = np.random.default_rng(seed).permutation(len(incomes))
    return pd.Series(incomes.to_numpy()[order], index=incomes.index, name=incomes.name)

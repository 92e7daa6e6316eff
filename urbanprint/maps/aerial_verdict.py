"""What the tables of a conurbation seen from above amount to: the rules, and the sentences that follow from them.

What belongs here: does the picture say more than a map without it, what would random folds have pretended, where does
the network look, and does it look where the data say. The tables themselves are laid out in `aerial_tables`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from urbanprint.aerial.scores import RIVALS
from urbanprint.errors import InputError
from urbanprint.evaluation.scores import FEWEST_AREAS, FEWEST_UNITS
from urbanprint.maps.aerial_figures import estimates
from urbanprint.maps.style import Estimate, number_text

Answer = Literal["yes", "partly", "no", "cannot be told"]

RULE = (
    "The rule: a class is linked where its share of the tiles differs between rich and poor cells beyond chance. "
    "Yes if the attention points the same way in more than half of the linked classes and the other way in none; "
    "partly if it points the same way in more of them than the other way; no if it points the other way in as many or "
    "more. It cannot be told if no class is linked, if the attention differs in none of these, if the network cannot "
    "be told from chance under block folds, or if a check of the maps failed or none was made."
)
"""How the answer of `agreement` is found."""

_NAMED = 3  # classes that a sentence names on each side


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Whether attention follows the link between class and status; `reason` says why that cannot be told.

    Of the classes that the data link to status: those whose attention points the `same` way, the `other` way, or
    differs by no more than chance (`silent`). `unlinked` are classes the attention differs in and the data do not.
    """

    answer: Answer
    reason: str
    same: tuple[str, ...]
    other: tuple[str, ...]
    silent: tuple[str, ...]
    unlinked: tuple[str, ...]


def span(score: Estimate) -> str:
    """`0.53 [0.44, 0.61]`."""
    value, low, high = map(number_text, score)
    return f"{value} (no interval)" if np.isnan(score.low) else f"{value} [{low}, {high}]"


def picture_sentence(scores: pd.DataFrame, *, model: str) -> str:
    """Does the network `model` say more than coordinates and neighbours under block folds, by Pearson r?

    More, or less, is said only where the interval of the difference on the same draws (`r_over_...`) leaves 0 out, more
    only against every one of `RIVALS` and where its own r lies above 0, both on at least `FEWEST_AREAS` cells in
    `FEWEST_UNITS` blocks. Raises `InputError` where the network or all rivals are missing.
    """
    found = _under_blocks(scores)
    gaps = {rival: _under_blocks(scores, measure=f"r_over_{rival}").get(model) for rival in RIVALS}
    rivals = [rival for rival in RIVALS if rival in found and gaps[rival] is not None]
    if model not in found or not rivals:
        raise InputError(
            f"The scores hold no pearson_r under block folds of {model!r} and of one of {', '.join(RIVALS)}: score"
            " these first."
        )
    own = found[model]
    known = [gap for rival in rivals if (gap := gaps[rival]) is not None]
    hardest = min(known, key=lambda gap: (not gap.high < 0, -np.inf if np.isnan(gap.low) else gap.low))
    against = " and ".join(f"{span(found[rival])} for {rival}" for rival in rivals)
    chosen = scores[(scores["model"] == model) & (scores["measure"] == "pearson_r") & (scores["kind"] == "block")]
    areas, units = (int(chosen[count].iloc[0]) for count in ("areas", "units"))
    names = " and ".join(rivals)
    if areas < FEWEST_AREAS or units < FEWEST_UNITS:
        claim = f"too little is scored to compare the picture with {names}"
    elif hardest.low > 0 and own.low > 0:
        claim = f"the picture says more about income than {names}"
    elif hardest.high < 0:
        claim = f"the picture says less about income than {names}"
    else:
        claim = f"it cannot be told whether the picture says more about income than {names}"
    return (
        f"With spatial blocks and a buffer held out ({areas:,} cells in {units:,} blocks), {claim}: Pearson r"
        f" {span(own)} against {against}, a difference of {span(hardest)} from the harder to beat."
    )


def above_chance(scores: pd.DataFrame, *, model: str) -> bool:
    """Whether the interval of the network's Pearson r under block folds lies above 0."""
    found = _under_blocks(scores)
    return model in found and found[model].low > 0


def random_sentence(audit: pd.DataFrame, *, model: str) -> str:
    """What random folds would have made of the network, and of the map without pictures that gains most by them.

    Empty where the audit holds no gap of the network.
    """
    columns = audit[["model", "random", "block", "gap", "low", "high"]].dropna(subset="gap")
    rows = {name: (random, block, Estimate(*gap)) for name, random, block, *gap in columns.itertuples(index=False)}
    if model not in rows:
        return ""
    random, _, gap = rows[model]
    if gap.low > 0:
        told = f"would have pretended a Pearson r of {number_text(random)}, {span(gap)} more than blocks leave of it."
    else:
        told = f"give a Pearson r of {number_text(random)}, not clearly more than blocks: a difference of {span(gap)}."
    if rivals := [rival for rival in RIVALS if rival in rows]:
        rival = max(rivals, key=lambda name: rows[name][2].value)
        random, block, _ = rows[rival]
        told += f" Without any picture, {rival} reach {number_text(random)} under random folds and"
        told += f" {number_text(block)} under blocks."
    return f"Random folds {told}"


def look_sentence(ratios: pd.DataFrame, findings: pd.DataFrame) -> str:
    """Which classes draw more attention at the rich end, and which at the poor end, beyond chance."""
    found = findings[findings["attention_found"].astype(bool)].sort_values("attention")
    mean = {(end, name): value for end, name, value in ratios[["end", "name", "value"]].itertuples(index=False)}
    parts = []
    for end, rest, names in (
        ("rich", "poor", list(found.loc[found["attention"] > 0, "name"])[::-1]),
        ("poor", "rich", list(found.loc[found["attention"] < 0, "name"])),
    ):
        if names:
            told = [
                f"{_quoted(name)} ({number_text(mean.get((end, name), np.nan))} against"
                f" {number_text(mean.get((rest, name), np.nan))})"
                for name in names[:_NAMED]
            ]
            more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
            parts.append(f"at the {end} end it looks more at {_listed([*told, *more])}")
    if not parts:
        return "In no class does where the network looks differ between the rich and the poor end beyond chance."
    return f"Where the network looks: {'; '.join(parts)}. In brackets the mean activation ratios of both ends."


def agreement(findings: pd.DataFrame, sanity: pd.DataFrame, *, skilled: bool) -> Agreement:
    """Does the attention follow the link between urban class and status in the data? By `RULE`.

    `skilled` says whether the network can be told from chance (`above_chance`).
    """
    linked = findings["land_found"].astype(bool)
    differs = findings["attention_found"].astype(bool)
    alike = np.sign(findings["land"]) == np.sign(findings["attention"])
    same, other, silent, unlinked = (
        tuple(findings.loc[chosen, "name"])
        for chosen in (linked & differs & alike, linked & differs & ~alike, linked & ~differs, ~linked & differs)
    )
    reasons = {
        "the data link no class to status": not linked.any(),
        "the network cannot be told from chance": not skilled,
        "no check of the maps was made": sanity.empty,
        "a check of the maps failed": not sanity["passed"].astype(bool).all(),
        "the attention differs in none of the linked classes": not same and not other,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), "")
    answer: Answer = "no"
    if reason:
        answer = "cannot be told"
    elif not other and 2 * len(same) > linked.sum():
        answer = "yes"
    elif len(same) > len(other):
        answer = "partly"
    return Agreement(answer=answer, reason=reason, same=same, other=other, silent=silent, unlinked=unlinked)


def agreement_sentence(found: Agreement) -> str:
    """The question, the answer and the counts behind it."""
    linked = len(found.same) + len(found.other) + len(found.silent)
    answer = found.answer.capitalize() + (f": {found.reason}" if found.reason else "")
    sentence = f"Does the network follow the spatial correlation between urban class and status? {answer}."
    if linked:
        sentence += (
            f" Classes linked to status in the data: {linked}. Its attention points the same way in"
            f" {_counted(found.same)}, the other way in {_counted(found.other)}, and differs by no more than chance in"
            f" {len(found.silent) or 'none'}."
        )
    if found.unlinked:
        sentence += f" Not linked in the data, but different in attention: {_counted(found.unlinked)}."
    return sentence


def sanity_sentence(sanity: pd.DataFrame) -> str:
    """Whether the checks of the maps passed, and which did not."""
    failed = list(sanity.loc[~sanity["passed"].astype(bool), "check"])
    if sanity.empty:
        return "No check of the attention maps was made: do not rely on them."
    if not failed:
        return f"The attention maps passed {f'all {len(sanity)} checks' if len(sanity) > 1 else 'the one check'} made."
    return (
        f"The attention maps failed {len(failed)} of {len(sanity)} checks, so that they are not to be relied on:"
        f" {_listed([_quoted(check.rstrip('.')) for check in failed])}."
    )


def _under_blocks(scores: pd.DataFrame, *, measure: str = "pearson_r") -> dict[str, Estimate]:
    """Model -> a measure under block folds, where it is known."""
    found = estimates(scores, measure=measure) if measure in set(scores["measure"]) else {}
    return {model: r for (model, kind), r in found.items() if kind == "block" and not np.isnan(r.value)}


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} ({_listed([_quoted(name) for name in names])})" if names else "none"


def _quoted(text: str) -> str:
    return f"“{text}”"


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last

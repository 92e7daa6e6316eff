"""The report on whether networks carry over from one conurbation to another: a matrix and one sentence.

What belongs here: what the page says. The figure is in `aerial_figures`, the words around it in the template.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from urbanprint.errors import InputError
from urbanprint.maps.aerial_figures import OTHERS, transfer_chart
from urbanprint.maps.aerial_report import write_page
from urbanprint.maps.aerial_tables import transfer_table
from urbanprint.maps.report import Attribution
from urbanprint.maps.style import number_text

METHODS: tuple[str, ...] = (
    "A network is trained on the tiles and income classes of one conurbation, or of all but one, and predicts those of "
    "another. It is told nothing of the conurbation it is tested on.",
    "Income classes are quantiles within each conurbation, so that what is asked is who is poorer than whom there, not "
    "how rich a city is beside another.",
    "Pearson r is of predicted and observed class. Intervals hold 95 % of a bootstrap over whole blocks of the tested "
    "conurbation.",
)
"""How it was done."""

LIMITS: tuple[str, ...] = (
    "Conurbations of one country, photographed by one agency, are more alike than those of several.",
    "The interval is of cells, not of conurbations: it does not say what to expect of one that was not tested.",
    "Orthophotos of different years and seasons differ in light and leaves, which can pass for a difference of cities.",
    "The predictions are of cells, never of a household or a person; do not use them to decide about anyone.",
)
"""What the matrix does not say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferContent:
    """Everything the page says.

    `transfer` has trained_on (a conurbation, or `OTHERS`), tested_on, value, low and high of Pearson r, and areas.
    """

    title: str
    summary: str
    transfer: pd.DataFrame
    attributions: tuple[Attribution, ...]
    provenance: Mapping[str, str]
    credits_address: str | None = None
    methods: tuple[str, ...] = METHODS
    limits: tuple[str, ...] = LIMITS


def transfer_sentence(transfer: pd.DataFrame) -> str:
    """Does a network carry over to a conurbation it has not seen? A conurbation counts where the interval is above 0.

    Judged on networks trained on all other conurbations, or where there are none, on one other. Raises `InputError`
    where no network was tested on a conurbation it was not trained on.
    """
    elsewhere = transfer[transfer["trained_on"] != transfer["tested_on"]].dropna(subset="value")
    if elsewhere.empty:
        raise InputError("No network was tested on a conurbation it was not trained on: score such a pair first.")
    pooled = elsewhere[elsewhere["trained_on"] == OTHERS]
    source = "all other conurbations" if len(pooled) else "one other conurbation"
    rows = pooled if len(pooled) else elsewhere
    clear = int((rows["low"] > 0).sum())
    claim = (
        "carries over to every conurbation tested"
        if clear == len(rows)
        else f"carries over in {clear} of {len(rows)} tests"
        if clear
        else "is not shown to carry over"
    )
    lowest, middle, highest = rows["value"].quantile([0, 0.5, 1])
    reached = number_text(lowest) if len(rows) == 1 else f"{number_text(lowest)} to {number_text(highest)}"
    median = f", median {number_text(middle)}" if len(rows) > 1 else ""
    sentence = f"A network trained on {source} {claim}: Pearson r {reached}{median}"
    own = transfer.loc[transfer["trained_on"] == transfer["tested_on"], "value"].dropna()
    if len(own):
        sentence += f"; trained on the conurbation itself, the median is {number_text(own.median())}"
    return f"{sentence}."


def transfer_report(content: TransferContent, folder: Path) -> Path:
    """Write the page and its figure into `folder` and return the path of `index.html`.

    Addresses are relative, so the folder can be moved or zipped. Raises `InputError` as `transfer_sentence` does, and
    where a page of an attribution is no web address.
    """
    return write_page(
        "transfer.html.j2",
        folder,
        figures={"transfer": transfer_chart(content.transfer)},
        content=content,
        verdict=(transfer_sentence(content.transfer),),
        table=transfer_table(content.transfer),
    )

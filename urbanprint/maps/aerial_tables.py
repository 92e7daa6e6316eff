"""The numbers of a conurbation seen from above, laid out as tables for a page or a terminal.

What belongs here: which columns and rows a table has, in words. What they amount to is in `aerial_verdict`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from urbanprint.maps.aerial_figures import MODELS, class_names, estimates, model_order
from urbanprint.maps.style import BASELINES, Estimate, number_text

MOST_PAIRS = 20
"""Rows of the table of pairs; two ends of 19 classes have 684."""

_SCORES = {
    ("pearson_r", "block"): "Pearson r, blocks",
    ("pearson_r", "random"): "Pearson r, random",
    ("within_one_class", "block"): "Within one class, blocks",
    ("accuracy", "block"): "Right class, blocks",
    ("rps", "block"): "RPS (0 is best), blocks",
}

Sort = Literal["", "pictures", "baseline", "ceiling", "found"]


@dataclass(frozen=True)
class Row:
    """A line of a table: its name, a score or a text a column, and how it is set off."""

    name: str
    cells: tuple[Estimate | str, ...]
    sort: Sort = ""


@dataclass(frozen=True)
class Table:
    """A table before it becomes text or HTML; the first head is that of the names."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]


def aligned(table: Table) -> str:
    """The table for a terminal, columns aligned, intervals in square brackets."""
    lines = [list(table.heads)]
    for row in table.rows:
        cells = (cell if isinstance(cell, str) else _text(cell) for cell in row.cells)
        lines.append([row.name, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def score_table(scores: pd.DataFrame, *, ceiling: Estimate | None = None) -> Table:
    """Every model under block folds, and its Pearson r under random ones. Raises `InputError` without a Pearson r."""
    estimates(scores, measure="pearson_r")
    columns = scores[["model", "kind", "measure", "value", "low", "high"]]
    found = {
        (model, measure, kind): Estimate(*numbers) for model, kind, measure, *numbers in columns.itertuples(index=False)
    }
    shown = [key for key in _SCORES if any(of[1:] == key for of in found)]
    missing = Estimate(float("nan"))
    rows = [
        Row(
            MODELS.get(model, model),
            tuple(found.get((model, *key), missing) for key in shown),
            "baseline" if model in BASELINES else "pictures",
        )
        for model in model_order(scores["model"])
    ]
    if ceiling is not None:
        reach = tuple(ceiling if measure == "pearson_r" else missing for measure, _ in shown)
        rows.append(Row("Best reachable (simulated ceiling)", reach, "ceiling"))
    return Table("Scores", ("Model", *(_SCORES[key] for key in shown)), tuple(rows))


def audit_table(audit: pd.DataFrame) -> Table:
    """What random folds add to the Pearson r of each model."""
    columns = audit.set_index("model")[["random", "block", "gap", "low", "high"]]
    rows = [
        Row(
            MODELS.get(model, model),
            (number_text(random), number_text(block), Estimate(*gap)),
            "baseline" if model in BASELINES else "pictures",
        )
        for model, random, block, *gap in columns.loc[model_order(audit["model"])].itertuples()
    ]
    return Table("What random folds pretend", ("Model", "Random folds", "Blocks", "Difference"), tuple(rows))


def confusion_table(predictions: pd.DataFrame, *, model: str, classes: int) -> Table:
    """The mean probability of each class that the network says under block folds, a row an observed class."""
    rows = predictions[(predictions["model"] == model) & (predictions["kind"] == "block")]
    names = class_names(classes)
    means = rows.groupby("observed")[[f"p{k}" for k in range(classes)]].mean()
    counts = rows["observed"].value_counts()
    lines = [
        Row(f"{names[int(observed)]}: {counts[observed]:,} cells", tuple(f"{100 * share:.0f} %" for share in shares))
        for observed, *shares in means.itertuples()
    ]
    return Table("What the network says of each class", ("Observed class", *names), tuple(lines))


def ratio_table(ratios: pd.DataFrame, findings: pd.DataFrame) -> Table:
    """The mean activation ratio of each class at both ends, in the order of the chart."""
    columns = ratios[["end", "name", "value", "low", "high"]]
    found = {(end, name): Estimate(*numbers) for end, name, *numbers in columns.itertuples(index=False)}
    tiles = {(end, name): count for end, name, count in ratios[["end", "name", "tiles"]].itertuples(index=False)}
    missing = Estimate(float("nan"))
    ranked = findings.sort_values("attention", ascending=False, na_position="last")
    rows = [
        Row(
            name,
            tuple(found.get((end, name), missing) for end in ("rich", "poor"))
            + tuple(f"{tiles.get((end, name), 0):,}" for end in ("rich", "poor")),
            "found" if sure else "",
        )
        for name, sure in zip(ranked["name"], ranked["attention_found"].astype(bool), strict=True)
    ]
    return Table("Mean activation ratios", ("Class", "Rich end", "Poor end", "Tiles, rich", "Tiles, poor"), tuple(rows))


def finding_table(findings: pd.DataFrame) -> Table:
    """Land and attention of each class, rich less poor, with p-values of both nulls and what the shifts amount to."""
    tests = ("p, shifted", "p, in blocks", "q")
    columns = [f"{of}{test}" for of in ("land", "attention") for test in ("", "_shifts", "_blocks", "_q", "_found")]
    rows = []
    for name, *numbers in findings[["name", *columns]].itertuples(index=False):
        land, attention = numbers[:5], numbers[5:]
        together = _together(land[0], attention[0], land=bool(land[4]), attention=bool(attention[4]))
        cells = (together, number_text(100 * land[0], 1), *map(_p, land[1:4]))
        rows.append(
            Row(name, (*cells, number_text(attention[0]), *map(_p, attention[1:4])), "found" if together else "")
        )
    return Table(
        "Land and attention, rich less poor",
        ("Class", "Together", "Land, points", *tests, "Attention", *tests),
        tuple(rows),
    )


def _together(land_gap: float, attention_gap: float, *, land: bool, attention: bool) -> str:
    if land and attention:
        return "same way" if np.sign(land_gap) == np.sign(attention_gap) else "other way"
    return "land only" if land else "attention only" if attention else ""


def pair_table(pairs: pd.DataFrame) -> Table:
    """The pairs of classes of which anything was found, the strongest of each end first, at most `MOST_PAIRS`."""
    found = pairs[pairs["found"].astype(bool) | pairs["gain_found"].astype(bool)]
    strength = found[["value", "gain"]].clip(1 / 8, 8).apply(np.log).abs()
    strongest = strength.where(found[["found", "gain_found"]].to_numpy(dtype=bool)).max(axis=1).nlargest(MOST_PAIRS)
    ranked = found.loc[strongest.index].sort_values("end", kind="stable")
    columns = ["end", "first", "second", "value", "low", "high", "q_value", "found"]
    columns += ["gain", "gain_low", "gain_high", "gain_q", "gain_found", "tiles"]
    rows = []
    for end, first, second, *numbers, tiles in ranked[columns].itertuples(index=False):
        coactivation, gain = (
            (Estimate(*of[:3]), _p(of[3]) + (" *" if of[4] else "")) for of in (numbers[:5], numbers[5:])
        )
        rows.append(Row(f"{end}: {first} given {second}", (*coactivation, *gain, f"{tiles:,}")))
    title = "Pairs of classes" + (f", the {MOST_PAIRS} strongest of {len(found):,}" if len(found) > MOST_PAIRS else "")
    return Table(
        title,
        ("End: class given another", "Coactivation", "q", "Co-appearance gain", "q", "Tiles of the end with both"),
        tuple(rows),
    )


def sanity_table(sanity: pd.DataFrame) -> Table:
    """Each check of the maps, what it measured and whether it passed."""
    columns = sanity[["check", "value", "low", "high", "passed", "explanation"]]
    rows = [
        Row(check, (Estimate(*numbers), "passed" if passed else "failed", explanation))
        for check, *numbers, passed, explanation in columns.itertuples(index=False)
    ]
    return Table("Checks of the maps", ("Check", "Measured", "Result", "What it says"), tuple(rows))


def calibration_table(calibration: pd.DataFrame) -> Table:
    """Share of cells at most in each class: observed, predicted before and after scaling, and the calibration error."""
    of = {scaling: rows.set_index("threshold") for scaling, rows in calibration.groupby("scaling")}
    scalings = [scaling for scaling in ("before", "after") if scaling in of]
    thresholds = sorted(calibration["threshold"].unique())
    names = class_names(len(thresholds) + 1)
    observed = calibration.groupby("threshold")["observed"].first()
    rows = [
        Row(
            f"at most {names[threshold]}",
            tuple(
                f"{100 * share:.1f} %"
                for share in (
                    observed[threshold],
                    *(of[scaling].loc[threshold, "predicted"] for scaling in scalings),
                    *(of[scaling].loc[threshold, "error"] for scaling in scalings),
                )
            ),
        )
        for threshold in thresholds
    ]
    heads = [f"{word}, {scaling}" for word in ("Predicted", "Error") for scaling in scalings]
    return Table("Calibration at each threshold", ("Class", "Observed", *heads), tuple(rows))


def transfer_table(transfer: pd.DataFrame) -> Table:
    """A row a training and test conurbation."""
    columns = transfer[["trained_on", "tested_on", "value", "low", "high", "areas"]]
    rows = [
        Row(trained, (tested, Estimate(*numbers), f"{areas:,}"))
        for trained, tested, *numbers, areas in columns.itertuples(index=False)
    ]
    return Table("Transfer", ("Trained on", "Tested on", "Pearson r", "Cells tested"), tuple(rows))


def _text(score: Estimate) -> str:
    """`0.53 [0.44, 0.61]`, without the interval where it is unknown, `-` where there is no score."""
    value, low, high = map(number_text, score)
    return value if pd.isna(score.low) else f"{value} [{low}, {high}]"


def _p(value: float) -> str:
    """A p- or q-value."""
    return "-" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"

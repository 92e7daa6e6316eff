"""What a map of wealth without pictures scores on real clusters: writes its tables into `docs/livelihood.md`.

`python -m benchmarks.livelihood_baselines` reads the LSMS asset index from the folder that URBANPRINT_REALDATA names
(default ../shared/realdata), runs every image-free baseline under random, country and block folds, measures what
choosing on the validation list flatters, and replaces what stands between the two marks of the document.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsRegressor

from urbanprint.errors import InputError
from urbanprint.evaluation.cluster_baselines import baseline_learner, cluster_baselines
from urbanprint.evaluation.cluster_scores import score_clusters
from urbanprint.evaluation.clusters import cluster_folds, cluster_splits, cross_fit_clusters
from urbanprint.evaluation.optimism import selection_optimism
from urbanprint.evaluation.tasks import Task, cluster_labels
from urbanprint.indicators.survey import DHS_JITTER, read_clusters
from urbanprint.vocabulary import CLUSTER_BASELINES, TASK_MEASURES

_ROOT = Path(__file__).resolve().parent.parent
_MARKS = ("<!-- begin: written by python -m benchmarks.livelihood_baselines -->", "<!-- end -->")
_KINDS = {"random": "random places", "borough": "whole countries", "block": "blocks of 100 km, buffer 20 km"}
_TASKS: tuple[Task, ...] = ("regression", "classification")
_FOLDS, _SEED, _BLOCK_M, _BUFFER_M = 5, 0, 100_000.0, 20_000.0
_STUDIES = {"learnable": (0.0, 0.3), "validation": (200, 1_400)}


def lsms_clusters(path: Path) -> pd.DataFrame:
    """The clusters of the LSMS file: visits, told apart by place and year; the asset index is the indicator."""
    parts = ("country", "year", "ea_id", "lon", "lat")
    return read_clusters(path, columns={"poverty": "asset_index"}, id_columns=parts)


def baseline_scores(clusters: pd.DataFrame, *, repeats: int = 1000) -> pd.DataFrame:
    """Scores (`tables.CLUSTER_SCORES`) of every image-free baseline, both tasks, every kind of fold."""
    folds = cluster_folds(clusters, folds=_FOLDS, seed=_SEED, block_m=_BLOCK_M, jitter=DHS_JITTER)
    labels = cluster_labels(clusters)
    parts = []
    for kind in _KINDS:
        splits = list(cluster_splits(folds, kind, buffer_m=_BUFFER_M, jitter=DHS_JITTER))
        for task in _TASKS:
            for name in cluster_baselines(clusters):
                learner = baseline_learner(name, clusters, labels, folds, task=task, seed=_SEED)
                parts.append(cross_fit_clusters(learner, model=name, splits=splits, labels=labels, task=task))
    return score_clusters(pd.concat(parts, ignore_index=True), folds=folds, repeats=repeats, seed=_SEED)


def nearest_r2(clusters: pd.DataFrame, *, deal: str) -> float:
    """R2 of the single nearest training cluster if "visits" or "places" are dealt out at random.

    With visits, other years of a test village train. Split here and not in the library, which refuses to.
    """
    place, y = clusters[["longitude", "latitude"]].to_numpy(), clusters["poverty"].to_numpy()
    unit = clusters.groupby(["longitude", "latitude"]).ngroup().to_numpy() if deal == "places" else np.arange(len(y))
    fold = (np.random.default_rng(_SEED).permutation(unit.max() + 1) % _FOLDS)[unit]
    predicted = np.empty(len(y))
    for k in range(_FOLDS):
        predicted[fold == k] = KNeighborsRegressor(1).fit(place[fold != k], y[fold != k]).predict(place[fold == k])
    return float(r2_score(y, predicted))


def markdown(clusters: pd.DataFrame, scores: pd.DataFrame, optimism: pd.DataFrame) -> str:
    """What stands between the marks."""
    countries = ", ".join(f"{name} {count}" for name, count in clusters["country"].value_counts().items())
    places = len(clusters.drop_duplicates(["longitude", "latitude"]))
    lines = [f"{len(clusters):,} clusters at {places:,} places ({countries})."]
    cells = _cells(scores)
    for task in _TASKS:
        measures = [measure for measure in TASK_MEASURES[task] if measure != "pearson_r"]
        for kind, title in _KINDS.items():
            lines += ["", f"**{task.capitalize()}, {title}**", ""]
            lines += _header(["baseline", *(TASK_MEASURES[task][measure] for measure in measures)])
            for name in scores["model"].unique():
                row = [CLUSTER_BASELINES[name], *(cells[name, kind, task, measure] for measure in measures)]
                lines.append(f"| {' | '.join(row)} |")
    lines += [
        "",
        f"The single nearest cluster scores R² {nearest_r2(clusters, deal='visits'):.2f} if visits are dealt out at"
        f" random, which the library refuses, and {nearest_r2(clusters, deal='places'):.2f} if places are.",
        "",
        "**The best of 60 evaluations on the validation list** (simulated; mean and the range of 95 % of the studies)",
        "",
        *_header(["task and score", "what can be learned", "validation clusters", "reported", "honest", "optimism"]),
    ]
    for (asked, learnable, validation), group in optimism.groupby(["task", "learnable", "validation"]):
        score = "accuracy" if asked == "classification" else "R²"
        by_quantity = group.set_index("quantity")[["value", "low", "high"]]
        values = [_span(*by_quantity.loc[name], digits=3) for name in ("reported", "honest", "optimism")]
        share = "nothing" if learnable == 0 else f"R² at most {learnable:g}"
        lines.append(f"| {asked}, {score} | {share} | {validation:,} | {' | '.join(values)} |")
    return "\n".join(lines)


def write(document: Path, text: str) -> None:
    """Replace what stands between the marks of the document."""
    whole = document.read_text(encoding="utf-8")
    if any(whole.count(mark) != 1 for mark in _MARKS):
        raise InputError(f"{document.name} does not hold the marks {' and '.join(_MARKS)} once each: restore them.")
    before, rest = whole.split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    document.write_text(f"{before}{_MARKS[0]}\n\n{text}\n\n{_MARKS[1]}{after}", encoding="utf-8")


def _cells(scores: pd.DataFrame) -> dict[tuple[str, str, str, str], str]:
    """(model, kind, task, measure) -> text; a squared r that is worth printing says when r is negative."""
    keys = ["model", "kind", "task", "measure"]
    by_key = scores.set_index(keys)[["value", "low", "high"]]
    cells = {key: _span(*by_key.loc[key], digits=2) for key in by_key.index}
    for key, text in cells.items():
        if key[-1] == "pearson_r2" and by_key.loc[(*key[:-1], "pearson_r"), "value"] < 0 and text[:4] != "0.00":
            cells[key] = f"{text} (r < 0)"
    return cells


def _span(value: float, low: float, high: float, *, digits: int) -> str:
    if np.isnan(value):
        return "undefined"
    first, second, third = (f"{round(each, digits) + 0.0:.{digits}f}" for each in (value, low, high))
    return f"{first} [{second}, {third}]"


def _header(names: list[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def main() -> None:
    """Write the tables."""
    realdata = Path(os.environ.get("URBANPRINT_REALDATA", _ROOT.parent / "shared" / "realdata"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=Path, default=realdata / "livelihood" / "lsms_asset_index.csv")
    parser.add_argument("--document", type=Path, default=_ROOT / "docs" / "livelihood.md")
    asked = parser.parse_args()
    clusters = lsms_clusters(asked.clusters)
    optimism = pd.concat(
        selection_optimism(learnable=learnable, validation=validation, seed=_SEED)
        for learnable in _STUDIES["learnable"]
        for validation in map(int, _STUDIES["validation"])
    )
    write(asked.document, markdown(clusters, baseline_scores(clusters), optimism))
    print(f"Wrote {asked.document}.")


if __name__ == "__main__":
    main()

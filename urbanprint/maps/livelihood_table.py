"""The results table of the livelihood models: a row a learner, a column a country, indicator and measure.

What belongs here: which scores stand in which table, in what order and under which names, and the tables as Markdown
and as text. What they amount to in words is in `livelihood_verdict`, the page they stand on in `livelihood_report`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any, Literal

import pandas as pd

from urbanprint.errors import InputError
from urbanprint.evaluation.tasks import Task
from urbanprint.maps.style import Estimate
from urbanprint.vocabulary import CLUSTER_BASELINES, LIVELIHOODS, TASK_MEASURES

PICTURE_LEARNERS: dict[str, str] = {
    "imagewise": "image-wise network",
    "clusterwise": "cluster-wise: object counts",
    "graph_objects": "graph: object counts",
    "graph_images": "graph: image features",
    "graph_both": "graph: both",
    "graph_both_random": "graph: both, random edges",
    "graph_both_identity": "graph: both, no edges",
    "graph_both_complete": "graph: both, complete edges",
    "graph_both_attention": "graph: both, attention pooling",
}
"""Learners that look at pictures: identifier -> name for people."""

LEARNERS: dict[str, str] = {**CLUSTER_BASELINES, **PICTURE_LEARNERS}
"""All learners in the order in which tables and charts show them."""

READERS: dict[str, str] = {
    "images": "best reachable from single images",
    "set": "best reachable from sets of images",
}
"""The best scores of a simulated country, by how pictures are read (`simulation.survey.ceiling`)."""

CLUSTER_FOLDS: dict[str, str] = {
    "block": "spatial blocks with a buffer",
    "borough": "whole regions",
    "random": "random places",
    "listed": "published lists",
}
"""The kinds of fold within a country, the most honest first, and fixed lists. Any other kind is a transfer."""

SHORT_NAMES: dict[str, str] = {"poverty": "Asset wealth", "population": "Population density", "bmi": "Women's BMI"}
"""The indicators where there is little room."""

SHOWN_MEASURES: dict[Task, tuple[str, ...]] = {"classification": ("accuracy",), "regression": ("r2", "pearson_r2")}
"""The measures of each task that have a column; the first is the one that the verdict judges."""

MOST_COLUMNS = 6
"""A table with more columns than this becomes one table a country: the page is 62 em wide and the terminal 160."""

Key = tuple[str, str, str, Task, str]
"""Country, kind, indicator, task, measure."""


@dataclass(frozen=True)
class Cell:
    """A score and how it may be read.

    `negative`: a squared Pearson r whose r is below zero, so that it is no skill. `ahead`: higher than that of every
    baseline in the same column, which says nothing of chance.
    """

    score: Estimate
    negative: bool = False
    ahead: bool = False


@dataclass(frozen=True)
class Row:
    """A line of a table: a learner, the best reachable score, or plainly what its name says."""

    name: str
    sort: Literal["baseline", "pictures", "ceiling", "plain"]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table before it becomes text or HTML. A column has a heading on each of several levels."""

    title: str
    columns: tuple[tuple[str, ...], ...]
    rows: tuple[Row, ...]
    intervals_in_text: bool = False

    @property
    def head(self) -> list[list[tuple[str, int]]]:
        """The headings, a list a level: text and how many columns it spans."""
        levels = range(len(self.columns[0]))
        return [
            [(prefix[-1], len(list(same))) for prefix, same in groupby(column[: level + 1] for column in self.columns)]
            for level in levels
        ]


def results_tables(
    scores: Mapping[str, pd.DataFrame], *, ceilings: Mapping[str, pd.DataFrame] | None = None
) -> tuple[Table, ...]:
    """The tables of each kind of fold within a country and each task, the most honest kind first.

    `scores` maps a country to its `tables.CLUSTER_SCORES`, `ceilings` to its `simulation.survey.ceiling`, which has no
    squared r. A learner that was not scored has no row, an indicator that a country lacks no column. Above
    `MOST_COLUMNS` columns a table becomes one a country.

    Raises `InputError` where there is no score under any of these kinds.
    """
    found = _found(scores)
    best = _ceilings(ceilings or {})
    made = []
    for kind, fold_name in CLUSTER_FOLDS.items():
        for task in SHOWN_MEASURES:
            keys = _columns(found, kind=kind, task=task)
            title = f"{task.capitalize()}, {fold_name}"
            if 0 < len(keys) <= MOST_COLUMNS:
                made.append(_results_table(title, keys, found, best))
            else:
                alone = dict.fromkeys(key[0] for key in keys)
                made += [_results_table(title, keys, found, best, country=country) for country in alone]
    if not made:
        raise InputError(f"There are no scores under folds of {', '.join(CLUSTER_FOLDS.values())}: score these first.")
    return tuple(made)


def transfer_tables(scores: Mapping[str, pd.DataFrame]) -> tuple[Table, ...]:
    """The scores of training on, or together with, another country: a table a country, indicator and task.

    A row a learner, a column a kind of `scores` that is no kind of fold, such as "ng to et", in the order in which they
    come.
    """
    found = _found(scores)
    made = []
    for country, frame in scores.items():
        kinds = [kind for kind in frame["kind"].unique() if kind not in CLUSTER_FOLDS]
        for task, (measure, *_) in SHOWN_MEASURES.items():
            for indicator in LIVELIHOODS:
                keys: list[Key] = [(country, kind, indicator, task, measure) for kind in kinds]
                keys = [key for key in keys if key in found]
                if not keys:
                    continue
                headings = tuple((key[1],) for key in keys)
                title = f"{country}, {SHORT_NAMES[indicator]}, {TASK_MEASURES[task][measure]}"
                made.append(Table(title, headings, tuple(_learner_rows(found, keys))))
    return tuple(made)


def image_tables(image_scores: Mapping[str, pd.DataFrame]) -> tuple[Table, ...]:
    """The image-wise network's score over single images beside that over clusters, a table a task.

    `image_scores` maps a country to the rows of `models.imagewise_clusters.image_scores` with the column `task`.
    """
    by_key = {
        (country, *key): Estimate(score)
        for country, frame in image_scores.items()
        for *key, score in _values(frame, "indicator", "task", "kind", "unit", "score")
    }
    made = []
    for task, (measure, *_) in SHOWN_MEASURES.items():
        kinds = [kind for kind in CLUSTER_FOLDS if any(key[2:4] == (task, kind) for key in by_key)]
        columns = [(kind, unit) for kind in kinds for unit in ("image", "cluster")]
        names = [(c, i) for c in image_scores for i in LIVELIHOODS if any(key[:3] == (c, i, task) for key in by_key)]
        missing = Estimate(float("nan"))
        rows = tuple(
            Row(
                f"{country}, {SHORT_NAMES[indicator]}",
                "plain",
                tuple(Cell(by_key.get((country, indicator, task, *column), missing)) for column in columns),
            )
            for country, indicator in names
        )
        headings = tuple((CLUSTER_FOLDS[kind], f"{unit}s") for kind, unit in columns)
        if rows:
            made.append(Table(f"{task.capitalize()}, {TASK_MEASURES[task][measure]}", headings, rows))
    return tuple(made)


def table_markdown(scores: Mapping[str, pd.DataFrame], *, ceilings: Mapping[str, pd.DataFrame] | None = None) -> str:
    """All tables as Markdown, with intervals; transfers last."""
    parts = []
    for table in (*results_tables(scores, ceilings=ceilings), *transfer_tables(scores)):
        head = ["learner", *(", ".join(column) for column in table.columns)]
        body = [[row.name, *map(_cell_text, row.cells)] for row in table.rows]
        lines = [f"| {' | '.join(_escaped(line))} |" for line in (head, *body)]
        parts.append("\n".join([f"**{table.title}**", "", lines[0], f"|{'---|' * len(head)}", *lines[1:]]))
    return "\n\n".join(parts)


def table_text(scores: Mapping[str, pd.DataFrame], *, ceilings: Mapping[str, pd.DataFrame] | None = None) -> str:
    """All tables as aligned columns for a terminal of 160 characters; transfers last.

    To fit, only block folds have intervals, and the squared r never.
    """
    return "\n\n".join(
        _aligned(table) for table in (*results_tables(scores, ceilings=ceilings), *transfer_tables(scores))
    )


def _values(frame: pd.DataFrame, *columns: str) -> Iterable[Any]:
    """The rows of some columns."""
    return frame[list(columns)].to_numpy(dtype=object)


def _found(scores: Mapping[str, pd.DataFrame]) -> dict[Key, dict[str, Cell]]:
    """Column -> model -> its cell, for all scores there are."""
    found: dict[Key, dict[str, Cell]] = {}
    for country, frame in scores.items():
        for kind, indicator, task, measure, model, *score in _values(
            frame, "kind", "indicator", "task", "measure", "model", "value", "low", "high"
        ):
            found.setdefault((country, kind, indicator, task, measure), {})[model] = Cell(Estimate(*score))
    for key, cells in found.items():
        if key[4] == "pearson_r2":
            r = found.get((*key[:4], "pearson_r"), {})
            found[key] = {
                # A square that is printed as 0.00 misleads nobody.
                model: Cell(cell.score, negative=model in r and r[model].score.value < 0 and cell.score.value >= 0.005)
                for model, cell in cells.items()
            }
    return found


def _ceilings(ceilings: Mapping[str, pd.DataFrame]) -> dict[tuple[str, ...], Estimate]:
    """(country, indicator, task, reader) -> best reachable score."""
    return {
        (country, indicator, task, reader): Estimate(score)
        for country, frame in ceilings.items()
        for indicator, task, reader, score in _values(frame, "indicator", "task", "reader", "score")
    }


def _columns(found: Mapping[Key, object], *, kind: str, task: Task) -> list[Key]:
    countries = dict.fromkeys(key[0] for key in found)
    keys = [(c, kind, i, task, measure) for c in countries for i in LIVELIHOODS for measure in SHOWN_MEASURES[task]]
    return [key for key in keys if key in found]


def _results_table(
    title: str,
    keys: Sequence[Key],
    found: Mapping[Key, Mapping[str, Cell]],
    best: Mapping[tuple[str, ...], Estimate],
    *,
    country: str | None = None,
) -> Table:
    """The table of these columns, or of those of one country, which then stands in the title."""
    if country is not None:
        keys = [key for key in keys if key[0] == country]
    headings = [(key[0], SHORT_NAMES[key[2]], TASK_MEASURES[key[3]][key[4]]) for key in keys]
    return Table(
        title if country is None else f"{title}: {country}",
        tuple(heading if country is None else heading[1:] for heading in headings),
        (*_learner_rows(found, keys), *_ceiling_rows(best, keys)),
        intervals_in_text=keys[0][1] == "block",
    )


def _learner_rows(found: Mapping[Key, Mapping[str, Cell]], keys: Sequence[Key]) -> list[Row]:
    """A row a learner that has a score in one of the columns; learners without a name come last."""
    there = sorted({model for key in keys for model in found[key]})
    missing = Cell(Estimate(float("nan")))
    hurdle = {key: _hurdle(found[key]) for key in keys}
    rows = []
    for model in [*(name for name in LEARNERS if name in there), *(name for name in there if name not in LEARNERS)]:
        cells = [found[key].get(model, missing) for key in keys]
        if model in CLUSTER_BASELINES:
            rows.append(Row(LEARNERS[model], "baseline", tuple(cells)))
            continue
        judged = tuple(
            Cell(cell.score, cell.negative, ahead=not cell.negative and cell.score.value > hurdle[key])
            for key, cell in zip(keys, cells, strict=True)
        )
        rows.append(Row(LEARNERS.get(model, model), "pictures", judged))
    return rows


def _hurdle(cells: Mapping[str, Cell]) -> float:
    """The best score of a baseline, a flagged one worth nothing; infinite where none was scored: none is ahead then."""
    baselines = [cell for model, cell in cells.items() if model in CLUSTER_BASELINES and not pd.isna(cell.score.value)]
    return max((0.0 if cell.negative else cell.score.value for cell in baselines), default=float("inf"))


def _ceiling_rows(best: Mapping[tuple[str, ...], Estimate], keys: Sequence[Key]) -> list[Row]:
    missing = Estimate(float("nan"))
    rows = []
    for reader, name in READERS.items():
        scores = [
            best.get((country, indicator, task, reader), missing) if measure == SHOWN_MEASURES[task][0] else missing
            for country, _, indicator, task, measure in keys
        ]
        if not all(pd.isna(score.value) for score in scores):
            rows.append(Row(name, "ceiling", tuple(map(Cell, scores))))
    return rows


def _cell_text(cell: Cell, *, interval: bool = True) -> str:
    """`0.74 [0.70, 0.78]`; a squared r below which r is negative says so; `-` where there is no score."""
    if pd.isna(cell.score.value):
        return "-"
    text = _number(cell.score.value)
    if interval and not pd.isna(cell.score.low):
        text += f" [{_number(cell.score.low)}, {_number(cell.score.high)}]"
    return f"{text} (r < 0)" if cell.negative else text


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # + 0.0: never -0.00


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]


def _aligned(table: Table) -> str:
    """The title, the headings (each once, over the columns it spans), a rule, and the rows."""
    squared = TASK_MEASURES["regression"]["pearson_r2"]
    interval = [table.intervals_in_text and column[-1] != squared for column in table.columns]
    *spanning, last = table.head
    rows = [
        [row.name, *(_cell_text(cell, interval=each) for cell, each in zip(row.cells, interval, strict=True))]
        for row in table.rows
    ]
    lines = [["", *(name for name, _ in last)], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, columns in (each for level in spanning for each in _places(level)):
        widths[columns.stop - 1] += max(len(name) - _width(widths[columns]), 0)
    heads = [
        [" " * widths[0], *(name.ljust(_width(widths[columns])) for name, columns in _places(level))]
        for level in spanning
    ]
    body = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    rule = ["-" * width for width in widths]
    return "\n".join([table.title, "", *("  ".join(line).rstrip() for line in (*heads, body[0], rule, *body[1:]))])


def _places(level: Sequence[tuple[str, int]]) -> list[tuple[str, slice]]:
    """The headings of a level and the columns they span; the learner's name is column 0."""
    ends = list(accumulate((span for _, span in level), initial=1))
    return [(name, slice(start, end)) for (name, _), (start, end) in zip(level, pairwise(ends), strict=True)]


def _width(widths: Sequence[int]) -> int:
    """Characters that columns take with two spaces between them."""
    return sum(widths) + 2 * (len(widths) - 1)

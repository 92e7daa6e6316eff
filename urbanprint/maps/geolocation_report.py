"""The report on where photographs were taken: one page to read, print and pass on, and its summary for a terminal.

What belongs here: what the page says, from tables to sentences. The figures are in `geolocation_figures`, the words
around them, among them what all this can be misused for, in the template.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from urbanprint.errors import InputError
from urbanprint.evaluation.scores import FEWEST_UNITS
from urbanprint.maps import geolocation_figures as figures
from urbanprint.maps.geolocation_figures import MODELS, OURS, measure_name, measure_text, model_order
from urbanprint.maps.report import Attribution
from urbanprint.maps.style import Estimate
from urbanprint.maps.thumbnails import thumbnail
from urbanprint.statements import LOCATING_USE

FEWEST_IMAGES = 100
"""Below this many test images no model is said to beat another: the share within a distance then has a standard error
of up to 0.05 even if the images are independent."""

METHODS: tuple[str, ...] = (
    "The Earth is halved in latitude and longitude again and again; a cell of level Ln is one of 4 to the power of n. "
    "Images were sought cell by cell where there is land, at most one of each drive, near points spread at random.",
    "Images that share a drive or a photograph, or lie near each other, were joined into groups, and whole groups were "
    "dealt out to the parts that train, calibrate and test.",
    "A cell with too few training images is no class; its images train the class around or beside it. A test image in "
    "such a cell counts as wrong at that level.",
    "The joint network shares one probability out among the finest cells, a coarser cell has the sum of those in it, "
    "and it learns from all levels at once. With one network a level, each shares a parent's probability out among its "
    "children. Both guess the place around which most probability gathers, within a few hundred kilometres.",
    "The old fusion, of an earlier project, multiplies a parent's probability by the raw score of its child, which can "
    "be negative and then rewards unlikely parents. It is shown because it is what others have used.",
    "The nearest neighbour answers with the position of the training photograph whose features are most alike, in a "
    "network that was never trained to locate. The prior answers every photograph with the place from which the "
    "training images are least far on average.",
    "Temperatures and the limits of sets were fitted on calibration images and judged, as all else, on test images.",
    "Intervals hold 95 % of a bootstrap over whole cells of test images, because neighbours resemble each other. "
    "Differences are judged on the same draws, each on its own: of 20 true ties one is called a difference by chance.",
)
"""How it was done, in plain sentences true of every world."""

LIMITS: tuple[str, ...] = (
    "Contributors decide what can be learned: where nobody uploads images nothing is learned, and answers lean towards "
    "the places and people that have cameras, cars and time. Read the scores by continent before using the average.",
    "Test images lie apart from the training images, but that does not make their country unseen: a street a kilometre "
    "from one that trained is easier than one in a country without any. What to expect there is not measured.",
    "The scores are for street images with a car's view, by daylight, as contributors take them. Holiday pictures, "
    "interiors, drawings and old photographs are other pictures: expect less, and heed the note of an unfamiliar one.",
    "Promises of coverage hold over all images like those of the calibration together, not for each place on its own.",
    "An answer is a statement about what a place looks like, never evidence of where a person was.",
)
"""What the scores do not say."""

_SPOKEN = {
    "joint": "the joint network",
    "levels": "one network a level",
    "old-fusion": "one network a level with the old fusion",
    "nearest-neighbour": "the nearest neighbour in features",
    "prior": "the prior",
}
"""Models as a sentence names them."""

_DISTANCES = ("geoscore", *(f"within_{km}_km" for km in (25, 200, 750, 2500)), "median_km")
_JUDGED = {"geoscore": "on the GeoScore", "within_200_km": "within 200 km"}
"""Measures the verdict is about; of both more is better."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GeolocationContent:
    """Everything the report says.

    - `guesses`, `scores`, `differences`: `geolocation.scores.GUESSES`, `GEOLOCATION_SCORES`, `GEOLOCATION_DIFFERENCES`;
    - `calibration`: `comparison.calibration_errors` on test images;
    - `reliability`: model -> "before" and "after" -> `calibration.reliability` at the finest level;
    - `coverage`: `geolocation.comparison.SET_COVERAGE`, of sets that promise to hold the true cell `promised` often;
    - `classes`: `geolocation.datasets.CLASS_REPORT`; `parts`: how many images each part has, by its name;
    - `asked_cells`, `imaged_cells`, `empty_cells`: cells searched for images, with some, and searched in vain;
    - `ceiling`: `simulation.planet_ceiling.ceiling`, known of a simulated planet only;
    - `examples`: caption and picture (PNG or JPEG), shown as copies without EXIF;
    - `apart_m`: least distance of images of two parts in metres; `finest`: the precision cap, None without one.
    """

    title: str
    summary: str
    guesses: pd.DataFrame
    scores: pd.DataFrame
    differences: pd.DataFrame
    calibration: pd.DataFrame
    reliability: Mapping[str, Mapping[str, pd.DataFrame]]
    coverage: pd.DataFrame
    classes: pd.DataFrame
    parts: Mapping[str, int]
    land: np.ndarray
    asked_cells: int
    imaged_cells: int
    empty_cells: int
    attributions: tuple[Attribution, ...]
    provenance: Mapping[str, str]
    apart_m: float
    promised: float = 0.9
    ceiling: pd.DataFrame | None = None
    examples: tuple[tuple[str, bytes], ...] = ()
    coverage_map: str | None = None
    credits_address: str | None = None
    finest: int | None = None
    methods: tuple[str, ...] = METHODS
    limits: tuple[str, ...] = LIMITS


@dataclass(frozen=True)
class Row:
    """A line of the table: a model or the best reachable, with a score for each measure, NaN where there is none."""

    name: str
    sort: Literal["pictures", "baseline", "ceiling"]
    scores: tuple[Estimate, ...]


@dataclass(frozen=True)
class Table:
    """The scores of all test images before they become text or HTML."""

    title: str
    measures: tuple[str, ...]
    rows: tuple[Row, ...]


Section = Literal["scores", "map", "places", "certainty", "examples"]


@dataclass(frozen=True)
class Picture:
    """A figure of the page: the section it belongs to, its file, its words for those who cannot see it, its caption."""

    section: Section
    file: str
    content: bytes
    alt: str
    caption: str = ""


# --- what it amounts to ----------------------------------------------------------------------------------------------


def verdict(content: GeolocationContent) -> tuple[str, ...]:
    """What the tables amount to, a sentence each; 95 % intervals stand in square brackets.

    The joint network against each other model on the GeoScore and within 200 km: it beats it where the interval of the
    paired difference lies above 0, is behind where it lies below, and cannot be told apart otherwise. Then what the
    probabilities and sets of both designs are worth, and how far the joint network is from the best reachable.
    """
    return (*_comparisons(content), *_calibration(content), *_coverage(content), *_reach(content))


def summary_text(content: GeolocationContent) -> str:
    """The tables and the verdict for a terminal of 160 characters. Raises `InputError` where nothing is scored."""
    tables = [_aligned(table) for table in score_tables(content.scores, ceiling=content.ceiling)]
    return "\n\n".join([content.title, *tables, *verdict(content)])


def score_tables(scores: pd.DataFrame, *, ceiling: pd.DataFrame | None = None) -> tuple[Table, ...]:
    """All models over all test images: distances in one table, the right cell of each level in another.

    Raises `InputError` where `scores` (`GEOLOCATION_SCORES`) hold nothing of all images.
    """
    found = _overall(scores)
    levels = sorted({int(measure.removeprefix("top_1_L")) for _, measure in found if measure.startswith("top_1_L")})
    cells = tuple(f"top_1_L{level}" for level in levels)
    best = {} if ceiling is None else dict(zip(ceiling["measure"], ceiling["score"], strict=True))
    missing = Estimate(float("nan"))
    tables = []
    for title, measures in (("How far off", _DISTANCES), ("The likeliest cell is the right one", cells)):
        rows = [
            Row(
                MODELS.get(model, model),
                "pictures" if model in OURS else "baseline",
                tuple(found.get((model, measure), missing) for measure in measures),
            )
            for model in model_order(model for model, _ in found)
        ]
        if any(measure in best for measure in measures):
            reach = tuple(Estimate(best.get(measure, float("nan"))) for measure in measures)
            rows.append(Row("Best reachable from these pictures", "ceiling", reach))
        if measures:
            tables.append(Table(title, measures, tuple(rows)))
    return tuple(tables)


def _overall(scores: pd.DataFrame) -> dict[tuple[str, str], Estimate]:
    """(model, measure) -> score of all test images."""
    rows = scores[scores["by"] == "all"]
    if rows.empty:
        raise InputError("The scores hold no row of all test images; score the guesses first.")
    columns = _columns(rows, "model", "measure", "value", "low", "high")
    return {(model, measure): Estimate(*numbers) for model, measure, *numbers in columns}


def _comparisons(content: GeolocationContent) -> Iterator[str]:
    """A sentence for each model the joint one was compared with, the old fusion first: that is the question."""
    found = _overall(content.scores)
    rows = content.differences[(content.differences["model_a"] == "joint") & (content.differences["by"] == "all")]
    for rival in sorted(model_order(rows["model_b"]), key=lambda model: model != "old-fusion"):
        parts: list[str] = []
        last = ""
        for measure, where in _JUDGED.items():
            chosen = rows[(rows["model_b"] == rival) & (rows["measure"] == measure)]
            for images, groups, *gain in _columns(chosen, "images", "groups", "value", "low", "high"):
                claim = _claim(Estimate(*gain), enough=images >= FEWEST_IMAGES and groups >= FEWEST_UNITS)
                told = "" if claim == last else claim.format("it" if parts else _SPOKEN.get(rival, rival)) + " "
                ours, theirs = (measure_text(measure, found[model, measure].value) for model in ("joint", rival))
                parts.append(f"{told}{where} ({ours} against {theirs}, a difference of {_points(measure, *gain)})")
                last = claim
        if parts:
            yield f"The joint network {_listed(parts)}."


def _claim(gain: Estimate, *, enough: bool) -> str:
    if not enough:
        return "is scored on too few images or blocks to be compared with {}"
    return "beats {}" if gain.low > 0 else "is behind {}" if gain.high < 0 else "cannot be told apart from {}"


def _calibration(content: GeolocationContent) -> Iterator[str]:
    for model, rows in _by_model(content.calibration):
        level, error, chance = max(_columns(rows, "level", "after", "chance"), key=lambda row: row[1])
        yield (
            f"After scaling, the confidence of {model} is off by at most {100 * error:.1f} percentage points on average"
            f" (at L{level}; before by at most {100 * rows['before'].max():.1f}). Right probabilities would seem off by"
            f" up to {100 * chance:.1f} on these images."
        )


def _coverage(content: GeolocationContent) -> Iterator[str]:
    for model, rows in _by_model(content.coverage):
        kept = list(_columns(rows[rows["promised"]], "level", "coverage", "low", "high"))
        if kept:
            told = [f"{_told('coverage', *numbers, unit=' %')} at L{level}" for level, *numbers in kept]
            short = [f"L{level}" for level, _, _, high in kept if high < content.promised]
            judged = f"fewer than promised at {_listed(short)}" if short else "at no level fewer by more than chance"
            yield (
                f"Where {_percent(content.promised)} was promised, the sets of {model} hold the true cell of"
                f" {_listed(told)} of the test images: {judged}."
            )
        if silent := [f"L{level}" for (level,) in _columns(rows[~rows["promised"]], "level")]:
            yield (
                f"At {_listed(silent)} the sets of {model} promise nothing and are every cell: too many calibration"
                " images lie in cells that are no class."
            )


def _reach(content: GeolocationContent) -> Iterator[str]:
    if content.ceiling is None:
        return
    found = _overall(content.scores)
    best = dict(_columns(content.ceiling, "measure", "score"))
    parts = []
    for measure, where in _JUDGED.items():
        if measure in best and ("joint", measure) in found:
            gap = best[measure] - found["joint", measure].value
            reached = f"{_points(measure, abs(gap))} {'below' if gap >= 0 else 'above'} it"
            parts.append(f"{measure_text(measure, best[measure])} {where} (the joint network is {reached})")
    if parts:
        yield f"Known because the planet is simulated, the best answers to these pictures reach {_listed(parts)}."


def _by_model(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """How a sentence names each model, and its rows by level."""
    for model in model_order(table["model"]):
        yield _SPOKEN.get(model, model), table[table["model"] == model].sort_values("level")


def _columns(table: pd.DataFrame, *names: str) -> Iterator[tuple[Any, ...]]:
    yield from table[list(names)].itertuples(index=False, name=None)


def _listed(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _points(measure: str, *difference: float) -> str:
    """A difference, of shares in percentage points."""
    return _told(measure, *difference, unit=" points" if measure.startswith("within_") else "")


def _told(measure: str, value: float, low: float = np.nan, high: float = np.nan, *, unit: str) -> str:
    """A value with its interval, where it is known, in square brackets."""
    text, *ends = (measure_text(measure, number).removesuffix(" %") for number in (value, low, high))
    return f"{text}{unit}" if pd.isna(low) else f"{text}{unit} [{' to '.join(ends)}]"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _aligned(table: Table) -> str:
    """Columns of plain numbers, shares in %, each with its interval."""
    shares = [measure_text(measure, 0.0).endswith("%") for measure in table.measures]
    names = zip(map(measure_name, table.measures), shares, strict=True)
    lines = [[table.title, *(f"{name}, %" if share else name for name, share in names)]]
    lines += [[row.name, *map(_plain, row.scores, shares)] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _plain(score: Estimate, share: bool) -> str:
    """`26.4 [23.8, 29.6]`; `-` where there is no score."""
    value, low, high = (f"{100 * number:.1f}" if share else f"{number:.0f}" for number in score)
    return "-" if pd.isna(score.value) else value if pd.isna(score.low) else f"{value} [{low}, {high}]"


# --- the page --------------------------------------------------------------------------------------------------------


def geolocation_report(content: GeolocationContent, *, folder: Path) -> Path:
    """Write the report and its figures into `folder` and return the path of `index.html`.

    Addresses are relative, so the folder can be moved or zipped. Parts without content have no section. Raises
    `InputError` where nothing is scored, an example is no image, or a page of an attribution is no web address.
    """
    for source in content.attributions:
        if source.page is not None and not source.page.startswith(("https://", "http://")):
            raise InputError(f"The page {source.page!r} of the attribution {source.what!r} is no http(s) address.")
    tables = score_tables(content.scores, ceiling=content.ceiling)
    pictures = [*_examples(content), *_charts(content)]
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        (folder / "figures" / picture.file).write_bytes(picture.content)
    templates = Environment(
        loader=PackageLoader("urbanprint.maps"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"percent": _percent, "measure": measure_name}
    page = templates.get_template("geolocation.html.j2").render(
        content=content,
        verdict=verdict(content),
        tables=tables,
        pictures={section: [each for each in pictures if each.section == section] for section in get_args(Section)},
        certainty=content.calibration.merge(content.coverage, on=["model", "level"], how="left").to_dict("records"),
        classes=content.classes.sort_values("level").to_dict("records"),
        models=MODELS,
        text=measure_text,
        use=LOCATING_USE,
    )
    written = folder / "index.html"
    written.write_text(page, encoding="utf-8")
    return written


def _charts(content: GeolocationContent) -> Iterator[Picture]:
    scores, ceiling = content.scores, content.ceiling
    png = figures.within_chart(content.guesses, ceiling=ceiling)
    yield Picture("scores", "within.png", png, "Chart of the share of test images each model locates within a distance")
    for measure, title in (("geoscore", "GeoScore"), ("within_200_km", "Located within 200 km")):
        png = figures.score_chart(scores, measure=measure, title=title, ceiling=ceiling)
        yield Picture(
            "scores", f"{measure}.png", png, f"Chart of each model with its interval: {measure_name(measure)}"
        )
    model = model_order(content.guesses["model"])[0]
    name = MODELS.get(model, model)
    title = f"{name}: how far off each test image is placed"
    png = figures.error_map(content.guesses[content.guesses["model"] == model], land=content.land, title=title)
    yield Picture("map", "errors.png", png, f"World map of the test images coloured by the error of: {name}")
    for by, title in (("continent", "Within 200 km, by continent"), ("density", "Within 200 km, by images nearby")):
        if (scores["by"] == by).any():
            png = figures.stratum_chart(scores, measure="within_200_km", by=by, title=title)
            yield Picture("places", f"{by}.png", png, f"Chart of the share of test images located {title.lower()}")
    for model in model_order(content.reliability):
        name = MODELS.get(model, model)
        png = figures.reliability_chart(content.reliability[model], title=f"{name}, finest level")
        yield Picture("certainty", f"reliability-{model}.png", png, f"Chart of accuracy against confidence of: {name}")


def _examples(content: GeolocationContent) -> Iterator[Picture]:
    for number, (caption, image) in enumerate(content.examples, start=1):
        bare = thumbnail(image, width=960, quality=88)
        yield Picture(
            "examples", f"example-{number}.jpg", bare, f"Street photograph {number} of the test images", caption
        )

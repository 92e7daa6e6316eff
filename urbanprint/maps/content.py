"""What the report of a city says, gathered from its tables: verdict, sources, provenance, panel of explanations."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from urbanprint import __version__
from urbanprint.evaluation.audit import FORBIDDEN
from urbanprint.evaluation.scores import difference, verdict
from urbanprint.explanation.held_out import spread_panel
from urbanprint.maps.attribution import PAGE
from urbanprint.maps.report import Attribution, ReportContent
from urbanprint.maps.style import BASELINES, Estimate
from urbanprint.settings import City
from urbanprint.tables import fingerprint

_SHOWN = ("imagewise", "probe")
"""The model that map and report show: the first of these that there is, named beforehand and not by its score. Only
where pixels may not be kept is there no fine-tuned network."""
KIND = "borough"
"""They show predictions of areas in boroughs that the model had not seen."""

_SPOKEN = {"imagewise": "fine-tuned network", "probe": "frozen features"}
"""Models as a sentence names them."""


def shown_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the held-out predictions that map and report show, of one model and one kind of fold."""
    there = set(predictions["model"])
    model = next(name for name in _SHOWN if name in there)
    return predictions[(predictions["model"] == model) & (predictions["kind"] == KIND)]


def report_content(
    city: City,
    *,
    areas: gpd.GeoDataFrame,
    images: pd.DataFrame,
    coverage: pd.DataFrame,
    folds: pd.DataFrame,
    all_predictions: pd.DataFrame,
    shown: pd.DataFrame,
    scores: pd.DataFrame,
    interval_coverage: pd.DataFrame,
    audit: pd.DataFrame,
    bias: pd.DataFrame,
    maps: Mapping[str, np.ndarray],
    path_of: Callable[[str], Path],
    faithfulness: Path,
    provenance: Mapping[str, str],
) -> ReportContent:
    """Return the content of the city's report.

    `images` are the fetched ones, `shown` the predictions of the one model and kind of fold that the maps show, `audit`
    the table of the leakage audit, `bias` `tables.COVERAGE_BIAS`, `maps` the GradCAM of each image that may be shown.
    For a simulated city the best reachable score is computed from the truth.
    """
    explained = images[images["image_id"].isin(list(maps))]
    explained = explained.assign(path=[str(path_of(sha256)) for sha256 in explained["sha256"]])
    return ReportContent(
        title=city.name,
        summary=(
            f"How well {len(images):,} street images of {images['area_id'].nunique():,} areas reflect the Index of "
            f"Multiple Deprivation (edition {city.edition.key}), judged on areas the models had not seen."
        ),
        verdict=_verdict(city, all_predictions, scores, folds, model=str(shown["model"].iloc[0])),
        areas=areas,
        predictions=shown,
        scores=scores,
        coverage=coverage,
        attributions=attributions(
            Attribution("Statistics and boundaries", city.edition.attribution, city.edition.licence), images
        ),
        provenance={
            "urbanprint": __version__,
            "Catalogue entry": city.key,
            "Areas, content hash": fingerprint(areas)[:16],
            "Images, content hash": fingerprint(images[["image_id", "sha256", "area_id"]])[:16],
            "Seed": str(city.evaluation.seed),
            **provenance,
        },
        interval_coverage=interval_coverage,
        ceiling=best_reachable(city, images),
        forbidden=forbidden_score(audit),
        gradcam_panel=_panel(explained, maps, areas, shown[shown["indicator"] == "imd"]) if maps else None,
        bias=bias,
        map_address="map.html",
        credits_address=PAGE,
        faithfulness=_faithful(faithfulness) if faithfulness.is_file() else "",
    )


def _panel(explained: pd.DataFrame, maps: Mapping[str, np.ndarray], areas: pd.DataFrame, shown: pd.DataFrame) -> bytes:
    return spread_panel(explained, np.stack([maps[each] for each in explained["image_id"]]), areas, shown)


def _faithful(path: Path) -> str:
    """The sentence on how much of the maps' energy lies on what was planted, from the figures at `path`."""
    shares = json.loads(path.read_text(encoding="utf-8"))
    return (
        f"GradCAM: {shares['CAM energy on planted cues']:.0%} of its energy lies on the objects planted by "
        f"deprivation, which cover {shares['pixels of planted cues']:.0%} of the pixels (95 % interval of the "
        f"difference {shares['gap low']:.3f} to {shares['gap high']:.3f}); networks with random weights put "
        f"{shares['CAM energy on planted cues, random weights']:.0%} there."
    )


def best_reachable(city: City, images: pd.DataFrame) -> float | None:
    """Return the best R2 these images allow where the truth is known, else None."""
    if not city.simulated:
        return None
    from urbanprint.simulation.truth import best_r2

    return best_r2(images[["image_id", "area_id"]], indicator="imd", seed=city.evaluation.seed)


def forbidden_score(audit: pd.DataFrame) -> Estimate:
    """Return the score of the forbidden split, with its interval, from the table of the leakage audit."""
    row = audit[audit["split"] == FORBIDDEN].iloc[0]
    return Estimate(float(row["r2"]), float(row["low"]), float(row["high"]))


def _verdict(city: City, predictions: pd.DataFrame, scores: pd.DataFrame, folds: pd.DataFrame, *, model: str) -> str:
    differences = pd.concat(
        [difference(predictions, model, baseline, folds=folds, seed=city.evaluation.seed) for baseline in BASELINES],
        ignore_index=True,
    )
    return verdict(scores, differences, model=model, names=_SPOKEN)


def attributions(statistics: Attribution, images: pd.DataFrame) -> tuple[Attribution, ...]:
    """Statistics first, then the images of each licence; who took each stands on the page of credits."""
    people = images.groupby("licence")["creator"].nunique().to_dict()
    counts = images["licence"].value_counts().sort_index()
    return (
        statistics,
        *(
            Attribution("Images", f"{count:,} images by {people[licence]:,} named contributors", str(licence))
            for licence, count in counts.items()
        ),
    )

"""From what was made of a conurbation to what its report says: every table and tile of `aerial_report`, joined."""

from collections.abc import Mapping
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from urbanprint.aerial.attention import end_of
from urbanprint.imagery.decoding import decode_many
from urbanprint.maps.aerial_report import AerialContent
from urbanprint.maps.attention_figures import TileExample
from urbanprint.maps.attribution import PAGE
from urbanprint.maps.content import attributions
from urbanprint.maps.report import Attribution
from urbanprint.maps.style import Estimate
from urbanprint.models.ordinal import pit_histogram
from urbanprint.settings import Conurbation

_EXAMPLES = 3  # tiles of each end
_TILE_PX = 320


def aerial_content(
    place: Conurbation,
    *,
    predictions: pd.DataFrame,
    calibration: pd.DataFrame,
    scores: pd.DataFrame,
    audit: pd.DataFrame,
    ratios: pd.DataFrame,
    findings: pd.DataFrame,
    pairs: pd.DataFrame,
    sanity: pd.DataFrame,
    cells: gpd.GeoDataFrame,
    land: gpd.GeoDataFrame,
    images: pd.DataFrame,
    shown: pd.DataFrame,
    maps: Mapping[str, Mapping[str, np.ndarray]],
    provenance: Mapping[str, str],
) -> AerialContent:
    """Join the tables of a conurbation's assets.

    `shown` are the predictions that are judged and explained, `maps` the maps of each end by image; without them, as
    where the terms forbid showing tiles, there are no examples.
    """
    judged = cells.merge(shown[["area_id", "observed", "predicted"]], on="area_id", validate="one_to_one")
    probabilities = shown.filter(regex=r"^p\d+$").to_numpy()
    imputed = "kept" if place.income.with_imputed else "left out"
    return AerialContent(
        title=f"{place.name} from above",
        summary=f"{len(judged):,} cells of {place.income.size_m} m with a published income, one orthophoto tile each, "
        f"on a map of {land['class'].nunique()} classes of land use.",
        predictions=predictions,
        scores=scores,
        audit=audit,
        ratios=ratios,
        findings=findings,
        pairs=pairs,
        sanity=sanity,
        cells=judged[["area_id", "income", "observed", "predicted", "geometry"]],
        attributions=(
            Attribution("Land use", place.land_use.attribution, place.land_use.licence),
            *attributions(Attribution("Income", place.income.attribution, place.income.licence), images),
        ),
        provenance={
            "Income": f"{place.income.edition}, cells whose income was imputed are {imputed}",
            "Land use": f"of {place.land_use.year}",
            "Orthophotos": f"{place.imagery.key}, {place.imagery.resolution_m:g} m a pixel",
            "Network": f"{place.training.backbone}, weights: {place.training.weights}, maps: {place.attention.method}",
            **provenance,
        },
        model=place.training.heads[0],
        classes=place.training.classes,
        calibration=calibration,
        pit={"after": pit_histogram(probabilities, shown["observed"].to_numpy())},
        ceiling=_ceiling(place, shown),
        examples=_examples(place, cells, land, images, shown, maps) if maps else (),
        credits_address=PAGE,
    )


def _ceiling(place: Conurbation, shown: pd.DataFrame) -> Estimate | None:
    """The best that the tiles allow, known of a simulated conurbation alone, and of one whose tiles tell something."""
    if not place.simulated:
        return None
    from urbanprint.simulation.conurbation import ceiling, simulated_at

    truth = simulated_at(place.imagery.endpoint)
    if truth is None or truth.strength == 0.0:
        return None
    return Estimate(ceiling(truth, shown["area_id"].tolist(), place.training.classes))


def _examples(
    place: Conurbation,
    cells: gpd.GeoDataFrame,
    land: gpd.GeoDataFrame,
    images: pd.DataFrame,
    shown: pd.DataFrame,
    maps: Mapping[str, Mapping[str, np.ndarray]],
) -> tuple[TileExample, ...]:
    """The tiles predicted poorest and richest that are observed to be so, with the maps of their end."""
    classes = place.training.classes
    end = end_of(shown["observed"].to_numpy(), classes)
    ordered = shown.assign(end=end).sort_values("predicted")
    chosen = pd.concat(
        [ordered[ordered["end"] == "poor"].head(_EXAMPLES), ordered[ordered["end"] == "rich"].tail(_EXAMPLES)]
    )
    tiles = images.set_index("area_id").loc[chosen["area_id"]]
    pixels = decode_many([Path(path) for path in tiles["path"]], size=_TILE_PX, threads=2)
    centres = cells.set_index("area_id").loc[chosen["area_id"], ["x_m", "y_m"]].to_numpy()
    polygons = land.to_crs(place.imagery.crs)
    told = zip(chosen["end"], chosen["observed"] + 1, chosen["predicted"] + 1, strict=True)
    return tuple(
        TileExample(
            tile=photograph,
            activation=maps[end][image_id],
            polygons=_unit_polygons(polygons, centre, side=float(place.income.size_m)),
            caption=f"Speaks for the {end}. Class {observed} of {classes}, predicted {predicted:.1f}",
        )
        for (end, observed, predicted), image_id, photograph, centre in zip(
            told, tiles["image_id"], pixels, centres, strict=True
        )
    )


def _unit_polygons(
    polygons: gpd.GeoDataFrame, centre: np.ndarray, *, side: float
) -> list[tuple[str, shapely.geometry.base.BaseGeometry]]:
    """What a tile holds of each polygon, in units of the tile."""
    west, south = centre - side / 2
    box = shapely.box(west, south, west + side, south + side)
    near = polygons.iloc[polygons.sindex.query(box)]
    cut = shapely.transform(
        shapely.intersection(near.geometry.to_numpy(), box), lambda points: (points - (west, south)) / side
    )
    return [(str(name), shape) for name, shape in zip(near["class"], cut, strict=True) if shape.area > 0]

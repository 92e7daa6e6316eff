"""From what was made of a world to what its report says: every table and picture of `geolocation_report`, joined."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from urbanprint.geolocation.comparison import calibration_errors
from urbanprint.geolocation.sphere import haversine_km
from urbanprint.imagery.store import ImageStore
from urbanprint.maps.attribution import PAGE
from urbanprint.maps.content import attributions
from urbanprint.maps.geolocation_report import GeolocationContent
from urbanprint.maps.report import Attribution
from urbanprint.maps.thumbnails import thumbnail
from urbanprint.settings import World

_EXAMPLES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the error, in test images, of which one is shown."""


def geolocation_content(
    world: World,
    *,
    images: pd.DataFrame,
    parts: pd.DataFrame,
    coverage: pd.DataFrame,
    classes: pd.DataFrame,
    guesses: pd.DataFrame,
    calibration: pd.DataFrame,
    sets: pd.DataFrame,
    scores: pd.DataFrame,
    differences: pd.DataFrame,
    land: np.ndarray,
    store: ImageStore | None,
    provenance: Mapping[str, str],
) -> GeolocationContent:
    """Join the tables of a world's assets. Without a `store` no photograph is shown, as where the terms forbid it."""
    finest = calibration[calibration["level"] == calibration["level"].max()]
    used = images[images["image_id"].isin(parts["image_id"])]
    asked = coverage["asked_at"].notna()
    counts = {str(part): int(count) for part, count in parts["part"].value_counts().items()}
    return GeolocationContent(
        title=f"{world.name}: where was it taken?",
        summary=f"{len(used):,} street images of {int((coverage['state'] == 'data').sum()):,} cells, cells of levels "
        f"{', '.join(f'L{level}' for level in world.cells.levels)} told apart.",
        guesses=guesses,
        scores=scores,
        differences=differences,
        calibration=calibration_errors(calibration),
        reliability={
            str(model): {str(scaling): table for scaling, table in rows.groupby("scaling")}
            for model, rows in finest.groupby("model")
        },
        coverage=sets,
        promised=world.cells.coverage,
        classes=classes,
        parts=counts,
        land=land,
        asked_cells=int(asked.sum()),
        imaged_cells=int((coverage["state"] == "data").sum()),
        empty_cells=int((asked & (coverage["state"] == "empty")).sum()),
        ceiling=_ceiling(world, guesses),
        examples=_examples(guesses[guesses["model"] == "joint"], parts, store) if store else (),
        attributions=attributions(Attribution("Land", world.attribution, world.licence), used),
        provenance=provenance,
        coverage_map="coverage_map.html",
        credits_address=PAGE,
        apart_m=world.cells.apart_m,
        finest=world.cells.finest,
    )


def _ceiling(world: World, guesses: pd.DataFrame) -> pd.DataFrame | None:
    """The best that the test images allow, known of a simulated planet alone."""
    if not world.simulated:
        return None
    from urbanprint.simulation.planet import IMAGES, build_planet
    from urbanprint.simulation.planet_ceiling import ceiling

    return ceiling(build_planet(images=IMAGES), guesses[["image_id"]].drop_duplicates())


def _examples(guesses: pd.DataFrame, parts: pd.DataFrame, store: ImageStore) -> tuple[tuple[str, bytes], ...]:
    """Test photographs, from one of the best located to one of the worst, and how far off each is."""
    km = haversine_km(*(guesses[name] for name in ("longitude", "latitude", "guess_longitude", "guess_latitude")))
    ordered = guesses.assign(km=km).sort_values(["km", "image_id"], ignore_index=True)
    hashes = parts.set_index("image_id")["sha256"]
    shown = []
    for share in _EXAMPLES:
        row = ordered.iloc[round(share * (len(ordered) - 1))]
        picture = thumbnail(store.path(hashes[row["image_id"]]), width=480)
        shown.append((f"{row['km']:,.0f} km off: of all test images {share:.0%} are nearer.", picture))
    return tuple(shown)

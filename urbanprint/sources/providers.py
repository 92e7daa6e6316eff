"""From an `[imagery.<key>]` table of the catalogue to its terms and to a source that can be asked.

The one place that knows which providers there are; everything else asks the source and its terms.
"""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

from urbanprint.errors import CatalogueError
from urbanprint.imagery.records import Filters, Source, Terms
from urbanprint.settings import SIMULATION_SCHEME, Imagery
from urbanprint.sources import ign_ortho, kartaview, mapillary, panoramax, street_view
from urbanprint.sources.folder import Folder
from urbanprint.sources.geotiff import GeoTiffMosaic
from urbanprint.sources.limits import RateLimit
from urbanprint.sources.street_view import Budget

KEY_VARIABLES = {"mapillary": "MAPILLARY_TOKEN", "street-view": "GOOGLE_MAPS_KEY"}
"""Provider -> the environment variable that holds its key, unless the catalogue names another."""
SECRET_VARIABLES = {"street-view": "GOOGLE_MAPS_SIGNING_SECRET"}

_TERMS = {
    "mapillary": mapillary.TERMS,
    "street-view": street_view.TERMS,
    "panoramax": panoramax.TERMS,
    "kartaview": kartaview.TERMS,
    "ign-ortho": ign_ortho.TERMS,
    # Pictures of one's own: the catalogue names their licence and credit.
    **dict.fromkeys(
        ("folder", "geotiff"),
        Terms(licence="", attribution="", page=None, may_store=True, may_train=True, may_show=True),
    ),
}


def terms_of(imagery: Imagery) -> Terms:
    """Return the terms of the provider, with whatever the catalogue says of the user's own agreement in its place."""
    public = _TERMS[imagery.provider]
    if (imagery.endpoint or "").startswith(SIMULATION_SCHEME):
        public = replace(public, page=None)  # an embedded server has no pages for people
    own = {
        name: getattr(imagery, name)
        for name in ("licence", "attribution", "may_store", "may_train", "may_show", "keep_days")
        if getattr(imagery, name) is not None
    }
    return replace(public, **own)


def filters_of(imagery: Imagery) -> Filters:
    """Return which images the catalogue wants; a date begins at midnight, UTC."""
    return Filters(
        captured_from_ms=_midnight_ms(imagery.captured_from),
        captured_to_ms=_midnight_ms(imagery.captured_before),
        panoramas=imagery.panoramas,
        heading=(imagery.heading[0], imagery.heading[1]) if imagery.heading else None,
        creators=imagery.creators,
        least_quality=imagery.least_quality,
    )


def source_of(
    imagery: Imagery,
    *,
    endpoint: str | None = None,
    key: str | None = None,
    secret: str | None = None,
    limit: RateLimit | None = None,
    budget: Budget | None = None,
) -> Source:
    """Return the source that `imagery` describes.

    `endpoint` is its resolved address, `key` and `secret` are what the environment holds under the names of
    `key_variable` and `secret_variable`. Raises `MissingSecret` for a provider that needs a key and got none, and
    `CatalogueError` for one that costs money and got no budget.
    """
    terms, filters = terms_of(imagery), filters_of(imagery)
    match imagery.provider:
        case "folder":
            manifest = Path(imagery.manifest) if imagery.manifest else None
            return Folder(folder=Path(str(imagery.folder)), manifest=manifest, terms=terms, filters=filters)
        case "mapillary":
            return mapillary.Mapillary(
                token=key,
                token_variable=key_variable(imagery) or "",
                terms=terms,
                endpoint=endpoint,
                discovery=imagery.discovery,
                filters=filters,
                limit=limit,
            )
        case "street-view":
            if budget is None:
                raise CatalogueError(
                    f"[imagery.{imagery.key}]: every Street View image costs money: set budget to the number of paid "
                    "requests that may be made for a city"
                )
            return street_view.StreetView(
                key=key,
                signing_secret=secret,
                key_variable=key_variable(imagery) or "",
                secret_variable=secret_variable(imagery) or "",
                terms=terms,
                endpoint=endpoint,
                radius_m=imagery.radius_m,
                filters=filters,
                limit=limit,
                budget=budget,
            )
        case "panoramax":
            return panoramax.Panoramax(terms=terms, endpoint=endpoint, filters=filters, limit=limit)
        case "kartaview":
            return kartaview.KartaView(terms=terms, endpoint=endpoint, filters=filters, limit=limit)
        case "ign-ortho":
            return ign_ortho.IgnOrtho(
                terms=terms,
                endpoint=endpoint,
                service=imagery.service,
                layer=imagery.layer,
                crs=imagery.crs,
                side_m=imagery.side_m,
                resolution_m=imagery.resolution_m,
                largest_no_data=imagery.largest_no_data,
                limit=limit,
            )
        case "geotiff":
            return GeoTiffMosaic(
                Path(str(imagery.folder)),
                terms=terms,
                crs=imagery.crs,
                side_m=imagery.side_m,
                resolution_m=imagery.resolution_m,
                largest_no_data=imagery.largest_no_data,
            )


def price_of(imagery: Imagery) -> float:
    """Return the price of one fetched image in US dollars, before any source is made: it needs no key."""
    return street_view.PRICE if imagery.provider == "street-view" else 0.0


def searches_points(imagery: Imagery) -> bool:
    """Whether a search asks about each sample point, and not about an area."""
    return imagery.provider == "street-view"


def require_training(imagery: Imagery) -> None:
    """Raise `CatalogueError` where the terms forbid fitting a model: better before the first image than after."""
    if not terms_of(imagery).may_train:
        raise CatalogueError(
            f"[imagery.{imagery.key}]: the terms of {imagery.provider} do not allow fitting a model to its images; if "
            "your own agreement does, say so there with may_train = true (features and coverage need no permission)"
        )


def key_variable(imagery: Imagery) -> str | None:
    """Return the name of the environment variable that holds the key, None for a provider without keys."""
    return imagery.key_variable or KEY_VARIABLES.get(imagery.provider)


def secret_variable(imagery: Imagery) -> str | None:
    """Return the name of the environment variable that holds the signing secret, None where nothing is signed."""
    return imagery.secret_variable or SECRET_VARIABLES.get(imagery.provider)


def _midnight_ms(day: date | None) -> int | None:
    return None if day is None else int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)

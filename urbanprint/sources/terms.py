"""The terms under which imagery may be used: the provider's own, as far as the catalogue does not replace them."""

from urbanprint.catalogue import SIMULATION_SCHEME, Imagery
from urbanprint.imagery.records import Terms

_MAPILLARY = Terms(
    licence="CC BY-SA 4.0",
    attribution="© {creator}, Mapillary contributors, CC BY-SA 4.0",
    page="https://www.mapillary.com/app/?pKey={image_id}",
    may_store=True,
    may_train=True,
    may_show=True,
)


def terms_of(imagery: Imagery) -> Terms:
    """Return the terms of an `[imagery.<key>]` table of the catalogue."""
    provided = _MAPILLARY if imagery.provider == "mapillary" else None
    on_the_web = provided and not (imagery.endpoint or "").startswith(SIMULATION_SCHEME)
    return Terms(
        licence=imagery.licence or (provided.licence if provided else ""),
        attribution=imagery.attribution or (provided.attribution if provided else ""),
        page=provided.page if provided and on_the_web else None,
        may_store=True,
        may_train=True,
        may_show=True,
    )

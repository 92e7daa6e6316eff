"""Surveys of the catalogue: settings and tables in, the library's own records out."""

from typing import TYPE_CHECKING

from resources.addresses import Addresses
from resources.workspace import Workspace
from urbanprint.settings import Country, Survey

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from urbanprint.evaluation.study import ClusterStudy
    from urbanprint.indicators.survey import Jitter


def jitter_of(survey: Survey) -> "Jitter":
    """Return how far the survey has moved its clusters."""
    from urbanprint.indicators.survey import Jitter

    return Jitter(urban_m=survey.urban_m, rural_m=survey.rural_m)


def fetched(address: str, *, addresses: Addresses, workspace: Workspace) -> "Path":
    """Return the local path of a file of a survey, asked for again only if it has changed."""
    from urbanprint.sources.open_data import fetch

    return fetch(addresses.resolve(address), folder=workspace.downloads).path


def fixed_lists(country: Country, *, addresses: Addresses, workspace: Workspace) -> "pd.Series | None":
    """Return the fixed train and validation lists of the country (`survey.read_lists`), None where there are none."""
    from urbanprint.indicators.survey import read_lists

    survey = country.survey
    if survey.train_list is None or survey.validation_list is None:
        return None
    return read_lists(
        fetched(survey.train_list, addresses=addresses, workspace=workspace),
        fetched(survey.validation_list, addresses=addresses, workspace=workspace),
    )


def study_of(
    country: Country,
    *,
    clusters: "pd.DataFrame",
    folds: "pd.DataFrame",
    street_images: "pd.DataFrame | None" = None,
    lists: "pd.Series | None" = None,
    workspace: Workspace,
) -> "ClusterStudy":
    """Return the study of a country; its images, those that were fetched, have the `path` of their pixels."""
    from urbanprint.evaluation.study import make_study
    from urbanprint.imagery.store import ImageStore

    images = None
    if street_images is not None:
        store = ImageStore(workspace.images)
        images = street_images[(street_images["state"] == "fetched") & street_images["area_id"].notna()]
        images = images.assign(path=[str(store.path(sha256)) for sha256 in images["sha256"]])
    return make_study(
        clusters,
        folds,
        buffer_m=country.evaluation.buffer_m,
        jitter=jitter_of(country.survey),
        lists=lists,
        images=images,
    )

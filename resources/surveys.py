"""Surveys of the catalogue as a resource: settings and tables in, the library's own records out."""

from typing import TYPE_CHECKING

import dagster as dg

from resources.files import Files
from resources.workspace import Workspace
from urbanprint.settings import Country, Survey

if TYPE_CHECKING:
    import pandas as pd

    from urbanprint.evaluation.study import ClusterStudy
    from urbanprint.indicators.survey import Jitter


def jitter_of(survey: Survey) -> "Jitter":
    """Return how far the survey has moved its clusters."""
    from urbanprint.indicators.survey import Jitter

    return Jitter(urban_m=survey.urban_m, rural_m=survey.rural_m)


class Surveys(dg.ConfigurableResource):
    """Makes studies of the clusters of surveys."""

    files: dg.ResourceDependency[Files]
    workspace: dg.ResourceDependency[Workspace]

    def study(
        self,
        country: Country,
        clusters: "pd.DataFrame",
        folds: "pd.DataFrame",
        street_images: "pd.DataFrame | None" = None,
    ) -> "ClusterStudy":
        """Return the study of a country; its images, those that were fetched, have the `path` of their pixels."""
        from urbanprint.evaluation.study import make_study
        from urbanprint.imagery.store import ImageStore

        images = None
        if street_images is not None:
            store = ImageStore(self.workspace.images)
            images = street_images[(street_images["state"] == "fetched") & street_images["area_id"].notna()]
            images = images.assign(path=[str(store.path(sha256)) for sha256 in images["sha256"]])
        return make_study(
            clusters,
            folds,
            buffer_m=country.evaluation.buffer_m,
            jitter=jitter_of(country.survey),
            indicators=country.training.indicators,
            lists=self._lists(country.survey),
            images=images,
        )

    def _lists(self, survey: Survey) -> "pd.Series | None":
        """The fixed train and validation lists (`survey.read_lists`), None where there are none."""
        from urbanprint.indicators.survey import read_lists

        if survey.train_list is None or survey.validation_list is None:
            return None
        return read_lists(self.files.path(survey.train_list), self.files.path(survey.validation_list))

"""MLflow as a resource: one experiment a city, one run a training, models as safetensors with a card.

The store is SQLite unless a tracking address is given. `log_model` of the PyTorch flavour is not used: it writes a
traced graph on which hooks never fire (no GradCAM) or a pickle; the directory of a model is logged as it is.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from resources.workspace import Workspace
from urbanprint.errors import InputError

ALIAS = "current"
PANEL = "figures/gradcam.png"
_BATCH = 1000  # the most metrics a request may hold
PANEL_TAG = "images_in_panel"
"""Tag of a run: the images its GradCAM panel shows, so that it can be removed when one of them is taken down."""


def _artifacts(location: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location)


class Tracking(dg.ConfigurableResource):
    """The experiment log. `uri` names an MLflow server or database; empty = SQLite in the workspace."""

    workspace: dg.ResourceDependency[Workspace]
    uri: str | None = None

    @contextmanager
    def run(self, city: str, name: str, *, tags: Mapping[str, str] | None = None) -> Iterator["TrackedRun"]:
        """Open a run of the city's experiment; it is marked as failed if the block raises."""
        client = self._client()
        experiment = self._experiment(client, city)
        run = client.create_run(experiment, run_name=name, tags={"city": city, **(tags or {})})
        tracked = TrackedRun(client=client, experiment_id=experiment, run_id=run.info.run_id)
        try:
            yield tracked
        except BaseException:
            client.set_terminated(run.info.run_id, "FAILED")
            raise
        client.set_terminated(run.info.run_id)

    def latest(self, city: str, name: str) -> "TrackedRun":
        """Return the newest finished run of that name, to log what is measured of its model later.

        Raises `InputError` where there is none.
        """
        client = self._client()
        experiment = self._experiment(client, city)
        found = client.search_runs(
            [experiment], f"attributes.run_name = '{name}' and attributes.status = 'FINISHED'", max_results=1
        )
        if not found:
            raise InputError(f"{name} of {city} has no finished run in the experiment log: train it again.")
        return TrackedRun(client=client, experiment_id=experiment, run_id=found[0].info.run_id)

    def release(self, model: str) -> str:
        """Point the alias `current` of the registered `model` at its newest version and return the version."""
        client = self._client()
        version = max(client.search_model_versions(f"name = '{model}'"), key=lambda found: int(found.version))
        client.set_registered_model_alias(model, ALIAS, version.version)
        return str(version.version)

    def models_trained_on(self, image_id: str) -> list[str]:
        """Return the registered models that have learned from an image, as `name version N`."""
        from urbanprint.models.card import TRAINING_IMAGES_FILE

        client = self._client()
        found = []
        for version in client.search_model_versions():
            artifacts = _artifacts(client.get_model_version_download_uri(version.name, version.version))
            if TRAINING_IMAGES_FILE in {file.path for file in artifacts.list_artifacts()}:
                listed = Path(artifacts.download_artifacts(TRAINING_IMAGES_FILE)).read_text(encoding="utf-8")
                if image_id in listed.splitlines():
                    found.append(f"{version.name} version {version.version}")
        return sorted(found)

    def remove_panels(self, image_id: str) -> int:
        """Remove the GradCAM panels that show an image from the runs they were logged to; return how many."""
        client = self._client()
        runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
        showing = [run for run in runs if image_id in run.data.tags.get(PANEL_TAG, "").split()]
        for run in showing:
            _artifacts(run.info.artifact_uri).delete_artifacts(PANEL)
        return len(showing)

    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # 2 s: only runs that track pay for it
        from filelock import FileLock

        if self.uri:
            mlflow.set_tracking_uri(self.uri)
            return mlflow.MlflowClient()

        folder = self.workspace.tracking
        folder.mkdir(parents=True, exist_ok=True)
        address = f"sqlite:///{folder / 'mlflow.db'}"
        # Set for the process, not only for the client: some of its calls open a second client of their own.
        mlflow.set_tracking_uri(address)
        # Several processes that meet a fresh SQLite file crash in the migrations: one at a time.
        with FileLock(folder / "migration.lock"):
            return mlflow.MlflowClient()

    def _experiment(self, client: Any, city: str) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(city)
        if found is not None:
            return str(found.experiment_id)
        place = None if self.uri else (self.workspace.tracking / "artifacts" / city).as_uri()
        try:
            return str(client.create_experiment(city, artifact_location=place))
        except MlflowException:
            # Another run of the same city created it between the two calls.
            return str(client.get_experiment_by_name(city).experiment_id)


@dataclass(frozen=True)
class TrackedRun:
    """One open run."""

    client: Any
    experiment_id: str
    run_id: str

    def parameters(self, values: Mapping[str, object]) -> None:
        """Log settings, each once."""
        for name, value in values.items():
            self.client.log_param(self.run_id, name, value)

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log numbers at a step; missing values are left out."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        rows = [Metric(name, float(value), now, step) for name, value in values.items() if value == value]
        self.client.log_batch(self.run_id, metrics=rows)

    def curves(self, values: Mapping[str, Sequence[float]]) -> None:
        """Log series of numbers, the first at step 0, in one request; missing values are left out."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        rows = [
            Metric(name, float(value), now, step)
            for name, series in values.items()
            for step, value in enumerate(series)
            if value == value
        ]
        for start in range(0, len(rows), _BATCH):
            self.client.log_batch(self.run_id, metrics=rows[start : start + _BATCH])

    def dataset(self, name: str, *, digest: str, source: str, rows: int) -> None:
        """Log which table was learned from."""
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name, digest=digest[:36], source_type="local", source=source, profile=json.dumps({"num_rows": rows})
        )
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        self.client.set_tag(self.run_id, name, value)

    def file(self, name: str, content: bytes | str) -> None:
        """Log a figure or a table as an artifact called `name`."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            self.client.log_artifact(self.run_id, str(path), str(Path(name).parent) if "/" in name else None)

    def model(self, name: str, folder: Path) -> None:
        """Log the model directory (`weights.safetensors`, `card.json`) and register it as a new version of `name`."""
        from mlflow.entities import LoggedModelOutput
        from mlflow.exceptions import MlflowException

        logged = self.client.create_logged_model(
            self.experiment_id, name=name, source_run_id=self.run_id, model_type="urbanprint"
        )
        self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.finalize_logged_model(logged.model_id, "READY")
        self.client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        self.client.create_model_version(
            name, source=f"models:/{logged.model_id}", run_id=self.run_id, model_id=logged.model_id
        )

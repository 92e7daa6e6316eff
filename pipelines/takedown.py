"""Taking an image down: everything that shows it goes, and every model that has learned from it is named.

A takedown reaches into every room an image can be in: the ledgers of the cities (which then never fetch it again), the
stores of pixels and features, the reports, the panels in the experiment log and in the event log of the runs.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import numpy as np
from dagster._core.storage.event_log import SqliteEventLogStorage

from resources.imagery import SKY
from resources.tracking import PANEL_TAG, Tracking
from resources.workspace import Workspace
from urbanprint.errors import InputError

_WITH_PANELS = ("gradcam_maps", "image_importance")
"""Assets whose metadata hold a panel of images."""


@dataclass
class Removed:
    """What a takedown did. `cities` have to be built again; `models` have learned from the image."""

    cities: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    panels: int = 0
    runs: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


def take_down(image_id: str, *, workspace: Workspace, tracking: Tracking, instance: dg.DagsterInstance) -> Removed:
    """Remove an image, its copies under other identifiers and every picture made of it; block it for good.

    Raises `InputError` where no city knows the image.
    """
    from urbanprint.imagery.ledger import Ledger
    from urbanprint.imagery.retention import take_down as take_down_from
    from urbanprint.imagery.store import ImageStore

    removed = Removed()
    names, hashes, known = {image_id}, set[str](), set[str]()
    before = 0
    while len(names) + len(hashes) > before:  # a copy under another identifier in another city leads to further ones
        before = len(names) + len(hashes)
        for path in workspace.ledgers():
            with closing(Ledger(path)) as ledger:
                for name in sorted(names | hashes):
                    for image in take_down_from(ledger, ImageStore(workspace.images), name):
                        known.add(path.stem.removesuffix(SKY))
                        names.add(image.image_id)
                        hashes |= {image.sha256} if image.sha256 else set()
    if not known:
        raise InputError(f"no city knows an image {image_id!r}: give its identifier at the provider")
    workspace.take_down(names | hashes)
    for city in sorted(known):
        removed.cities.append(city)
        for sha256 in sorted(hashes):
            removed.files += _remove_files(workspace, city, sha256)
        for maps in ("gradcam.npz", "attention-poor.npz", "attention-rich.npz"):
            _remove_maps(workspace.models(city) / maps, names)
    for name in sorted(names):
        removed.panels += tracking.remove_panels(name)
        removed.runs += _remove_runs(instance, name)
        removed.models += [f"{model} (image {name})" for model in tracking.models_trained_on(name)]
    return removed


def _remove_files(workspace: Workspace, city: str, sha256: str) -> list[Path]:
    """Features, what was seen in it, small pictures, and the pages and figures that could show or credit the image."""
    from urbanprint.scenes.kept import forget

    report = workspace.report(city)
    files = [
        *workspace.features.glob(f"*/{sha256[:2]}/{sha256}.npy"),
        report / "thumbnails" / f"{sha256}.jpg",
        report / "gradcam" / f"{sha256}.jpg",
        report / "figures" / "gradcam.png",
        report / "figures" / "tiles.png",
        *(report / "figures").glob("panels-*.png"),
        *(report / "figures").glob("example-*.jpg"),
        *(workspace.report("livelihood") / "figures").glob("panels-*.png"),
        workspace.models(city) / "figures" / "image_panel.png",
        *(report / name for name in ("map.html", "attribution.html", "attribution.csv")),
    ]
    there = [file for file in files if file.is_file()]
    for file in there:
        file.unlink()
    return [*there, *forget(workspace.parsed, sha256)]


def _remove_maps(path: Path, image_ids: set[str]) -> None:
    if not path.is_file():
        return
    from urbanprint.explanation.held_out import load_maps, save_maps

    maps = load_maps(path)
    kept = [image_id for image_id in maps if image_id not in image_ids]
    if len(kept) < len(maps):
        import pandas as pd

        remaining = np.stack([maps[image_id] for image_id in kept]) if kept else np.empty((0, 1, 1), np.float32)
        save_maps(path, pd.DataFrame({"image_id": kept}), remaining)


def _remove_runs(instance: dg.DagsterInstance, image_id: str) -> list[str]:
    """Delete the runs whose events hold a panel with the image: an event cannot be changed, only go with its run."""
    showing: dict[str, tuple[dg.AssetKey, str | None]] = {}
    for explained in map(dg.AssetKey, _WITH_PANELS):
        for record in instance.fetch_materializations(explained, limit=10_000).records:
            made = record.asset_materialization
            shown = made.metadata.get(PANEL_TAG) if made else None
            if made and shown is not None and image_id in str(shown.value).split():
                showing[record.run_id] = (explained, made.partition)
    for run_id, (explained, partition) in showing.items():
        instance.delete_run(run_id)
        # Dagster keeps the last event of an asset a second time: it is replaced by one that says what happened.
        instance.report_runless_asset_event(
            dg.AssetMaterialization(explained, partition=partition, metadata={"taken_down": image_id})
        )
    _vacuum(instance, list(showing))
    return list(showing)


def _vacuum(instance: dg.DagsterInstance, run_ids: list[str]) -> None:
    """SQLite leaves deleted rows readable in its file until the file is written anew; servers see to it themselves."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return
    for shard in ("index", *run_ids):
        path = Path(storage.path_for_shard(shard))
        if path.is_file():
            with closing(sqlite3.connect(path, isolation_level=None)) as file:
                file.execute("VACUUM")
                file.execute("PRAGMA wal_checkpoint(TRUNCATE)")

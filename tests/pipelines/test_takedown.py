"""A takedown reaches every city of the workspace, those that come later and copies under other names."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from pipelines.takedown import take_down
from resources.imagery import open_ledger
from resources.tracking import Tracking
from resources.workspace import Workspace
from urbanprint.errors import InputError
from urbanprint.explanation.held_out import load_maps, save_maps
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.records import ImageRecord, Terms
from urbanprint.imagery.store import ImageStore

TERMS = Terms(licence="CC0 1.0", attribution="us", page=None, may_store=True, may_train=True, may_show=True)


class NothingLogged(Tracking):
    """An experiment log without runs."""

    def models_trained_on(self, image_id: str) -> list[str]:
        """None."""
        return []

    def remove_panels(self, image_id: str) -> int:
        """None."""
        return 0


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(home=str(tmp_path))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def fetch(ledger: Ledger, store: ImageStore, image_id: str, pixels: bytes) -> None:
    record = ImageRecord(image_id=image_id, sequence_id="s", longitude=0.1, latitude=51.0)
    ledger.record_search("A", "all", source="mapillary", terms=TERMS, found=[(record, "A")])
    ledger.record_fetched("mapillary", image_id, sha256=store.write(pixels), width=1, height=1)


def state(ledger: Ledger, image_id: str) -> str:
    return {image["image_id"]: image["state"] for image in ledger.images_in("A", source="mapillary")}[image_id]


def test_copies_under_other_names_in_other_cities_go_too_and_no_later_city_fetches_them(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    store = ImageStore(workspace.images)
    with closing(Ledger(workspace.ledger("london"))) as london, closing(Ledger(workspace.ledger("leeds"))) as leeds:
        fetch(london, store, "1", b"the same")
        fetch(leeds, store, "2", b"the same")
        fetch(leeds, store, "3", b"another")

    removed = take_down("1", workspace=workspace, tracking=NothingLogged(workspace=workspace), instance=instance)

    assert removed.cities == ["leeds", "london"]
    with open_ledger(workspace, "leeds") as leeds:
        assert (state(leeds, "2"), state(leeds, "3")) == ("rejected", "fetched")
    with open_ledger(workspace, "london-2019") as later:
        record = ImageRecord(image_id="1", sequence_id="s", longitude=0.1, latitude=51.0)
        later.record_search("A", "all", source="mapillary", terms=TERMS, found=[(record, "A")])
        assert state(later, "1") == "rejected"
        assert later.is_taken_down(store.write(b"the same"))


def test_what_was_seen_in_it_and_the_panels_that_show_it_go_too(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    store = ImageStore(workspace.images)
    with closing(Ledger(workspace.ledger("kenya"))) as kenya:
        fetch(kenya, store, "1", b"a street")
        sha256 = store.write(b"a street")
    seen = pd.DataFrame({"image_id": [sha256, "another"], "class": ["car", "car"], "count": [1.0, 2.0]})
    part = workspace.scenes("facebook/mask2former") / "part.parquet"
    panels = [workspace.report(name) / "figures" / "panels-1.png" for name in ("kenya", "livelihood")]
    panels.append(workspace.report("kenya") / "figures" / "example-1.jpg")
    for path in (part, *panels):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    seen.to_parquet(part)
    shown = dg.AssetMaterialization("image_importance", partition="kenya", metadata={"images_in_panel": "0 1"})
    instance.report_runless_asset_event(shown)

    take_down("1", workspace=workspace, tracking=NothingLogged(workspace=workspace), instance=instance)

    assert not any(path.exists() for path in (part, *panels))
    (left,) = part.parent.glob("*.parquet")
    assert pd.read_parquet(left)["image_id"].tolist() == ["another"]
    last = instance.get_latest_materialization_event(dg.AssetKey("image_importance"))
    assert last is not None
    assert last.asset_materialization is not None
    assert "images_in_panel" not in last.asset_materialization.metadata


def test_a_tile_from_above_goes_from_maps_and_pages_of_its_city(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    with closing(Ledger(workspace.ledger("simville-sky"))) as sky:
        fetch(sky, ImageStore(workspace.images), "tile", b"from above")
    folder, page = workspace.models("simville"), workspace.report("simville") / "figures" / "tiles.png"
    for path in (folder, page.parent):
        path.mkdir(parents=True)
    page.write_bytes(b"")
    save_maps(folder / "attention-rich.npz", pd.DataFrame({"image_id": ["tile", "other"]}), np.ones((2, 4, 4)))

    removed = take_down("tile", workspace=workspace, tracking=NothingLogged(workspace=workspace), instance=instance)

    assert removed.cities == ["simville"]
    assert not page.exists()
    assert list(load_maps(folder / "attention-rich.npz")) == ["other"]


def test_an_image_nobody_knows_is_said_so(workspace: Workspace, instance: dg.DagsterInstance) -> None:
    with pytest.raises(InputError, match="no city knows an image 'x'"):
        take_down("x", workspace=workspace, tracking=NothingLogged(workspace=workspace), instance=instance)

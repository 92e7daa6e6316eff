"""The simulated coverage tiles: which layers a zoom has, and where they draw the sequences of a town."""

from dataclasses import replace
from functools import partial
from typing import Any

import mapbox_vector_tile
import numpy as np
import pytest
import shapely

from urbanprint.simulation.protocols.vector_tiles import VectorTiles
from urbanprint.simulation.town import Town, build_town
from urbanprint.sources.tiles import Tile, positions_on, tiles_over

SEQUENCE = {"captured_at", "id", "image_id", "is_pano"}


@pytest.fixture(scope="module")
def town() -> Town:
    return build_town(seed=3, boroughs=2, areas_per_borough=6)


@pytest.fixture(scope="module")
def tiles(town: Town) -> VectorTiles:
    return VectorTiles(town, token="t")


def layers_of(tiles: VectorTiles, tile: Tile | str) -> dict[str, Any]:
    answer = tiles.answer(f"/mapillary-tiles/maps/vtp/mly1_public/2/{tile}", {"access_token": "t"}, {}, "")
    assert answer is not None
    assert answer.status == 200
    return dict(mapbox_vector_tile.decode(answer.body, default_options={"y_coord_down": True}))


def tiles_of(town: Town, z: int) -> list[Tile]:
    images = town.images
    west, south, east, north = shapely.MultiPoint(images[["raw_longitude", "raw_latitude"]].to_numpy()).bounds
    return list(tiles_over((west, south, east, north), z))


@pytest.mark.parametrize(
    ("zooms", "names"), [(range(6), {"overview"}), (range(6, 14), {"sequence"}), ([14], {"sequence", "image"})]
)
def test_each_zoom_has_its_layers(tiles: VectorTiles, town: Town, zooms: range, names: set[str]) -> None:
    for z in zooms:
        for tile in tiles_of(town, z):
            assert set(layers_of(tiles, tile)) in (names, set())


@pytest.mark.parametrize("path", ["15/0/0", "8/1", "8/-1/0", "08/0/0", "x/0/0"])
def test_there_is_nothing_beyond_zoom_14(tiles: VectorTiles, path: str) -> None:
    assert tiles.answer(f"/mapillary-tiles/maps/vtp/mly1_public/2/{path}", {"access_token": "t"}, {}, "") is None


def test_a_tile_without_images_is_empty(tiles: VectorTiles) -> None:
    assert layers_of(tiles, "8/0/0") == {}


def test_the_overview_has_each_sequence_once_at_its_first_image(tiles: VectorTiles, town: Town) -> None:
    first = (
        town.images.sort_values("captured_at", kind="stable").drop_duplicates("sequence_id").set_index("sequence_id")
    )
    for z in (0, 5):
        found = {}
        for tile in tiles_of(town, z):
            for feature in layers_of(tiles, tile)["overview"]["features"]:
                assert set(feature["properties"]) == {"captured_at", "id", "sequence_id", "is_pano"}
                assert feature["properties"]["sequence_id"] not in found
                found[feature["properties"]["sequence_id"]] = feature["properties"]["id"]
        assert found == {sequence_id: int(image_id) for sequence_id, image_id in first["image_id"].items()}


@pytest.mark.parametrize("z", [6, 8, 11, 14])
def test_a_line_is_its_images_snapped_to_the_grid_in_every_tile_that_has_one(
    tiles: VectorTiles, town: Town, z: int
) -> None:
    """The vertex of each image in time, but for repetitions; of a line that is a point, one more beside it."""
    drives = {
        str(sequence_id): drive
        for sequence_id, drive in town.images.sort_values("captured_at", kind="stable").groupby("sequence_id")
        if len(drive) > 1
    }
    step_deg = 360 / 2**z / 4096
    within = partial(np.testing.assert_allclose, rtol=0, atol=step_deg * 1.001)
    held: dict[str, set[Tile]] = {sequence_id: set() for sequence_id in drives}
    for tile in tiles_of(town, z):
        for feature in layers_of(tiles, tile)["sequence"]["features"] if layers_of(tiles, tile) else []:
            properties, vertices = feature["properties"], np.array(feature["geometry"]["coordinates"])
            assert feature["geometry"]["type"] == "LineString"
            assert set(properties) == SEQUENCE
            drive = drives[properties["id"]]
            assert properties["image_id"] == int(drive["image_id"].iloc[0])
            assert properties["captured_at"] == int(drive["captured_at"].iloc[0].timestamp() * 1000)
            assert np.diff(vertices, axis=0).any(axis=1).all()
            assert 2 <= len(vertices) <= max(2, len(drive))
            taken = drive[["raw_longitude", "raw_latitude"]].to_numpy()
            corners = positions_on(tile, vertices / 4096)
            nearest = corners[np.abs(taken[:, None] - corners).max(axis=2).argmin(axis=1)]
            within(nearest, taken)
            if z == 14:  # finer than the images are apart
                assert len(vertices) == len(drive)
                within(corners, taken)
            held[properties["id"]].add(tile)
    for sequence_id, drive in drives.items():
        lies_in = {
            tile
            for longitude, latitude in drive[["raw_longitude", "raw_latitude"]].to_numpy()
            for tile in tiles_over((longitude, latitude, longitude, latitude), z)
        }
        assert held[sequence_id] == lies_in


def test_a_line_smaller_than_a_step_of_the_grid_stays_a_line(town: Town) -> None:
    """Two vertices side by side: a line of one would be none."""
    start = town.images.groupby("sequence_id")[["raw_longitude", "raw_latitude"]].transform("first")
    standing = VectorTiles(replace(town, images=town.images.assign(**start)), token="t")
    (tile,) = tiles_of(town, 8)
    features = layers_of(standing, tile)["sequence"]["features"]
    assert len(features) == (town.images.groupby("sequence_id").size() > 1).sum()
    for feature in features:
        (u, v), beside = feature["geometry"]["coordinates"]
        assert beside == [u + 1, v]

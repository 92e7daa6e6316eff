"""The mosaic of GeoTIFF files: exact places across projections, seams, what no file shows, files that are of no use."""

import io
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning

from urbanprint.errors import InputError
from urbanprint.imagery.records import ImageRecord, RejectedImage, Source, Terms
from urbanprint.sources.geotiff import GeoTiffMosaic
from urbanprint.sources.ign_ortho import IgnOrtho
from urbanprint.sources.windows import Lattice

TERMS = Terms(licence="Etalab 2.0", attribution="City", page=None, may_store=True, may_train=True, may_show=True)
WEST, SOUTH = 652000.0, 6862000.0  # Paris, Lambert-93
SIDE_M = 40.0
MARKS = ((8.3, 9.1), (31.7, 10.4), (20.2, 21.9), (9.6, 30.8))  # metres from the window's south-west corner


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    west: float = WEST,
    north: float = SOUTH + SIDE_M,
    resolution_m: float = 0.2,
    crs: str | None = "EPSG:2154",
    mask: np.ndarray | None = None,
    **options: Any,
) -> Path:
    """A GeoTIFF of `pixels` (h, w) or (h, w, bands)."""
    bands = np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), -1, 0)
    profile = {"width": bands.shape[2], "height": bands.shape[1], "count": len(bands), "dtype": bands.dtype, "crs": crs}
    options.setdefault("transform", rasterio.Affine(resolution_m, 0, west, 0, -resolution_m, north))
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **profile, **options) as f,
    ):
        f.write(bands)
        if mask is not None:
            f.write_mask(mask)
    return path


def mosaic(folder: Path, **options: Any) -> GeoTiffMosaic:
    chosen = {"crs": "EPSG:2154", "side_m": SIDE_M, "image_format": "png", **options}
    return GeoTiffMosaic(folder, TERMS, **chosen)


def record(source: GeoTiffMosaic, folder: Path, x: float = WEST, y: float = SOUTH, **grid: Any) -> ImageRecord:
    """The image whose south-west corner is (x, y), as `find` would name it."""
    grid = {"epsg": 2154, "side": SIDE_M, "resolution": 0.2, **grid}
    name = f"{folder.name}_{grid['epsg']}_{x:.10g}_{y:.10g}_{grid['side']:.10g}_{grid['resolution']:.10g}"
    assert source.window(name).side_m == grid["side"]
    return ImageRecord(image_id=name, sequence_id="s", longitude=2.3, latitude=48.8)


def shown(folder: Path, **options: Any) -> np.ndarray:
    """RGBA of the window at (WEST, SOUTH), however little of it was photographed."""
    source = mosaic(folder, largest_no_data=1.0, **options)
    with Image.open(io.BytesIO(source.fetch(record(source, folder)))) as picture:
        return np.asarray(picture.convert("RGBA"), float)


def noise(*, seed: int = 0, side: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 230, (side, side, 3)).astype(np.uint8)


# --- places -----------------------------------------------------------------------------------------------------------


def marked(marks: np.ndarray, west: float, north: float, resolution_m: float, side: int) -> np.ndarray:
    """Bright dots of 0.8 m at `marks` (n, 2) on grey, (side, side, 3)."""
    steps = (np.arange(side) + 0.5) * resolution_m
    x, y = np.meshgrid(west + steps, north - steps)
    squared = ((x - marks[:, 0, None, None]) ** 2 + (y - marks[:, 1, None, None]) ** 2) / (2 * 0.8**2)
    return np.repeat((50 + 200 * np.exp(-squared).sum(axis=0)).round().astype(np.uint8)[..., None], 3, axis=-1)


def places(picture: np.ndarray, near: np.ndarray, resolution_m: float) -> np.ndarray:
    """The centroid of the dot around each of `near` (n, 2), metres from the window's south-west corner."""
    side = len(picture)
    steps = (np.arange(side) + 0.5) * resolution_m
    x, y = np.meshgrid(steps, side * resolution_m - steps)
    light = picture[..., 0] - 50
    around = [light * ((x - at[0]) ** 2 + (y - at[1]) ** 2 < 3.0**2) for at in near]
    return np.array([[(x * dot).sum() / dot.sum(), (y * dot).sum() / dot.sum()] for dot in around])


@pytest.mark.parametrize(
    ("resolution_m", "offset_m"), [(0.05, 0.07), (0.1, 0.0), (0.15, 0.07), (0.2, 0.0), (0.2, 0.07), (0.5, 0.07)]
)
@pytest.mark.parametrize(
    ("crs", "epsg", "corner"),
    [("EPSG:2154", 2154, (WEST, SOUTH)), ("EPSG:3035", 3035, (3760000.0, 2889000.0))],
)
def test_marks_lie_where_they_were_planted(
    tmp_path: Path, crs: str, epsg: int, corner: tuple[float, float], resolution_m: float, offset_m: float
) -> None:
    wanted = np.array(MARKS)
    to_file = Transformer.from_crs(crs, "EPSG:2154", always_xy=True)
    marks = np.column_stack(to_file.transform(*(wanted + corner).T))
    west, south = np.floor(marks.min(axis=0)) - 20 - offset_m
    side = round(70 / resolution_m)
    north = south + side * resolution_m
    write(tmp_path / "a.tif", marked(marks, west, north, resolution_m, side), west=west, north=north,
          resolution_m=resolution_m)  # fmt: skip
    source = mosaic(tmp_path, crs=crs, largest_no_data=1.0)
    with Image.open(io.BytesIO(source.fetch(record(source, tmp_path, *corner, epsg=epsg)))) as picture:
        found = places(np.asarray(picture.convert("RGBA"), float), wanted, 0.2)
    assert np.abs(found - wanted).max() < 0.02  # a tenth of a pixel


def test_a_turned_file_is_turned_back(tmp_path: Path) -> None:
    angle, wanted = math.radians(30), np.array(MARKS)
    cos, sin = 0.2 * math.cos(angle), 0.2 * math.sin(angle)
    column, row = np.meshgrid(np.arange(400) + 0.5, np.arange(400) + 0.5)
    west, north = WEST - 30, SOUTH + 55
    x, y = west + cos * column + sin * row, north + sin * column - cos * row
    squared = sum(np.exp(-((x - WEST - mark[0]) ** 2 + (y - SOUTH - mark[1]) ** 2) / (2 * 0.8**2)) for mark in wanted)
    turned = rasterio.Affine(cos, sin, west, sin, -cos, north)
    write(tmp_path / "a.tif", (50 + 200 * np.asarray(squared)).round().astype(np.uint8), transform=turned)
    assert np.abs(places(shown(tmp_path), wanted, 0.2) - wanted).max() < 0.02


def test_pixels_on_the_lattice_come_as_they_are(tmp_path: Path) -> None:
    pixels = noise()
    write(tmp_path / "a.tif", pixels)
    assert (shown(tmp_path)[..., :3] == pixels).all()


def test_a_reduced_window_is_the_mean_of_the_pixels_below_each_of_its_own(tmp_path: Path) -> None:
    pixels = noise(side=800)
    write(tmp_path / "a.tif", pixels, resolution_m=0.05)
    means = pixels.reshape(200, 4, 200, 4, 3).mean(axis=(1, 3))
    assert np.abs(shown(tmp_path)[..., :3] - means).max() <= 0.5 + 1e-3


def test_a_reduced_window_is_read_from_the_coarsest_overview_that_has_its_detail(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((1600, 1600), 10, np.uint8), resolution_m=0.025, tiled=True)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 16], Resampling.average)
    # Overviews of another value than the pixels they stand for show which one was read.
    for level, value in enumerate((50, 90, 130)):
        with rasterio.open(path, "r+", overview_level=level) as overview:
            overview.write(np.full((1, overview.height, overview.width), value, np.uint8))
    for resolution_m, value in ((0.025, 10), (0.05, 50), (0.1, 90), (0.2, 90), (0.4, 130)):
        source = mosaic(tmp_path, resolution_m=resolution_m)
        body = source.fetch(record(source, tmp_path, resolution=resolution_m))
        with Image.open(io.BytesIO(body)) as picture:
            assert set(np.unique(np.asarray(picture)[..., 0])) == {value}


# --- seams ------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=st.integers(1, 249), row=st.integers(1, 249), offset=st.sampled_from([0.0, 0.03, 0.1]))
def test_a_picture_cut_into_four_files_is_the_picture(
    tmp_path_factory: pytest.TempPathFactory, column: int, row: int, offset: float
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    slope = 4 * np.abs(np.arange(250) % 100 - 50)  # 4 levels a pixel, up and down
    pixels = np.dstack([np.broadcast_to(slope, (250, 250)), np.broadcast_to(slope[:, None], (250, 250))] * 2)
    pixels = pixels[..., :3].astype(np.uint8)
    west, north = WEST - 5 + offset, SOUTH + SIDE_M + 5 - offset
    write(folder / "whole" / "a.tif", pixels, west=west, north=north)
    for j, rows in enumerate((slice(0, row), slice(row, 250))):
        for i, columns in enumerate((slice(0, column), slice(column, 250))):
            x, y = west + 0.2 * columns.start, north - 0.2 * rows.start
            write(folder / "parts" / f"{j}{i}.tif", pixels[rows, columns], west=x, north=y)
    whole, parts = shown(folder / "whole"), shown(folder / "parts")
    # A mean of two pixels lacks at most the half that lies in the next file: 2 levels. A doubled column would lack 4.
    assert np.abs(whole - parts).max() <= (0 if offset == 0 else 2)
    assert (parts[..., 3] == 255).all()


@pytest.mark.parametrize("gap_m", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("crs", ["EPSG:2154", "EPSG:3035"])
def test_files_that_meet_within_a_pixel_leave_no_white_line(tmp_path: Path, crs: str, gap_m: float) -> None:
    middle = Transformer.from_crs("EPSG:2154", crs, always_xy=True).transform(WEST, SOUTH)
    corner = [math.floor(axis / SIDE_M) * SIDE_M for axis in middle]
    pixels = np.full((600, 300), 100, np.uint8)
    west = WEST - 60 - gap_m / 2
    write(tmp_path / "a.tif", pixels, west=west, north=SOUTH + 60)
    write(tmp_path / "b.tif", pixels + 60, west=WEST + gap_m / 2, north=SOUTH + 60)
    source = mosaic(tmp_path, crs=crs, largest_no_data=0.0)
    body = source.fetch(record(source, tmp_path, *corner, epsg=int(crs[5:])))
    with Image.open(io.BytesIO(body)) as picture:
        seen = np.asarray(picture)
    assert (seen[..., 3] == 255).all()
    assert set(np.unique(seen[..., 0])) <= {100, 160}


def test_a_gap_of_metres_stays_one(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.full((200, 80), 100, np.uint8))
    write(tmp_path / "b.tif", np.full((200, 105), 100, np.uint8), west=WEST + 19)
    alpha = shown(tmp_path)[..., 3]
    assert (alpha[:, 80:95] == 0).all()
    assert alpha.mean() == 255 * 185 / 200


def test_where_files_overlap_the_first_by_path_wins(tmp_path: Path) -> None:
    write(tmp_path / "b.tif", np.full((200, 200), 200, np.uint8))
    write(tmp_path / "a" / "z.TIFF", np.full((200, 100), 100, np.uint8))
    red = shown(tmp_path)[..., 0]
    assert (red[:, :100] == 100).all()
    assert (red[:, 100:] == 200).all()


def test_files_of_several_projections_are_one_mosaic(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.full((200, 100), 100, np.uint8))
    x, y = Transformer.from_crs("EPSG:2154", "EPSG:3035", always_xy=True).transform(WEST, SOUTH)
    write(tmp_path / "b.tif", np.full((600, 600, 3), 200, np.uint8), west=x - 60, north=y + 60, crs="EPSG:3035")
    red = shown(tmp_path)[..., 0]
    assert (red[:, :100] == 100).all()
    assert (red[:, 100:] == 200).all()


# --- no data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha", "grey nodata", "grey alpha"])
def test_what_a_file_has_not_is_shown_by_the_next(
    tmp_path: Path, kind: Literal["nodata", "mask", "alpha", "grey nodata", "grey alpha"]
) -> None:
    bands = 1 if kind.startswith("grey") else 3
    pixels, has = np.full((200, 200, bands), 100, np.uint8), np.full((200, 200), 255, np.uint8)
    pixels[:20, :, 0] = 7  # one band alone at the no-data value is a colour
    if bands == 1:
        pixels[:20] = 8
    pixels[:, 150:], has[:, 150:] = 7, 0
    options: dict[str, Any] = {"nodata": 7} if "nodata" in kind else {"mask": has} if kind == "mask" else {}
    if "alpha" in kind:
        pixels, options = np.dstack([pixels, has]), {"alpha": "yes"}
    write(tmp_path / "a.tif", pixels, **options)
    alone = shown(tmp_path)
    assert (alone[:, :150, 3] == 255).all()
    assert (alone[:, 150:, 3] == 0).all()
    write(tmp_path / "b.tif", np.full((200, 200, 3), 200, np.uint8))
    both = shown(tmp_path)
    np.testing.assert_array_equal(both[:, :150], alone[:, :150])
    assert (both[:, 150:, :3] == 200).all()


def test_colours_at_the_edge_of_no_data_are_not_darkened_by_it(tmp_path: Path) -> None:
    pixels = np.full((400, 400, 3), 180, np.uint8)
    pixels[:, 203:] = 0
    for resolution_m, start in ((0.2, WEST - 20.07), (0.13, WEST)):
        write(tmp_path / "a.tif", pixels, west=start, north=SOUTH + 45, resolution_m=resolution_m, nodata=0)
        seen = shown(tmp_path)
        assert set(np.unique(seen[seen[..., 3] == 255][:, :3])) == {180}


def test_a_fourth_band_that_is_not_alpha_is_left_out(tmp_path: Path) -> None:
    pixels = np.dstack([noise(), np.zeros((200, 200), np.uint8)])
    write(tmp_path / "a.tif", pixels, photometric="RGB", alpha="unspecified")
    seen = shown(tmp_path)
    np.testing.assert_array_equal(seen[..., :3], pixels[..., :3])
    assert (seen[..., 3] == 255).all()


def test_a_window_with_too_little_photographed_is_rejected_with_its_share(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.full((200, 150), 90, np.uint8))
    strict, lenient = mosaic(tmp_path), mosaic(tmp_path, largest_no_data=0.25)
    with pytest.raises(RejectedImage, match="25% of the window has not been photographed"):
        strict.fetch(record(strict, tmp_path))
    assert lenient.fetch(record(lenient, tmp_path))
    with pytest.raises(RejectedImage, match="100% of the window"):
        strict.fetch(record(strict, tmp_path, x=WEST + 4000))


def test_a_jpeg_is_white_where_nothing_was_photographed(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.full((200, 150), 90, np.uint8))
    source = mosaic(tmp_path, largest_no_data=0.3, image_format="jpeg")
    body = source.fetch(record(source, tmp_path))
    assert body.startswith(b"\xff\xd8\xff")
    with Image.open(io.BytesIO(body)) as picture:
        seen = np.asarray(picture)
    assert seen.shape == (200, 200, 3)
    assert (seen[:, 160:] == 255).all()
    assert (seen[:, :140] == 90).all()


# --- windows ----------------------------------------------------------------------------------------------------------


def degrees(west: float, south: float, east: float, north: float) -> shapely.Polygon:
    bounds = Transformer.from_crs("EPSG:2154", "EPSG:4326", always_xy=True).transform_bounds(west, south, east, north)
    return shapely.box(*bounds)


def test_windows_are_those_of_the_services_by_the_name_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "paris-2024"
    write(folder / "a.tif", np.zeros((50, 50), np.uint8), west=WEST - 1000, north=SOUTH + 3000, resolution_m=100.0)
    source, services = GeoTiffMosaic(folder, TERMS, "EPSG:2154"), IgnOrtho()
    speaks: Source = source
    area = degrees(WEST - 300, SOUTH - 100, WEST + 900, SOUTH + 1500)
    found, served = list(speaks.find(area)), list(services.find(area))
    assert len(found) == len(served) > 40
    for ours, theirs in zip(found, served, strict=True):
        assert ours.image_id == theirs.image_id.replace("ORTHOIMAGERY.ORTHOPHOTOS", "paris-2024")
        assert (ours.sequence_id, ours.longitude, ours.latitude) == (
            theirs.sequence_id, theirs.longitude, theirs.latitude,
        )  # fmt: skip
        assert source.window(ours.image_id) == services.window(theirs.image_id)


def test_only_windows_that_a_file_overlaps_are_found(tmp_path: Path) -> None:
    # Touching from all sides, a pixel into the next window in the east, and far away.
    write(tmp_path / "a.tif", np.zeros((400, 400), np.uint8), west=WEST + 80, north=SOUTH + 160)
    write(tmp_path / "b.tif", np.zeros((200, 201), np.uint8), west=WEST + 200, north=SOUTH + 40)
    write(tmp_path / "c.tif", np.zeros((9, 9), np.uint8), west=WEST + 90000)
    source = mosaic(tmp_path)
    found = {
        (window.x - WEST, window.y - SOUTH)
        for window in (
            source.window(image.image_id)
            for image in source.find(degrees(WEST - 400, SOUTH - 400, WEST + 600, SOUTH + 600))
        )
    }
    assert found == {(80, 80), (120, 80), (80, 120), (120, 120), (200, 0), (240, 0)}


def test_the_edge_of_a_large_file_bends_as_the_projection_does(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.zeros((200, 200), np.uint8), north=SOUTH, resolution_m=1000.0)
    source = mosaic(tmp_path, crs="EPSG:3035")
    middle = WEST + 100_000  # 66 m from the chord between the corners
    area = degrees(middle - 300, SOUTH - 300, middle + 300, SOUTH + 300)
    to_file = Transformer.from_crs("EPSG:3035", "EPSG:2154", always_xy=True)
    lattice = Lattice(tmp_path.name, crs="EPSG:3035", side_m=SIDE_M, resolution_m=0.2)
    steps = np.linspace(0.1, SIDE_M - 0.1, 50)
    expected = set()
    for image in lattice.find(area.bounds):
        window = source.window(image.image_id)
        across, up = np.meshgrid(window.x + steps, window.y + steps)
        if (to_file.transform(across, up)[1] < SOUTH).any():
            expected.add(image.image_id)
    assert 50 < len(expected) < 250
    assert {image.image_id for image in source.find(area)} == expected


def test_a_window_of_another_grid_or_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", noise())
    with pytest.raises(InputError, match="another layer or grid"):
        mosaic(tmp_path).window("ORTHOIMAGERY.ORTHOPHOTOS_2154_652000_6862000_40_0.2")


def test_another_grid_or_a_changed_file_is_another_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise())
    options: list[dict[str, Any]] = [
        {}, {"crs": "EPSG:3035"}, {"side_m": 80.0}, {"resolution_m": 0.4}, {"image_format": "jpeg"},
    ]  # fmt: skip
    keys = {mosaic(tmp_path, **chosen).request_key for chosen in options}
    os.utime(path, ns=(1, 1))
    keys.add(mosaic(tmp_path).request_key)
    write(tmp_path / "b.tif", noise())
    assert len({*keys, mosaic(tmp_path).request_key}) == len(options) + 2


# --- files ------------------------------------------------------------------------------------------------------------


def test_threads_see_what_one_sees_and_few_files_are_open(tmp_path: Path) -> None:
    for column in range(20):
        write(tmp_path / f"{column:02}.tif", noise(seed=column, side=200)[:, :100], west=WEST + 20 * column)
    source = mosaic(tmp_path)
    images = list(source.find(degrees(WEST - 50, SOUTH - 50, WEST + 450, SOUTH + 90)))
    assert len(images) == 10
    alone = [source.fetch(image) for image in images]
    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(source.fetch, images * 5)) == alone * 5
    if Path("/proc/self/fd").is_dir():
        held = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
        assert 0 < sum(path.is_relative_to(tmp_path.resolve()) for path in held) <= 16


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: write(path, noise().astype(np.uint16)), "holds uint16 where 8 bits"),
        (lambda path: write(path, noise()[..., :2], alpha="no"), "has 2 bands"),
        (lambda path: write(path, noise()[..., 0], photometric="palette"), "colour table"),
        (lambda path: write(path, noise(), crs=None), "does not say where it lies"),
        (lambda path: path.write_text("<html>404</html>"), "no GeoTIFF, or not a whole one"),
        (lambda path: path.write_bytes(b""), "no GeoTIFF, or not a whole one"),
        (lambda path: Image.fromarray(noise()).save(path, "PNG"), "no GeoTIFF, or not a whole one"),
        (lambda path: path.write_bytes(write(path, noise()).read_bytes()[:200]), "no GeoTIFF, or not a whole one"),
        (lambda path: path.write_bytes(write(path, noise()).read_bytes()[:60000]), "no GeoTIFF, or not a whole one"),
    ],
)
def test_a_file_of_no_use_is_named(tmp_path: Path, spoil: Any, message: str) -> None:
    write(tmp_path / "a.tif", np.full((10, 10), 90, np.uint8))
    spoil(tmp_path / "spoilt.tif")
    source = mosaic(tmp_path)
    with pytest.raises(InputError, match=rf"spoilt\.tif .*{message}"):
        source.fetch(record(source, tmp_path))


@pytest.mark.parametrize("crs", [None, "EPSG:2154"])
def test_a_file_without_corners_is_named(tmp_path: Path, crs: str | None) -> None:
    with pytest.warns(NotGeoreferencedWarning):
        write(tmp_path / "scan.tif", noise(), crs=crs, transform=rasterio.Affine.identity())
    with pytest.raises(InputError, match=r"scan\.tif does not say where it lies"):
        list(mosaic(tmp_path).find(degrees(WEST, SOUTH, WEST + 100, SOUTH + 100)))


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere is not a folder"):
        mosaic(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no GeoTIFF"):
        mosaic(tmp_path)
    write(tmp_path / "a.tif", noise())
    with pytest.raises(InputError, match="projected CRS in metres"):
        mosaic(tmp_path, crs="EPSG:4326")
    with pytest.raises(InputError, match=r"is 2\.5 pixels wide"):
        mosaic(tmp_path, side_m=0.5)

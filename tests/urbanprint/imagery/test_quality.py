"""Quality: one reason a bad picture, nearly all real photographs kept, nothing said twice kept twice."""

import io
import warnings
import zlib
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter
from pyproj import Geod

from urbanprint.errors import InputError
from urbanprint.imagery.quality import (
    KEPT,
    REASONS,
    examine,
    geocentric,
    inspect,
    perceptual_hash,
    rejections,
    weed,
)
from urbanprint.settings import Quality
from urbanprint.simulation.scenes import jpeg, render
from urbanprint.simulation.town import Town

DEFAULT = Quality()


def street(width: int = 400, height: int = 300, *, seed: int = 0) -> Image.Image:
    """A picture with a sky, a ground and sharp blocks, no two seeds alike."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2], pixels[height // 2 :] = (150, 180, 210), (90, 90, 95)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for _ in range(60):
        x, y = rng.integers(0, width), rng.integers(0, height)
        draw.rectangle((x, y, x + width // 8, y + height // 8), fill=tuple(rng.integers(20, 235, 3).tolist()))
    return picture


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def differing(one: int, other: int) -> int:
    return (one ^ other).bit_count()


# --- one image -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_sharp_street_is_of_use_and_its_size_is_told(kind: str, mode: str) -> None:
    found = examine(encoded(street().convert(mode), kind), DEFAULT)
    assert (found.reason, found.width, found.height) == (None, 400, 300)


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "LA"])
def test_every_colour_model_is_judged_without_a_warning(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert inspect(encoded(street().convert(mode), kind), DEFAULT) is None


@pytest.mark.parametrize("content", [b"", b"<html>no such image</html>", b"GIF89a...", b"%!PS-Adobe-3.0 EPSF-3.0"])
def test_what_is_not_an_image_is_called_so(content: bytes) -> None:
    assert inspect(content, DEFAULT) == "not an image"


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})]
)
def test_a_file_cut_anywhere_is_truncated(kind: str, options: dict[str, object]) -> None:
    whole = encoded(street(80, 60), kind, **options)
    assert inspect(whole, DEFAULT) is None
    # The last 30 bytes of a PNG close it and hold no pixel; all others are missed.
    for length in [*range(8, 200, 7), *range(200, len(whole) - 30, 97), len(whole) - 31]:
        assert inspect(whole[:length], DEFAULT) == "truncated", length


def test_a_decompression_bomb_is_known_by_its_header_and_warns_nobody() -> None:
    small = encoded(Image.new("L", (64, 64)), "PNG")
    header = small[:16] + (60_000).to_bytes(4) * 2 + small[24:29]
    bomb = header + zlib.crc32(header[12:29]).to_bytes(4) + small[33:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = examine(bomb, DEFAULT)
    assert (found.reason, found.width) == ("decompression bomb", 60_000)


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    cut = encoded(street())[:2000]
    assert inspect(cut, DEFAULT) == "truncated"
    assert inspect(cut, Quality(most_pixels=400 * 300 - 1)) == "decompression bomb"


def test_a_picture_of_the_greatest_size_allowed_is_decoded_without_a_warning() -> None:
    assert inspect(encoded(Image.new("L", (10_000, 8_000), 128)), DEFAULT) == "grey placeholder"


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (street(31, 200), "too small"),
        (street().point(lambda level: level // 5), "too dark"),
        (street().point(lambda level: 248 + level // 32), "too bright"),
        (Image.new("RGB", (400, 300), (128, 128, 128)), "grey placeholder"),
        (Image.new("RGB", (400, 300), (228, 221, 214)), "grey placeholder"),
        (street(800, 600).filter(ImageFilter.GaussianBlur(12)), "blurred"),
    ],
)
def test_each_fault_has_its_reason(picture: Image.Image, reason: str) -> None:
    assert reason in REASONS
    assert inspect(encoded(picture), DEFAULT) == reason


def test_a_placeholder_with_a_line_of_text_is_still_one() -> None:
    picture = Image.new("RGB", (640, 640), (228, 226, 221))
    ImageDraw.Draw(picture).text((120, 300), "Sorry, we have no imagery here.", fill=(110, 110, 110), font_size=28)
    assert inspect(encoded(picture), DEFAULT) == "grey placeholder"


def test_the_limits_are_those_of_the_catalogue() -> None:
    grey = street()
    mean = np.asarray(grey.convert("L")).mean()
    assert inspect(encoded(grey), Quality(darkest=mean + 2)) == "too dark"
    assert inspect(encoded(grey), Quality(brightest=mean - 2)) == "too bright"
    assert inspect(encoded(grey), Quality(least_side=301)) == "too small"
    assert inspect(encoded(grey), Quality(blurriest=1e6)) == "blurred"


def test_real_photographs_are_kept_and_blurred_ones_are_not(realdata: Path) -> None:
    files = [*(realdata / "london_street" / "images").iterdir(), *(realdata / "exif_photos").glob("[bl]*.jpg")]
    assert len(files) > 100
    assert [inspect(file.read_bytes(), DEFAULT) for file in files] == [None] * len(files)
    blurred = []
    for file in files[::5]:
        with Image.open(file) as picture:
            blurred.append(encoded(picture.convert("RGB").filter(ImageFilter.GaussianBlur(picture.width / 100))))
    assert {inspect(each, DEFAULT) for each in blurred} == {"blurred"}


def test_simulated_pictures_are_kept(town: Town) -> None:
    for image_id in town.images["image_id"].iloc[::200]:
        assert inspect(jpeg(render(town.view(image_id), width=64, height=48)), DEFAULT) is None


# --- the hash --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(256, 192), (200, 100), (33, 90)])
def test_the_hash_of_a_small_picture_is_that_of_imagehash(size: tuple[int, int], seed: int) -> None:
    picture = street(*size, seed=seed)
    assert f"{perceptual_hash(encoded(picture, 'PNG')):016x}" == str(imagehash.phash(picture))


def test_the_hash_of_real_photographs_is_nearly_that_of_imagehash(realdata: Path) -> None:
    for file in list((realdata / "london_street" / "images").iterdir())[::6]:
        with Image.open(file) as picture:
            assert differing(perceptual_hash(file.read_bytes()), int(str(imagehash.phash(picture)), 16)) <= 2


def test_the_hash_survives_another_size_and_compression_and_tells_streets_apart() -> None:
    hashes = [perceptual_hash(encoded(street(seed=seed))) for seed in range(8)]
    again = [perceptual_hash(encoded(street(seed=seed).resize((240, 180)), quality=50)) for seed in range(8)]
    assert max(map(differing, hashes, again)) <= DEFAULT.distance_bits
    assert min(differing(a, b) for a in hashes for b in hashes if a is not b) > DEFAULT.distance_bits
    assert examine(encoded(street(seed=3)), DEFAULT).phash == hashes[3]


@pytest.mark.parametrize("content", [b"<html>", encoded(street())[:3000]])
def test_what_cannot_be_decoded_has_no_hash(content: bytes) -> None:
    with pytest.raises(InputError, match="no whole image"):
        perceptual_hash(content)


# --- many images -----------------------------------------------------------------------------------------------------


def found(*rows: tuple[str, float, float, str | None, int | None]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["image_id", "longitude", "latitude", "sha256", "phash"])
    return frame.astype({"phash": "UInt64", "sha256": "str"}).assign(sha256=[row[3] for row in rows])


def east(metres: float, latitude: float) -> float:
    """Longitude so many metres east of the meridian, geodesic."""
    return Geod(ellps="WGS84").fwd(0, latitude, 90, metres)[0]


@given(
    longitude=st.floats(-180, 180), latitude=st.floats(-89, 89), metres=st.floats(0, 2000), azimuth=st.floats(0, 360)
)
def test_straight_distances_are_those_on_the_ground(
    longitude: float, latitude: float, metres: float, azimuth: float
) -> None:
    there = Geod(ellps="WGS84").fwd(longitude, latitude, azimuth, metres)
    ends = geocentric(np.array([longitude, there[0]]), np.array([latitude, there[1]]))
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(metres, abs=1e-4)


@pytest.mark.parametrize("latitude", [0.0, 51.5, 69.6])
def test_spacing_is_in_metres_at_every_latitude(latitude: float) -> None:
    images = found(("a", 0, latitude, None, None), ("b", east(9.9, latitude), latitude, None, None),
                   ("c", east(10.1, latitude), latitude, None, None))  # fmt: skip
    assert weed(images, spacing_m=10.0, distance_bits=4) == {"b": "too near"}
    assert weed(images, spacing_m=0.0, distance_bits=4) == {}


def test_one_file_under_two_names_is_kept_once_wherever_it_lies() -> None:
    images = found(("b", 0, 0, "ff", 1), ("a", 10, 50, "ff", 1), ("c", 0, 0, "ee", 2**63))
    assert weed(images, spacing_m=0.0, distance_bits=4) == {"b": "duplicate file"}


def test_pictures_that_look_alike_are_the_same_only_at_the_same_place() -> None:
    images = found(("a", 0, 0, "1", 0b1111), ("b", 0.0001, 0, "2", 0), ("c", 0.0001, 0, "3", 0b11111),
                   ("d", 0.0009, 0, "4", 0b1111), ("e", 0, 0, "5", None))  # fmt: skip
    assert weed(images, spacing_m=0.0, distance_bits=4) == {"b": "duplicate picture", "c": "duplicate picture"}
    assert weed(images, spacing_m=0.0, distance_bits=3) == {"c": "duplicate picture"}
    assert weed(images, spacing_m=0.0, distance_bits=4, within_m=200)["d"] == "duplicate picture"
    assert weed(images, spacing_m=0.0, distance_bits=-1) == {}


def test_an_image_that_was_rejected_rejects_no_other() -> None:
    images = found(*((name, east(8 * step, 0), 0, None, None) for step, name in enumerate("abcde")))
    assert weed(images, spacing_m=10.0, distance_bits=4) == {"b": "too near", "d": "too near"}


def test_hashes_may_be_text_and_must_not_be_floats() -> None:
    images = found(("a", 0, 0, "1", 2**64 - 1), ("b", 0, 0, "2", 2**64 - 2), ("c", 0, 0, "3", 5))
    assert weed(images, spacing_m=0.0, distance_bits=1) == {"b": "duplicate picture"}
    text = images.assign(phash=[f"{each:016x}" for each in images["phash"]])
    assert weed(text, spacing_m=0.0, distance_bits=1) == {"b": "duplicate picture"}
    with pytest.raises(InputError, match="floats"):
        weed(images.assign(phash=images["phash"].astype(float)), spacing_m=0.0, distance_bits=1)


def test_nothing_is_weeded_from_nothing() -> None:
    assert weed(found(), spacing_m=10.0, distance_bits=4) == {}


def by_comparing_all(images: pd.DataFrame, *, spacing_m: float, distance_bits: int, within_m: float) -> dict[str, str]:
    """What `weed` promises, by comparing every image with every image kept before it, on the ellipsoid."""
    reasons: dict[str, str] = {}
    kept: list = []
    seen: set[str] = set()
    for row in images.sort_values("image_id").itertuples():
        if isinstance(row.sha256, str) and row.sha256 in seen:
            reasons[row.image_id] = "duplicate file"
            continue
        seen.add(row.sha256)
        for other in kept:
            metres = Geod(ellps="WGS84").inv(row.longitude, row.latitude, other.longitude, other.latitude)[2]
            both = not (pd.isna(row.phash) or pd.isna(other.phash))
            if both and metres <= within_m and differing(int(row.phash), int(other.phash)) <= distance_bits:
                reasons[row.image_id] = "duplicate picture"
            elif metres < spacing_m:
                reasons[row.image_id] = "too near"
            else:
                continue
            break
        else:
            kept.append(row)
    return reasons


@st.composite
def crowds(draw: st.DrawFn) -> pd.DataFrame:
    """Images on a lattice of 7 m with few hashes that lie close together: much is alike and much is near."""
    count = draw(st.integers(1, 25))
    latitude = draw(st.sampled_from([0.0, 51.5, -33.0]))
    step = draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=count, max_size=count))
    hashes = st.one_of(
        st.none(), st.lists(st.integers(0, 63), max_size=5).map(lambda bits: sum({1 << b for b in bits}))
    )
    rows = [
        (f"{number:02d}", east(7 * x, latitude), latitude + 7 * y / 111_000, draw(st.sampled_from("xyz") | st.none()),
         draw(hashes))
        for number, (x, y) in enumerate(step)
    ]  # fmt: skip
    return found(*draw(st.permutations(rows)))


@settings(max_examples=120, deadline=None)
@given(
    images=crowds(),
    spacing_m=st.sampled_from([0.0, 10.0, 25.0]),
    distance_bits=st.integers(-1, 6),
    within_m=st.sampled_from([0.0, 20.0, 1e8]),
)
def test_weeding_is_what_comparing_all_with_all_gives(
    images: pd.DataFrame, spacing_m: float, distance_bits: int, within_m: float
) -> None:
    chosen = {"spacing_m": spacing_m, "distance_bits": distance_bits, "within_m": within_m}
    reasons = weed(images, **chosen)
    assert reasons == by_comparing_all(images, **chosen)
    assert images["image_id"].min() not in reasons
    assert weed(images[~images["image_id"].isin(list(reasons))], **chosen) == {}


# --- counting --------------------------------------------------------------------------------------------------------


def test_rejections_are_counted_by_reason_source_and_decile() -> None:
    areas = pd.DataFrame({"area_id": ["poor", "rich"], "imd_decile": [1.0, 10.0]})
    rows = [
        ("m", "poor", "fetched", None), ("m", "poor", "rejected", "blurred"), ("m", "poor", "rejected", "blurred"),
        ("m", "rich", "fetched", None), ("k", "poor", "rejected", "too dark"), ("m", None, "found", None),
        ("m", None, "rejected", "wrong place"), ("m", "rich", "found", None), ("m", "rich", "failed", "HTTP 500"),
    ]  # fmt: skip
    images = pd.DataFrame(rows, columns=["source", "area_id", "state", "reason"])
    table = rejections(images, areas.set_index("area_id")["imd_decile"])
    counted = {(row.source, row.decile, row.reason): (row.images, row.share) for row in table.fillna(0).itertuples()}
    assert counted == {
        ("m", 1.0, KEPT): (1, pytest.approx(1 / 3)),
        ("m", 1.0, "blurred"): (2, pytest.approx(2 / 3)),
        ("m", 10.0, KEPT): (1, 1.0),
        ("m", 0.0, "wrong place"): (2, 1.0),
        ("k", 1.0, "too dark"): (1, 1.0),
    }
    assert rejections(images.iloc[:0], areas.set_index("area_id")["imd_decile"]).empty

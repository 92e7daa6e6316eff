"""Which pictures are worth keeping, and which of them say the same thing twice.

Belongs here: judging the bytes of one image, weeding a set of images, and counting what was rejected for what reason in
which deprivation decile. Every threshold comes from `settings.Quality`. Not here: fetching, and what is done with a
rejected image.

A picture is judged at 256 pixels across, about the size a network sees: what is sharp enough there is sharp enough.
"""

import io
import struct
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from pyproj import Transformer
from scipy.fft import dctn
from scipy.spatial import KDTree

from urbanprint.errors import InputError
from urbanprint.settings import Quality
from urbanprint.tables import IMAGE_QUALITY

Reason = Literal[
    "not an image",  # a page for people, an empty body, a format that is not read
    "truncated",  # begins like an image and cannot be decoded to its end
    "decompression bomb",  # more pixels than any street camera takes
    "too small",
    "too dark",
    "too bright",
    "grey placeholder",  # nearly one colour: what some providers send instead of an error
    "blurred",
    "duplicate file",  # the bytes of another image
    "duplicate picture",  # looks like another image taken at the same place
    "too near",  # to an image that was kept
    "wrong place",  # outside the areas of the city
]
"""Why an image is of no use."""

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
KEPT: Final = "kept"
"""Stands beside the reasons in `rejections`."""

_WIDTH = 256  # pixels across at which a picture is judged
_CHUNK = 10_000  # images whose neighbours are held in memory at once
_FLAT = 3  # grey levels either side of the median that count as one colour: what JPEG makes of a plain surface

# Built directly, not with `Image.open`: that warns of a bomb through the process-wide warning filters, which threads
# cannot silence for themselves, and it tries every format Pillow knows, some of which start other programs.
_FORMATS: Final[dict[bytes, type[ImageFile]]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error)
"""What Pillow raises for a file that is damaged, depending on where the damage is."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What one decoding of a file tells. `reason` None: it is a picture of use; the others None: not known."""

    reason: Reason | None
    width: int | None = None
    height: int | None = None
    """Pixels of the whole picture."""
    phash: int | None = None
    """`perceptual_hash` of the picture."""


def examine(pixels: bytes, quality: Quality) -> Examined:
    """Decode an encoded image once, as small as it can be judged, and say all there is to know about it."""
    opened = _opened(pixels)
    if not isinstance(opened, ImageFile):
        return Examined(reason=opened)
    with opened:
        width, height = opened.size
        if width * height > quality.most_pixels:
            return Examined(reason="decompression bomb", width=width, height=height)
        if min(width, height) < quality.least_side:
            return Examined(reason="too small", width=width, height=height)
        try:
            grey = _grey(opened)
        except _BROKEN:
            return Examined(reason="truncated", width=width, height=height)
    return Examined(reason=_judged(grey, quality), width=width, height=height, phash=_phash(grey))


def inspect(pixels: bytes, quality: Quality) -> Reason | None:
    """Return why the encoded image is to be rejected, or None where it is of use."""
    return examine(pixels, quality).reason


def perceptual_hash(pixels: bytes) -> int:
    """Return 64 bits that change little when a picture is resized, compressed again or brightened.

    A bit for each of the 8 x 8 lowest frequencies of the cosine transform of the picture at 32 x 32 grey pixels:
    whether it lies above their median (Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions", section 3.2.1). The orientation in EXIF is not applied. Raises `InputError` for what cannot be decoded.
    """
    opened = _opened(pixels)
    if not isinstance(opened, ImageFile):
        raise InputError(f"{len(pixels)} bytes are no whole image ({opened}): fetch it again before hashing it")
    with opened:
        try:
            return _phash(_grey(opened))
        except _BROKEN as error:
            raise InputError(
                f"{len(pixels)} bytes are no whole image ({error}): fetch it again before hashing it"
            ) from (error)


def geocentric(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return positions (degrees, each of shape (n,)) as metres from the centre of the Earth, shape (n, 3), WGS 84.

    Straight distances between them are those on the ground, short by 1 mm at 10 km, at every latitude.
    """
    transform = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True).transform
    return np.column_stack(transform(longitude, latitude, np.zeros(len(longitude))))


def weed(images: pd.DataFrame, *, spacing_m: float, distance_bits: int, within_m: float = 20.0) -> dict[str, Reason]:
    """Return image_id -> reason for the images that another one makes superfluous.

    `images` has image_id, longitude, latitude (degrees), sha256 and phash (the hash as a whole number or 16 hexadecimal
    digits); the last two may be missing. In the order of image_id, an image is rejected when it has the bytes of an
    earlier one, or when one that was kept lies at most `within_m` metres away and differs in at most `distance_bits` of
    the 64 (-1: never), or lies nearer than `spacing_m` (0: never). So the first is always kept, whatever the order of
    the rows.

    Pictures look alike by chance when there are many: without the condition of place, 4 bits reject 38 % of 1,000
    images of the simulated town, with it 0.3 %. It also makes the search fast: an image is compared with what a KD-tree
    finds around it and with nothing else, so the work grows with the images times their neighbours.
    Raises `InputError` for hashes in a column of floats, which cannot hold 64 bits.
    """
    ordered = images.sort_values("image_id", kind="stable")
    repeated = ordered["sha256"].notna() & ordered["sha256"].duplicated()
    reasons: dict[str, Reason] = dict.fromkeys(ordered.loc[repeated, "image_id"], "duplicate file")
    ordered = ordered[~repeated]
    if ordered.empty:
        return reasons
    hashed, hashes = _hashes(ordered["phash"])
    ids = ordered["image_id"].to_numpy()
    positions = geocentric(ordered["longitude"].to_numpy(), ordered["latitude"].to_numpy())
    tree = KDTree(positions)
    radius = max(spacing_m, within_m if distance_bits >= 0 else 0.0)
    kept = np.ones(len(ids), dtype=bool)
    for start in range(0, len(ids), _CHUNK):
        around = tree.query_ball_point(positions[start : start + _CHUNK], radius, return_sorted=True)
        one = np.repeat(np.arange(start, start + len(around)), [len(found) for found in around])
        other = np.concatenate(around).astype(int)
        one, other = one[other > one], other[other > one]
        distance = np.linalg.norm(positions[one] - positions[other], axis=1)
        differing = np.bitwise_count(hashes[one] ^ hashes[other]).astype(int)
        alike = (differing <= distance_bits) & (distance <= within_m) & hashed[one] & hashed[other]
        close = alike | (distance < spacing_m)
        # In the order of `one`, so that whether it was kept is settled when its turn comes.
        for earlier, later, same in zip(one[close].tolist(), other[close].tolist(), alike[close].tolist(), strict=True):
            if kept[earlier] and kept[later]:
                kept[later] = False
                reasons[ids[later]] = "duplicate picture" if same else "too near"
    return reasons


def rejections(images: pd.DataFrame, deciles: pd.Series) -> pd.DataFrame:
    """Count what was kept and what was rejected for which reason, by source and decile (`tables.IMAGE_QUALITY`).

    `images` is the manifest (`tables.IMAGES`), `deciles` is indexed by area_id. An image in none of these areas is in
    the wrong place and has no decile. Images that nobody has looked at yet do not count. `share` is of all images
    counted for that source and decile.
    """
    outcome = images["reason"].where(images["state"] == "rejected")
    outcome = outcome.mask(images["state"] == "fetched", KEPT)
    outcome = outcome.mask(images["area_id"].isna() & (images["state"] != "rejected"), "wrong place")
    decile = images["area_id"].map(deciles.astype(float)).astype(float)
    counted = pd.DataFrame({"reason": outcome, "source": images["source"], "decile": decile})[outcome.notna()]
    table = (
        counted.value_counts(["source", "decile", "reason"], sort=False, dropna=False).rename("images").reset_index()
    )
    examined = table.groupby(["source", "decile"], dropna=False)["images"].transform("sum")
    table = table.assign(share=table["images"] / examined).astype({"source": "str", "reason": "str"})
    ordered = table.sort_values(["source", "decile", "reason"], ignore_index=True)
    return IMAGE_QUALITY.validate(ordered[list(IMAGE_QUALITY.columns)])


def _opened(pixels: bytes) -> ImageFile | Reason:
    """The file with its header read and no pixel decoded, or why that cannot be."""
    for signature, kind in _FORMATS.items():
        if pixels.startswith(signature):
            try:
                return kind(io.BytesIO(pixels))
            except _BROKEN:
                return "truncated"
    return "not an image"


def _grey(opened: ImageFile) -> Image.Image:
    """The whole file decoded to grey, at most `_WIDTH` pixels across. Raises what Pillow raises for broken files."""
    # draft lets the JPEG decoder shrink by 2, 4 or 8 and drop the colours: a picture of 2048 x 1024 decodes 5 times
    # faster, and every byte is still read, so that a cut file is found.
    opened.draft("L", (_WIDTH, 1))
    # A palette may hold transparency, which a conversion straight to grey warns about.
    plain = opened.convert("RGBA") if opened.mode in ("P", "PA") else opened
    grey = plain.convert("L")
    if grey.width <= _WIDTH:
        return grey  # never enlarged: that would pass for blur
    height = max(1, round(grey.height * _WIDTH / grey.width))
    return grey.resize((_WIDTH, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def _judged(grey: Image.Image, quality: Quality) -> Reason | None:
    count = np.array(grey.histogram(), dtype=float)
    share = count / count.sum()
    mean = share @ np.arange(256)
    if mean < quality.darkest:
        return "too dark"
    if mean > quality.brightest:
        return "too bright"
    # The share of one colour, not the spread of all: a placeholder may carry a line of text.
    median = int(np.searchsorted(share.cumsum(), 0.5))
    if share[max(median - _FLAT, 0) : median + _FLAT + 1].sum() >= quality.flattest:
        return "grey placeholder"
    if _sharpness(grey) < quality.blurriest:
        return "blurred"
    return None


def _sharpness(grey: Image.Image) -> float:
    """Variance of the Laplacian: blur takes edges away (Pech-Pacheco et al. 2000, "Diatom autofocusing")."""
    levels = np.asarray(grey, dtype=np.int16)
    laplacian = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:] - 4 * levels[1:-1, 1:-1]
    return float(laplacian.var())


def _phash(grey: Image.Image) -> int:
    small = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), dtype=float)
    low = dctn(small)[:8, :8]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes())


def _hashes(phash: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Which images have a hash, and the hashes as uint64 (0 where there is none), both of shape (n,)."""
    hashed = phash.notna().to_numpy()
    if pd.api.types.is_float_dtype(phash.dtype) and hashed.any():
        raise InputError("the column phash holds floats, which cut hashes off after 53 bits: expected text or UInt64")
    hashes = np.zeros(len(phash), dtype=np.uint64)
    hashes[hashed] = [int(each, 16) if isinstance(each, str) else int(each) for each in phash[hashed]]
    return hashed, hashes

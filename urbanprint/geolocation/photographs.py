"""A photograph somebody wants located: is it one that can be read, and does it say itself where it was taken.

What belongs here: one file from outside, of unknown making. The position in its EXIF block is only ever used to score
an answer: a model that read it would be right for the wrong reason.
"""

import io
import math
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import GPS, IFD

from urbanprint.errors import InputError
from urbanprint.imagery.decoding import decode
from urbanprint.imagery.quality import Reason, examine
from urbanprint.settings import Quality

MOST_BYTES = 200_000_000
"""No camera writes a larger file of at most `Quality.most_pixels` pixels."""

LEAST_SIDE = 16
"""Pixels of the shorter side of a photograph: a thumbnail still shows sky, road and colours."""

_UNUSABLE: dict[Reason, str] = {
    "not an image": "is no JPEG, PNG or WebP image: name a photograph, or convert it to one of these",
    "truncated": "is an image whose end is missing or damaged: copy it again from where it came",
    "decompression bomb": "has {width} x {height} pixels, more than the {most_pixels:,} that are read: reduce it",
    "too small": "has {width} x {height} pixels, of which the shorter side needs {least_side}: name a larger picture",
}
_NOTES: dict[Reason, str] = {
    "too dark": "The picture is dark: there is little to locate it by.",
    "too bright": "The picture is nearly white: there is little to locate it by.",
    "grey placeholder": "The picture is nearly one colour: there is little to locate it by.",
    "blurred": "The picture is blurred: there is little to locate it by.",
}
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, struct.error)
"""What Pillow raises for a damaged EXIF block, depending on where the damage is."""

_AXES = (
    (GPS.GPSLongitude, GPS.GPSLongitudeRef, {"E": 1, "W": -1}, 180.0),
    (GPS.GPSLatitude, GPS.GPSLatitudeRef, {"N": 1, "S": -1}, 90.0),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Photograph:
    """A photograph that can be read. `pixels` uint8 (size, size, 3), upright; `width`, `height` of the whole file.

    `position` is longitude and latitude in degrees from its EXIF block, None where that has no sound one. `notes` are
    sentences about what is odd with the file and does not stop it from being located.
    """

    path: Path
    pixels: np.ndarray
    width: int
    height: int
    position: tuple[float, float] | None
    notes: tuple[str, ...]


def read_photograph(path: Path, *, size: int) -> Photograph:
    """Read the file and squash it to `size` pixels.

    Raises `InputError`, one sentence, for a file that is absent, empty, no image, truncated, or too small or too large
    to be looked at. A damaged EXIF block is a note.
    """
    encoded, quality = _read(path), Quality(least_side=LEAST_SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a damaged EXIF block, on every opening; `exif_position` tells them once
        examined = examine(encoded, quality)
        if examined.reason in _UNUSABLE:
            told = _UNUSABLE[examined.reason].format(
                width=examined.width,
                height=examined.height,
                most_pixels=quality.most_pixels,
                least_side=quality.least_side,
            )
            raise InputError(f"{path} {told}.")
        pixels = decode(encoded, size=size)
    assert examined.width is not None and examined.height is not None  # known of every image that is decoded
    notes = [] if examined.reason is None else [_NOTES[examined.reason]]
    if min(examined.width, examined.height) < size:
        notes.append(
            f"The picture has {examined.width} x {examined.height} pixels and is enlarged to {size} x {size}:"
            " the answer rests on little."
        )
    position, of_exif = exif_position(encoded)
    return Photograph(
        path=path,
        pixels=pixels,
        width=examined.width,
        height=examined.height,
        position=position,
        notes=(*notes, *of_exif),
    )


def exif_position(encoded: bytes) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Longitude and latitude in degrees from the EXIF block of an encoded image, and what is wrong with the block.

    None and no note where it has no position. A position counts where degrees, minutes and seconds are three numbers in
    range and both hemispheres are given (Exif 2.32, section 4.6.6). 0 N 0 E does not count: it is what cameras write
    that do not know where they are.
    """
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with Image.open(io.BytesIO(encoded)) as image:
                tags = image.getexif().get_ifd(IFD.GPSInfo)
        return _position(tags, damaged=[str(warning.message) for warning in warned])
    except _BROKEN as error:
        return None, (f"Its EXIF block is damaged ({error}): it says nothing of where it was taken.",)


def _read(path: Path) -> bytes:
    try:
        if (length := path.stat().st_size) > MOST_BYTES:
            raise InputError(f"{path} has {length:,} bytes, more than any photograph ({MOST_BYTES:,}): name another.")
        encoded = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: name a photograph.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a photograph.") from error
    if not encoded:
        raise InputError(f"{path} is empty, 0 bytes: copy it again from where it came.")
    return encoded


def _position(tags: Mapping[int, object], *, damaged: list[str]) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    notes = [f"Its EXIF block is damaged ({message.strip()})." for message in dict.fromkeys(damaged)]
    if not any(axis in tags for axis, *_ in _AXES):
        return None, tuple(notes)
    degrees = []
    for axis, hemisphere, signs, most in _AXES:
        sign = signs.get(_letter(tags.get(hemisphere)))
        value = _degrees(tags.get(axis))
        if sign is None or value is None or value > most:
            what = f"{GPS(axis).name} {tags.get(axis)!r} with {GPS(hemisphere).name} {tags.get(hemisphere)!r}"
            notes.append(f"Its EXIF position is not used: {what} is no place on Earth.")
            return None, tuple(notes)
        degrees.append(sign * value)
    if not any(degrees):
        notes.append("Its EXIF position is not used: 0 N 0 E is what cameras write that do not know where they are.")
        return None, tuple(notes)
    return (degrees[0], degrees[1]), tuple(notes)


def _letter(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ").upper()


def _degrees(value: object) -> float | None:
    """Degrees, minutes and seconds as degrees; None unless they are three numbers in range."""
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    whole, minutes, seconds = (float(part) for part in value)  # a zero denominator is NaN
    sound = all(map(math.isfinite, (whole, minutes, seconds))) and whole >= 0 and 0 <= minutes < 60
    return whole + minutes / 60 + seconds / 3600 if sound and 0 <= seconds <= 60 else None

"""What is kept of an image: its pixels where the terms allow it, else only a vector computed from them.

Either way one file an image, named by the SHA-256 of the encoded pixels, so that nothing is ever stored twice; a file
is written whole or not at all.
"""

import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from urbanprint.errors import InputError
from urbanprint.imagery.records import identifier

_WRITING = ".writing"  # files on their way; in the same folder, so that renaming moves no bytes
_ABANDONED_S = 3600.0  # nothing is written for an hour: whoever began such a file was killed


class Store(Protocol):
    """What `acquire` hands pixels to."""

    @property
    def keeps_pixels(self) -> bool:
        """Whether pixels lie on a disk afterwards, which not all terms allow."""
        ...

    def write(self, pixels: bytes) -> str:
        """Keep what this store keeps of the encoded image; return the SHA-256 of `pixels`, 64 hexadecimal digits."""
        ...

    def holds(self, sha256: str) -> bool:
        """Whether something is kept under this hash."""
        ...

    def remove(self, sha256: str) -> bool:
        """Remove what is kept under this hash; return whether there was anything."""
        ...

    def sweep(self) -> None:
        """Remove what killed processes left half written."""
        ...


@dataclass(frozen=True)
class ImageStore:
    """A folder of images."""

    folder: Path
    keeps_pixels: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"image store {self.folder}"

    def write(self, pixels: bytes) -> str:
        """Store the encoded image and return its SHA-256 as 64 hexadecimal digits."""
        sha256 = hashlib.sha256(pixels).hexdigest()
        if not self.holds(sha256):
            _write_whole(self.folder, self.path(sha256), pixels)
        return sha256

    def path(self, sha256: str) -> Path:
        """Return where the image with this hash lies, whether or not it is there."""
        return self.folder / sha256[:2] / sha256

    def holds(self, sha256: str) -> bool:
        """Whether the pixels are here."""
        return _is_there(self.path(sha256))

    def remove(self, sha256: str) -> bool:
        """Remove the pixels; return whether there were any."""
        return _removed(self.path(sha256))

    def sweep(self) -> None:
        """Remove what killed processes left half written."""
        _sweep(self.folder)


@dataclass(frozen=True)
class FeatureStore:
    """Vectors in place of images: `extract` sees the encoded pixels in memory, and only its result is written.

    `extract` returns a vector of shape (d,); it is kept as float32. `key` names the extractor and its version: vectors
    of different keys never mix.
    """

    folder: Path
    extract: Callable[[bytes], np.ndarray]
    key: str
    keeps_pixels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if identifier(self.key) != self.key:
            raise InputError(f"the key {self.key[:80]!r} of a feature store is no identifier: letters, digits, _ - .")

    def __str__(self) -> str:
        return f"feature store {self.key} in {self.folder}"

    def write(self, pixels: bytes) -> str:
        """Store the vector of the encoded image and return the SHA-256 of the pixels as 64 hexadecimal digits."""
        sha256 = hashlib.sha256(pixels).hexdigest()
        if not self.holds(sha256):
            vector = np.asarray(self.extract(pixels), dtype=np.float32)
            if vector.ndim != 1 or not np.isfinite(vector).all():
                raise InputError(f"the extractor {self.key} returned no finite vector, but shape {vector.shape}")
            content = io.BytesIO()
            np.save(content, vector, allow_pickle=False)
            _write_whole(self.folder / self.key, self.path(sha256), content.getvalue())
        return sha256

    def read(self, sha256: str) -> np.ndarray:
        """Return the vector of the image with this hash, float32 of shape (d,). Raises `InputError` if not here."""
        try:
            vector: np.ndarray = np.load(self.path(sha256), allow_pickle=False)
        except FileNotFoundError:
            raise InputError(f"no vector of image {sha256} by {self.key} in {self.folder}: acquire it first") from None
        return vector

    def path(self, sha256: str) -> Path:
        """Return where the vector of the image with this hash lies, whether or not it is there."""
        return self.folder / self.key / sha256[:2] / f"{sha256}.npy"

    def holds(self, sha256: str) -> bool:
        """Whether the vector is here."""
        return _is_there(self.path(sha256))

    def remove(self, sha256: str) -> bool:
        """Remove the vector; return whether there was one."""
        return _removed(self.path(sha256))

    def sweep(self) -> None:
        """Remove what killed processes left half written."""
        _sweep(self.folder / self.key)


def _write_whole(folder: Path, path: Path, content: bytes) -> None:
    """Written aside and renamed: a process killed half way leaves no half file under a whole name."""
    aside = folder / _WRITING
    aside.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=aside)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _is_there(path: Path) -> bool:
    # After a power cut a file system may keep the name of a file and lose its content.
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _sweep(folder: Path) -> None:
    for path in (folder / _WRITING).glob("*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
        except FileNotFoundError:
            continue  # another run swept it, or its writer has just renamed it

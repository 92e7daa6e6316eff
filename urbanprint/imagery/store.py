"""Pixels on disk: one file an image, named by the SHA-256 of its bytes, so that nothing is ever stored twice."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageStore:
    """A folder of images; files are written whole or not at all."""

    folder: Path

    def write(self, pixels: bytes) -> str:
        """Store the encoded image and return its SHA-256 as 64 hexadecimal digits."""
        sha256 = hashlib.sha256(pixels).hexdigest()
        path = self.path(sha256)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written beside and renamed: a process killed half way leaves no half image under a whole name.
            handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
            with os.fdopen(handle, "wb") as file:
                file.write(pixels)
            Path(beside).replace(path)
        return sha256

    def path(self, sha256: str) -> Path:
        """Return where the image with this hash lies, whether or not it is there."""
        return self.folder / sha256[:2] / sha256

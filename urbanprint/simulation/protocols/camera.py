"""The pictures of a town or country as JPEG files, whichever provider serves them."""

from functools import lru_cache
from typing import Protocol

import pandas as pd

from urbanprint.simulation.scenes import jpeg, render
from urbanprint.simulation.styles import View


class Photographed(Protocol):
    """A place of which a provider holds images: a town, or a country."""

    @property
    def images(self) -> pd.DataFrame:
        """The columns of `Town.images`."""
        ...

    def view(self, image_id: str) -> View:
        """What a picture is drawn from."""
        ...


class Camera:
    """Takes the place's pictures, at most `width` pixels wide, 4:3; recent ones are kept."""

    def __init__(self, town: Photographed, *, width: int) -> None:
        self.width = width
        self._town = town
        self._kept = lru_cache(maxsize=1024)(self._taken)

    def picture(self, image_id: str, width: int) -> bytes:
        """Return the JPEG of an image, `width` pixels wide or as wide as the camera takes it."""
        return self._kept(image_id, min(width, self.width))

    def _taken(self, image_id: str, width: int) -> bytes:
        return jpeg(render(self._town.view(image_id), width=width, height=width * 3 // 4))

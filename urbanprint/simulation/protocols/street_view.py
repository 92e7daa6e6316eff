"""The Street View Static API: free metadata and paid images of panoramas, with key and signature checked.

Panoramas stand where the town's images were taken, one every few; the four headings of one show the four images of its
area that are nearest to it, so that they tell of the same street. Now and then a panorama is a photosphere of a
person, has no date, or is gone when its image is asked for.
"""

import base64
import hashlib
import hmac
import io
import re
import threading
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image, ImageOps
from pyproj import Geod

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.camera import Camera
from urbanprint.simulation.protocols.wire import Headers, Query, json_answer
from urbanprint.simulation.town import Town

PATH = "/street-view/maps/api/streetview"
_EVERY = 3  # images of the town to a panorama
_PHOTOSPHERE_EVERY = 12
_LARGEST_SIZE = 640
_GREY = (228, 226, 222)
_TEXT = "text/plain; charset=UTF-8"
_WGS84 = Geod(ellps="WGS84")


def pano_id(image_id: str, *, photosphere: bool) -> str:
    """The id of the panorama at an image: 22 characters, or the 64 of a person's photosphere."""
    digest = hashlib.blake2b(image_id.encode(), digest_size=45).digest()
    return f"CAoSL{base64.urlsafe_b64encode(digest).decode()[:59]}" if photosphere else _base64(digest[:16])


class StreetViewApi:
    """Metadata and images of the panoramas of a town.

    With `signing_secret` (URL-safe base64) every request has to be signed. `paid` counts the image requests with a
    good key, whatever became of them.
    """

    def __init__(self, town: Town, camera: Camera, *, key: str, signing_secret: str | None = None) -> None:
        self.key = key
        self.signing_secret = signing_secret
        self.paid = 0
        self._lock = threading.Lock()
        self._camera = camera
        self._town = town
        self._panoramas: dict[str, dict[str, Any]] = {}
        for number, image in enumerate(town.images.iloc[::_EVERY].to_dict("records")):
            photosphere = number % _PHOTOSPHERE_EVERY == _PHOTOSPHERE_EVERY - 1
            copyright_notice = f"© {image['creator']}" if photosphere else "© Google"
            panorama = {str(name): value for name, value in image.items()} | {"copyright": copyright_notice}
            self._panoramas[pano_id(image["image_id"], photosphere=photosphere)] = panorama
        self._ids = list(self._panoramas)
        self._positions = np.array([[each["longitude"], each["latitude"]] for each in self._panoramas.values()])

    def answer(self, path: str, query: Query, _headers: Headers, _base: str) -> Answer | None:
        """`/street-view/maps/api/streetview` and its `/metadata`."""
        if path not in (PATH, f"{PATH}/metadata"):
            return None
        refusal = self._refusal(path, query)
        if path == PATH:
            if refusal:
                return Answer(refusal.encode(), 403, _TEXT)
            with self._lock:
                self.paid += 1
            return self.image(query)
        if refusal:
            return json_answer({"error_message": refusal, "status": "REQUEST_DENIED"})
        return json_answer(self.metadata(query))

    def metadata(self, query: Query) -> dict[str, Any]:
        """The panorama named, or the nearest one within the radius."""
        try:
            found = self._find(query)
        except ValueError:
            return {"error_message": "Invalid request. Invalid 'location' parameter.", "status": "INVALID_REQUEST"}
        if found is None:
            return {"status": "ZERO_RESULTS"}
        panorama = self._panoramas[found]
        answer = {
            "copyright": panorama["copyright"],
            "date": f"{panorama['captured_at']:%Y-%m}",
            "location": {"lat": panorama["latitude"], "lng": panorama["longitude"]},
            "pano_id": found,
            "status": "OK",
        }
        if not panorama["has_computed_geometry"]:
            del answer["date"]
        return answer

    def image(self, query: Query) -> Answer:
        """The view of a panorama; where there is none, 404 or a grey picture, as asked."""
        size = re.fullmatch(r"(\d+)x(\d+)", query.get("size", ""))
        try:
            heading = float(query.get("heading", "0"))
            found = self._find(query)
        except ValueError:
            size = None
        if size is None:
            return Answer(b"Invalid request.", 400, _TEXT)
        width, height = (min(int(side), _LARGEST_SIZE) for side in size.groups())
        if found is None or self._panoramas[found]["thumb"] == "never":
            if query.get("return_error_code") == "true":
                return Answer(b"", 404, _TEXT)
            return Answer(_jpeg(Image.new("RGB", (width, height), _GREY)), 200, "image/jpeg")
        taken = self._camera.picture(self._views(found)[round(heading / 90) % 4], width)
        with Image.open(io.BytesIO(taken)) as picture:
            # Cut to the shape asked for, but never larger than the camera took it: that would only blur it.
            shrunk = min(1.0, picture.width / width, picture.height / height)
            return Answer(
                _jpeg(ImageOps.fit(picture, (round(width * shrunk), round(height * shrunk)))), 200, "image/jpeg"
            )

    def _find(self, query: Query) -> str | None:
        """Id of the panorama a query names or is nearest to; ValueError for a query that does neither."""
        if "pano" in query:
            return query["pano"] if query["pano"] in self._panoramas else None
        latitude, longitude = (float(part) for part in query.get("location", "").split(","))
        metres = _distances_m(longitude, latitude, self._positions)
        nearest = int(np.argmin(metres))
        return self._ids[nearest] if metres[nearest] <= float(query.get("radius", "50")) else None

    def _views(self, found: str) -> list[str]:
        """The four images nearest to a panorama in its area, its own first."""
        panorama, images = self._panoramas[found], self._town.images
        near = images[images["area_id"] == panorama["area_id"]]
        positions = near[["longitude", "latitude"]].to_numpy()
        metres = _distances_m(panorama["longitude"], panorama["latitude"], positions)
        return list(near["image_id"].to_numpy()[np.argsort(metres, kind="stable")[:4]])

    def _refusal(self, path: str, query: Query) -> str | None:
        """Why a request is not authorised, None when it is."""
        if "key" not in query:
            return "You must use an API key to authenticate each request to Google Maps Platform APIs."
        if not hmac.compare_digest(query["key"].encode(), self.key.encode()):
            return "The provided API key is invalid. "
        if self.signing_secret is None:
            return None
        signed = urlencode({name: value for name, value in query.items() if name != "signature"})
        digest = hmac.digest(base64.urlsafe_b64decode(self.signing_secret), f"{path}?{signed}".encode(), "sha1")
        expected = base64.urlsafe_b64encode(digest)
        if hmac.compare_digest(query.get("signature", "").encode(), expected):
            return None
        return "Unable to authenticate the request. Provided 'signature' is not valid for the provided API key."


def _distances_m(longitude: float, latitude: float, positions: np.ndarray) -> np.ndarray:
    """Metres from a place to each of `positions`, (n, 2) longitude and latitude in degrees."""
    here = np.full(len(positions), longitude), np.full(len(positions), latitude)
    return np.asarray(_WGS84.inv(*here, positions[:, 0], positions[:, 1])[2])


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _base64(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")

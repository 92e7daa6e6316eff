"""Leaflet, the script that moves the interactive maps: copied beside a page or written into it.

It comes from the package XStatic-Leaflet, so that a map opens without the internet.
"""

import shutil
from functools import cache
from importlib.metadata import files
from pathlib import Path


@cache
def _folder() -> Path:
    """The folder with `leaflet.js`, `leaflet.css` and the pictures the style names."""
    (script,) = (file for file in files("XStatic-Leaflet") or () if file.match("leaflet/data/leaflet.js"))
    return Path(script.locate()).parent


def copy_leaflet(folder: Path) -> tuple[str, str]:
    """Copy Leaflet into `folder` and return the addresses of its script and its style, relative to `folder`."""
    source = _folder()
    for file in (source / "leaflet.js", source / "leaflet.css", *source.glob("images/*.png")):
        kept = folder / "leaflet" / file.relative_to(source)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, kept)
    return "leaflet/leaflet.js", "leaflet/leaflet.css"


@cache
def leaflet_text() -> tuple[str, str]:
    """Leaflet's script and style, to be written into a page."""
    script, style = ((_folder() / name).read_text(encoding="utf-8") for name in ("leaflet.js", "leaflet.css"))
    return script, style

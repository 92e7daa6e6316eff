"""Scenes kept by the content of the picture: no picture is parsed twice, and an interrupted parse goes on.

What belongs here is the keeping: parts of `tables.SCENES` in a folder a parser, with the SHA-256 of the picture in the
place of the image. Parsing itself is in `parsing`.
"""

import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd

from urbanprint import tables
from urbanprint.scenes.parsing import Parser, empty_scenes, parse_images

AT_ONCE = 500
"""Pictures in a part: the most an interruption loses."""

_NOTHING = ""  # the class of a picture in which nothing was seen


def parse_kept(
    images: pd.DataFrame,
    load_parser: Callable[[], Parser],
    *,
    folder: Path,
    batch: int = 16,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """The scenes (`tables.SCENES`) of `images`, which holds image_id, sha256 and path; new ones are parsed and kept.

    `folder` belongs to one parser and is made where it is absent; the parser is loaded only where a picture is new.
    `progress` is called with (pictures done, pictures in all). Raises what the parser and `parse_images` raise.
    """
    kept = [pd.read_parquet(path) for path in sorted(folder.glob("[!.]*.parquet"))]
    known = set().union(*(part["image_id"] for part in kept))
    pictures = images.drop_duplicates("sha256")
    new = pictures[~pictures["sha256"].isin(known)]
    done = len(pictures) - len(new)
    parser = cache(load_parser)
    for start in range(0, len(new), AT_ONCE):
        rows = new.iloc[start : start + AT_ONCE]
        part = parse_images(
            pd.DataFrame({"image_id": rows["sha256"], "path": rows["path"]}),
            parser(),
            batch=batch,
            workers=workers,
            progress=_counting_on(progress, before=done + start, of=len(pictures)),
        )
        unseen = rows.loc[~rows["sha256"].isin(part["image_id"]), "sha256"]
        part = pd.concat([part, pd.DataFrame({"image_id": unseen, "class": _NOTHING})], ignore_index=True)
        _write(part, folder)
        kept.append(part)
    scenes = pd.concat(kept, ignore_index=True) if kept else empty_scenes()
    # Runs side by side may have parsed the same picture; one in which nothing was seen has a row that says so.
    scenes = scenes[scenes["class"] != _NOTHING].drop_duplicates(["image_id", "class"])
    of_images = images[["image_id", "sha256"]].merge(scenes.rename(columns={"image_id": "sha256"}), on="sha256")
    return tables.SCENES.validate(of_images[list(tables.SCENES.columns)])


def _counting_on(
    progress: Callable[[int, int], None] | None, *, before: int, of: int
) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, _: progress(before + done, of)


def forget(folder: Path, sha256: str) -> list[Path]:
    """Remove what was seen in a picture from every part below `folder`; return the parts that held it."""
    changed = []
    for path in sorted(folder.rglob("[!.]*.parquet")):
        part = pd.read_parquet(path)
        if (part["image_id"] == sha256).any():
            _write(part[part["image_id"] != sha256], path.parent)
            path.unlink()
            changed.append(path)
    return changed


def _write(part: pd.DataFrame, folder: Path) -> None:
    """Whole or not at all, under a name no other run uses."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4().hex}.parquet"
    beside = path.with_name(f".writing-{path.name}")
    part.to_parquet(beside)
    beside.replace(path)

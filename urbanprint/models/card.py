"""A model on disk: a directory of `weights.safetensors` and `card.json`. Never pickle, which runs code when read.

The card holds everything needed to rebuild the model and to judge it. A model fills in what it knows of itself
(architecture, config, labels); whoever trained it adds the split, the scores with their baselines and the terms.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from urbanprint.errors import InputError, MissingWeights
from urbanprint.vocabulary import INDICATORS

CARD_VERSION = 1
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
TRAINING_IMAGES_FILE = "training_images.txt"
REQUIRED = (
    "architecture",
    "config",
    "labels",
    "split",
    "scores",
    "data_version",
    "licence",
    "intended_use",
    "limits",
)
"""What every card says. `split` and `scores` are free in form, but `scores` is expected to hold the baselines too."""


def describe_labels(indicators: Sequence[str]) -> dict[str, dict[str, str]]:
    """The `labels` entry of a card: each output in order -> its name for people and its unit."""
    return {
        indicator: {"name": INDICATORS.get(indicator, indicator), "unit": "normalised rank, 1 = most deprived"}
        for indicator in indicators
    }


def save_model(folder: Path, tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> Path:
    """Write a model directory and return it; a reader sees the old model or the new one, never half of one.

    `card` holds at least `REQUIRED`; `version`, `created` (UTC, ISO 8601) and the tensors' shapes are added.
    Raises `ValueError` for a card that lacks an entry.
    """
    missing = [entry for entry in REQUIRED if entry not in card]
    if missing:
        raise ValueError(f"the card of {folder} lacks {', '.join(missing)}")
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    full = {
        "version": CARD_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **card,
        "tensors": {name: list(tensor.shape) for name, tensor in contiguous.items()},
    }
    text = json.dumps(full, indent=2, allow_nan=False, ensure_ascii=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        new, old = Path(beside) / "new", Path(beside) / "old"
        new.mkdir()
        save_file(contiguous, new / WEIGHTS_FILE)
        (new / CARD_FILE).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    return folder


def write_training_images(folder: Path, image_ids: Iterable[str]) -> None:
    """Write beside a saved model which images it has learned from, one identifier a line, sorted."""
    listed = "".join(f"{image_id}\n" for image_id in sorted(set(image_ids)))
    (folder / TRAINING_IMAGES_FILE).write_text(listed, encoding="utf-8")


def read_training_images(folder: Path) -> frozenset[str]:
    """Return the identifiers of the images the model in `folder` has learned from; empty where none are noted."""
    path = folder / TRAINING_IMAGES_FILE
    return frozenset(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else frozenset()


def load_card(folder: Path) -> dict[str, Any]:
    """The card of a model directory. Raises `InputError` for one that is unreadable or of an unknown version."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise InputError(f"{folder} is no model: it has no {CARD_FILE}; name the folder a model was saved to.")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): save the model again.") from error
    version = card.get("version") if isinstance(card, dict) else None
    if version != CARD_VERSION:
        raise InputError(
            f"{path} has card version {version!r} and this release reads {CARD_VERSION}: train the model again "
            f"or use the release that wrote it."
        )
    missing = [entry for entry in (*REQUIRED, "tensors") if entry not in card]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: save the model again.")
    return card


def load_model(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors by name and the card of a model directory.

    Raises `MissingWeights` where the weights file is absent, `InputError` where it is damaged or its tensors are not
    those the card lists.
    """
    card = load_card(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise MissingWeights(f"{folder} has a card but no {WEIGHTS_FILE}: copy the whole directory, or train again.")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}): copy it again, or train again.") from error
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(found.keys() | card["tensors"].keys()):
        if found.get(name) != card["tensors"].get(name):
            raise InputError(
                f"{path}: tensor {name!r} has shape {found.get(name, 'absent')} where the card says "
                f"{card['tensors'].get(name, 'absent')}: weights and card are of two models, copy both from one place."
            )
    return tensors, card


def check_architecture(folder: Path, card: Mapping[str, Any], architecture: str) -> None:
    """Raise `InputError` where the model in `folder` is of another kind than its reader."""
    kind = card["architecture"]
    if kind != architecture:
        raise InputError(f"{folder} holds a model of kind {kind!r}, where {architecture!r} is expected: name another.")

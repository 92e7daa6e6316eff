"""The training loop of a classifier of cells, for both designs: sampling, steps, early stopping, resuming.

What belongs here: what geolocation adds to `urbanprint.models.training`, whose schedule, optimiser and
augmentation are used. Every random draw of an epoch comes from (seed, epoch), as `Resumable` wants it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from urbanprint.errors import MissingImages
from urbanprint.geolocation.datasets import class_circles, class_labels, level_position
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.losses import effective_number_weights
from urbanprint.geolocation.network import CellClassifier, CellEpoch, Design, GeolocationConfig, build_classifier
from urbanprint.geolocation.parts import APART_M, deal_parts
from urbanprint.geolocation.targets import JointObjective, LevelObjective, cut_and_mix
from urbanprint.models.backbones import normalise
from urbanprint.models.embedding import mixed_precision, pick_device, to_device
from urbanprint.models.resuming import Resumable, epoch_seed
from urbanprint.models.training import (
    CLIP,
    augment,
    decoded,
    follow_quickly,
    learning_rate_at,
    make_optimiser,
)

_ELSEWHERE = ("workers", "device", "checkpoint_seconds")  # settings that do not change what is learned


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """Images of one part: rows in the decoded array, the class of each (n,), longitude and latitude (n, 2) degrees."""

    rows: np.ndarray
    labels: np.ndarray
    places: np.ndarray


def sampling_weights(labels: np.ndarray, classes: int, config: GeolocationConfig) -> np.ndarray | None:
    """The probability (n,) of each image to be drawn, given its class (n,); None where each is taken once an epoch."""
    if config.sampling == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    if config.sampling == "effective-number":
        of_class = effective_number_weights(counts).double().numpy()
    else:
        of_class = 1.0 / np.maximum(counts, 1)
    return of_class[labels] / of_class[labels].sum()


def train_classifier(
    images: pd.DataFrame,
    hierarchy: Hierarchy,
    *,
    design: Design,
    level: int | None = None,
    config: GeolocationConfig,
    checkpoint: Path,
    apart_m: float = APART_M,
    on_epoch: Callable[[CellEpoch], None] | None = None,
) -> CellClassifier:
    """Train on `images` (image_id, sequence_id, longitude, latitude, path), all of the training part.

    A share of them is held out, in groups `apart_m` metres from the rest (`deal_parts`); the epoch with the least loss
    on these is kept. `on_epoch` is called after each epoch, and first once for each epoch a resumed checkpoint already
    holds. The file `checkpoint` is as `Resumable` has it.

    Raises `MissingImages` for too few images, `InputError` for a file that is no image, a design without its level or a
    damaged checkpoint.
    """
    images = images.sort_values("image_id", ignore_index=True)
    device = pick_device(config.device)
    fingerprint = _fingerprint(images, hierarchy, design, level, config, apart_m)
    resumable = Resumable(checkpoint, fingerprint, CellEpoch)

    model = build_classifier(hierarchy, design=design, level=level, config=config, weights=resumable.weights)
    network = model.network.to(device).to(memory_format=torch.channels_last)
    if resumable.finished(network, on_epoch):
        return replace(model, history=tuple(resumable.history))

    training, validation = _parts(images, model, apart_m)
    objective = _objective(images.loc[training.rows], model).to(device)
    follow_quickly(network)
    optimiser = make_optimiser(network, learning_rate=config.learning_rate, weight_decay=config.weight_decay)
    if not resumable.history:
        _start_at_the_prior(model, training)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    paths = [Path(path) for path in images["path"]]
    spill = checkpoint.with_name(f".{checkpoint.name}.views")
    with decoded(paths, size=config.size, threads=config.workers, spill=spill) as pixels:

        def one_epoch(epoch: int) -> dict[str, float]:
            loss = _train_epoch(model, objective, optimiser, training, pixels, epoch=epoch, device=device)
            error, accuracy = _validate(model, objective, validation, pixels, device=device)
            return {"train_loss": loss, "validation_loss": error, "validation_accuracy": accuracy}

        resumable.run(network, optimiser, one_epoch, config=config, on_epoch=on_epoch)
    return replace(model, history=tuple(resumable.history))


def _fingerprint(
    images: pd.DataFrame,
    hierarchy: Hierarchy,
    design: Design,
    level: int | None,
    config: GeolocationConfig,
    apart_m: float,
) -> str:
    """What makes two trainings the same; where and with how many threads is not part of it."""
    settings = {name: value for name, value in asdict(config).items() if name not in _ELSEWHERE}
    rows = images[["image_id", "sequence_id", "longitude", "latitude"]].astype({"sequence_id": object})
    text = json.dumps([settings, design, level, apart_m, hierarchy.to_json(), rows.to_json(double_precision=15)])
    return hashlib.sha256(text.encode()).hexdigest()


def _parts(images: pd.DataFrame, model: CellClassifier, apart_m: float) -> tuple[_Part, _Part]:
    """The images that train and those held out."""
    config = model.config
    held_out = np.zeros(len(images), dtype=bool)
    if config.validation_share > 0.0:
        shares = {"train": 1.0 - config.validation_share, "validation": config.validation_share}
        held_out = (deal_parts(images, seed=config.seed, shares=shares, apart_m=apart_m) == "validation").to_numpy()
    labels = class_labels(model.hierarchy, images)[:, level_position(model.hierarchy, model.level)]
    places = images[["longitude", "latitude"]].to_numpy(dtype=np.float32)
    parts = [
        _Part(rows=rows, labels=labels[rows], places=places[rows])
        for rows in (np.flatnonzero(~held_out), np.flatnonzero(held_out))
    ]
    if len(parts[0].rows) < config.batch:
        raise MissingImages(
            f"{len(parts[0].rows)} training images are too few to train on: at least one batch of {config.batch} is"
            " needed; fetch more images or set a smaller batch."
        )
    return parts[0], parts[1]


def _objective(images: pd.DataFrame, model: CellClassifier) -> LevelObjective | JointObjective:
    if model.design == "level":
        return LevelObjective(len(model.classes), label_smoothing=model.config.label_smoothing)
    leaves = class_circles(model.hierarchy, images)[-1]
    centres = torch.from_numpy(np.stack([leaves.longitude, leaves.latitude], axis=1)).float()
    config = model.config
    return JointObjective(model.hierarchy, centres, tau_km=config.tau_km, level_weights=config.level_weights)


def _start_at_the_prior(model: CellClassifier, training: _Part) -> None:
    """Let the untrained network predict how often each class is drawn: epochs then go into what differs."""
    weights = sampling_weights(training.labels, len(model.classes), model.config)
    drawn = np.bincount(training.labels, weights, minlength=len(model.classes))
    share = (drawn / drawn.sum()).clip(1.0 / len(training.labels) / 2)
    with torch.no_grad():
        model.network.head.weight.mul_(0.1)
        model.network.head.bias.copy_(torch.from_numpy(np.log(share)))


def _batches(
    part: _Part, pixels: np.ndarray, *, classes: int, config: GeolocationConfig, epoch: int, device: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(pixels (n, H, W, 3), class (n,), longitude and latitude (n, 2)) on the device, one batch read ahead."""
    draw = np.random.default_rng([config.seed, epoch])
    count = len(part.rows)
    weights = sampling_weights(part.labels, classes, config)
    order = draw.permutation(count) if weights is None else draw.choice(count, count, p=weights)

    def batch(drawn: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        parts = (pixels[part.rows[drawn]], part.labels[drawn], part.places[drawn])
        return to_device(parts[0], device), to_device(parts[1], device), to_device(parts[2], device)

    batches = np.array_split(order, _steps(part, config))
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(batch, batches[0])
        for drawn in batches[1:]:
            ready = ahead.result()
            ahead = pool.submit(batch, drawn)
            yield ready
        yield ahead.result()


def _steps(part: _Part, config: GeolocationConfig) -> int:
    return max(1, round(len(part.rows) / config.batch))


def _train_epoch(
    model: CellClassifier,
    objective: LevelObjective | JointObjective,
    optimiser: torch.optim.AdamW,
    part: _Part,
    pixels: np.ndarray,
    *,
    epoch: int,
    device: str,
) -> float:
    config, network = model.config, model.network.train()
    objective.train()
    generator = torch.Generator().manual_seed(epoch_seed(config.seed, epoch))
    losses: list[Tensor] = []
    batches = _batches(part, pixels, classes=len(model.classes), config=config, epoch=epoch, device=device)
    for step, (raw, labels, places) in enumerate(batches):
        rate = learning_rate_at(
            (epoch + (step + 0.5) / _steps(part, config)) / config.epochs, peak=config.learning_rate
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        views = normalise(raw, mean=model.backbone.mean, std=model.backbone.std)
        targets = objective.targets(labels, places)
        if config.augment:
            views = augment(views, generator)
        if config.mirror:
            turned = torch.rand(len(views), 1, 1, 1, generator=generator).to(device) < 0.5
            views = torch.where(turned, views.flip(3), views)
        if torch.rand((), generator=generator) < config.cutmix:
            views, targets = cut_and_mix(views, targets, generator)
        with mixed_precision(device):
            logits = network(views.contiguous(memory_format=torch.channels_last))
        loss = objective(logits, targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
        losses.append(loss.detach())
    network.eval()
    return float(torch.stack(losses).mean())


def _validate(
    model: CellClassifier, objective: LevelObjective | JointObjective, part: _Part, pixels: np.ndarray, *, device: str
) -> tuple[float, float]:
    """Mean loss, and the share of images whose class is the likeliest; NaN without images."""
    if not len(part.rows):
        return math.nan, math.nan
    objective.eval()
    loss = correct = 0.0
    for start in range(0, len(part.rows), model.config.batch):
        some = slice(start, start + model.config.batch)
        logits = torch.from_numpy(model.logits(pixels[part.rows[some]]))
        labels = torch.from_numpy(part.labels[some])
        targets = objective.targets(labels.to(device), torch.from_numpy(part.places[some]).to(device))
        loss += float(objective(logits.to(device), targets)) * len(labels)
        correct += float((logits.argmax(dim=1) == labels).sum())
    return loss / len(part.rows), correct / len(part.rows)

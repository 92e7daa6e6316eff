"""The training loop of the image-wise model: sampling, augmentation, loss, schedule, early stopping.

What is public here beside `train` serves the other models' loops too.

Every random draw of an epoch comes from (seed, epoch), and the learning rate is a function of the step alone, so a
killed training that starts again from its checkpoint continues exactly and, on a CPU, ends with the same weights.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from urbanprint.errors import InputError, LeakingSplit, MissingImages
from urbanprint.imagery.decoding import decode_many
from urbanprint.models.backbones import normalise
from urbanprint.models.embedding import mixed_precision, pick_device, to_device
from urbanprint.models.imagewise import EpochRecord, ImagewiseConfig, ImagewiseModel, Loss, build, pool_views
from urbanprint.models.ordinal import OrdinalHead
from urbanprint.models.resuming import Resumable, epoch_seed

IN_MEMORY_BYTES = 2 * 2**30
"""Decoded views above this size go to a memory-mapped file beside the checkpoint: 14,000 views at 224 px fit below."""

CLIP = 2.0
"""Largest norm of the gradient."""

_WARM_UP = 0.15  # share of the steps in which the learning rate rises


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The areas of one part: their views' rows in the decoded array, and their labels (areas, indicators) with NaN."""

    rows: list[np.ndarray]
    labels: np.ndarray


def augment(views: Tensor, generator: torch.Generator) -> Tensor:
    """Jitter normalised views (n, 3, H, W), each on its own, the whole batch at once; same shape.

    Crop of 80 to 100 % of each side, brightness, contrast and saturation within 20 %, one erased rectangle of up to
    30 % of each side in half of the views. Never mirrored: the side of the road says where a picture was taken.
    """
    n, height, width = len(views), views.shape[2], views.shape[3]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * (high - low) + low).to(views.device)

    scale = uniform(0.8, 1.0)
    theta = views.new_zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = uniform(-1.0, 1.0, 2) * (1.0 - scale)[:, None]
    grid = functional.affine_grid(theta, [n, 3, height, width], align_corners=False)
    jittered = functional.grid_sample(views, grid, padding_mode="border", align_corners=False)
    grey = jittered.mean(dim=1, keepdim=True)
    jittered = torch.lerp(grey, jittered, uniform(0.8, 1.2, 1, 1, 1))
    jittered = jittered * uniform(0.8, 1.2, 1, 1, 1) + uniform(-0.2, 0.2, 1, 1, 1)

    def inside(length: int) -> Tensor:
        side = uniform(0.1, 0.3) * (uniform(0.0, 1.0) < math.sqrt(0.5))  # both sides > 0 in half of the views
        start = uniform(0.0, 1.0) * (1.0 - side)
        position = (torch.arange(length, device=views.device) + 0.5) / length
        return (position >= start[:, None]) & (position < (start + side)[:, None])

    erased = inside(height)[:, :, None] & inside(width)[:, None, :]
    return jittered.masked_fill(erased[:, None], 0.0)


def turned(views: Tensor, generator: torch.Generator) -> Tensor:
    """Views (n, 3, H, H), each in one of the eight ways in which a square lies on itself, drawn at random."""
    for way in (lambda v: v.flip(2), lambda v: v.flip(3), lambda v: v.transpose(2, 3)):
        drawn = (torch.rand(len(views), 1, 1, 1, generator=generator) < 0.5).to(views.device)
        views = torch.where(drawn, way(views), views)
    return views


def masked_loss(
    outputs: Tensor, labels: Tensor, *, loss: Loss = "cross-entropy", ordinal: OrdinalHead | None = None
) -> Tensor:
    """The loss of outputs and labels (n, k), mean over the known labels (NaN = unknown).

    An `ordinal` head judges class numbers by its own loss. Cross-entropy takes a normalised rank as a soft target: its
    gradient in the output is sigmoid(output) - label, which does not vanish at the ends as that of a squared error
    after a sigmoid does.
    """
    known = torch.isfinite(labels)
    if ordinal is not None:
        return ordinal.loss(outputs[known][:, None], labels[known].long()) if known.any() else outputs.sum() * 0.0
    of_pair = functional.binary_cross_entropy_with_logits if loss == "cross-entropy" else functional.mse_loss
    losses = of_pair(outputs.float(), torch.where(known, labels, 0.5), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def learning_rate_at(progress: float, *, peak: float) -> float:
    """One cycle over `progress` in [0, 1]: a linear rise to `peak`, then half a cosine down to a hundredth of it."""
    if progress < _WARM_UP:
        return peak * (0.05 + 0.95 * progress / _WARM_UP)
    done = (progress - _WARM_UP) / (1.0 - _WARM_UP)
    return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))


def _check_split(
    images: pd.DataFrame, labels: pd.DataFrame, *, train_areas: Sequence[str], validation_areas: Sequence[str]
) -> None:
    shared = sorted(set(train_areas) & set(validation_areas))
    if shared:
        raise LeakingSplit(f"{len(shared)} areas are in training and in validation: {', '.join(shared[:5])}.")
    for part, areas in (("training", train_areas), ("validation", validation_areas)):
        unlabelled = sorted(set(areas) - set(labels.index))
        if unlabelled:
            raise InputError(f"{len(unlabelled)} {part} areas have no row of labels: {', '.join(unlabelled[:5])}.")
        unseen = sorted(set(areas) - set(images["area_id"]))
        if unseen:
            raise MissingImages(
                f"{len(unseen)} {part} areas have 0 images and need at least 1: {', '.join(unseen[:5])}; "
                f"leave them out or fetch their images."
            )
    if len(train_areas) < 2:
        raise MissingImages(f"{len(train_areas)} training areas are too few to train on: at least 2 are needed.")
    unknown = labels.columns[labels.loc[list(train_areas)].isna().all()]
    if len(unknown):
        raise InputError(f"indicator {unknown[0]!r} is known in no training area: leave it out.")


@contextmanager
def decoded(paths: Sequence[Path], *, size: int, threads: int, spill: Path) -> Iterator[np.ndarray]:
    """All views decoded once, uint8 (n, size, size, 3), in memory or in the memory-mapped file `spill`."""
    shape = (len(paths), size, size, 3)
    needed = math.prod(shape)
    fits = needed <= IN_MEMORY_BYTES
    if not fits and (free := shutil.disk_usage(spill.parent).free) < needed:  # a mapped write to a full disk kills
        raise InputError(
            f"{len(paths):,} decoded images of {size} px take {needed / 1e9:,.0f} GB in {spill.parent}, where "
            f"{free / 1e9:,.0f} GB are free: make room, or use smaller pictures or fewer images an area."
        )
    out = None if fits else np.lib.format.open_memmap(spill, mode="w+", dtype=np.uint8, shape=shape)
    try:
        yield decode_many(paths, size=size, threads=threads, out=out)
    finally:
        spill.unlink(missing_ok=True)


def _split(images: pd.DataFrame, labels: pd.DataFrame, areas: Sequence[str]) -> _Split:
    rows = {str(area): np.asarray(positions) for area, positions in images.groupby("area_id").indices.items()}
    return _Split(rows=[rows[area] for area in areas], labels=labels.loc[list(areas)].to_numpy(dtype=np.float32).copy())


def _freeze(model: ImagewiseModel) -> list[nn.Module]:
    """Stop the gradients of the stages the config freezes and return them, to be kept in eval mode."""
    if model.config.frozen_stages == 0:
        return []
    coarsest = 2**model.config.frozen_stages
    frozen = [
        model.backbone.module.get_submodule(name)
        for name, stride in model.backbone.strides.items()
        if stride <= coarsest
    ]
    for stage in frozen:
        stage.requires_grad_(False)
    return frozen


def _start_at_the_mean(model: ImagewiseModel, labels: np.ndarray) -> None:
    """Let the untrained network predict each indicator's mean: epochs then go into what differs between views."""
    mean = torch.from_numpy(np.nanmean(labels, axis=0))
    starts = {"cross-entropy": torch.logit(mean.clamp(0.01, 0.99)), "squared-error": mean}
    with torch.no_grad():
        model.network.head.weight.mul_(0.1)
        # Under an ordinal head an output of 0 is the middle of the classes, which quantiles make equally frequent.
        model.network.head.bias.copy_(starts.get(model.config.loss, torch.zeros_like(mean)))


def follow_quickly(network: nn.Module) -> None:
    """Let batch normalisation's running statistics keep up with a training of few steps.

    Some networks average them over thousands of steps: after 128 steps MobileNetV3, at 0.01, predicted a constant.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = max(module.momentum or 0.0, 0.1)


def make_optimiser(network: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over the parameters that are trained, biases and normalisation without weight decay."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases and normalisation
        ],
        lr=learning_rate,
        fused=True,
    )


def _batches(
    split: _Split, pixels: np.ndarray, *, config: ImagewiseConfig, epoch: int, device: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(pixels (n, H, W, 3), area of each view (n,), labels (areas, k)) on the device, one batch read ahead."""
    draw = np.random.default_rng([config.seed, epoch])
    count = max(1, round(len(split.rows) / config.batch_areas))

    def batch(areas: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        views = [
            split.rows[a] if len(split.rows[a]) <= config.views else draw.choice(split.rows[a], config.views, False)
            for a in areas
        ]
        area = np.repeat(np.arange(len(areas)), [len(rows) for rows in views])
        parts = (pixels[np.concatenate(views)], area, split.labels[areas])
        return to_device(parts[0], device), to_device(parts[1], device), to_device(parts[2], device)

    batches = np.array_split(draw.permutation(len(split.rows)), count)
    with ThreadPoolExecutor(1) as pool:  # one thread, so that the draws keep their order
        ahead = pool.submit(batch, batches[0])
        for areas in batches[1:]:
            ready = ahead.result()
            ahead = pool.submit(batch, areas)
            yield ready
        yield ahead.result()


def _train_epoch(
    model: ImagewiseModel,
    optimiser: torch.optim.AdamW,
    frozen: list[nn.Module],
    split: _Split,
    pixels: np.ndarray,
    *,
    epoch: int,
    device: str,
) -> float:
    config, network = model.config, model.network.train()
    for stage in frozen:
        stage.eval()
    generator = torch.Generator().manual_seed(epoch_seed(config.seed, epoch))
    losses: list[Tensor] = []
    steps = max(1, round(len(split.rows) / config.batch_areas))
    for step, (raw, area, labels) in enumerate(_batches(split, pixels, config=config, epoch=epoch, device=device)):
        rate = learning_rate_at((epoch + (step + 0.5) / steps) / config.epochs, peak=config.learning_rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        views = normalise(raw, mean=model.backbone.mean, std=model.backbone.std)
        if config.augment:
            views = augment(views, generator)
        if config.symmetric:
            views = turned(views, generator)
        views = views.contiguous(memory_format=torch.channels_last)
        with mixed_precision(device):
            logits = network(views)
            pooled = pool_views(logits, area, areas=len(labels))
        # The views' own loss gives every picture a gradient; the pooled one is what is scored.
        of_areas = masked_loss(pooled, labels, loss=config.loss, ordinal=network.ordinal)
        of_views = masked_loss(logits, labels[area], loss=config.loss, ordinal=network.ordinal)
        loss = config.pooled_share * of_areas + (1.0 - config.pooled_share) * of_views
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
        losses.append(loss.detach())
    network.eval()
    return float(torch.stack(losses).mean())


def _validate(model: ImagewiseModel, split: _Split, pixels: np.ndarray, *, device: str) -> tuple[float, float]:
    """Squared error and R2 of the pooled predictions, the mean over indicators; NaN without validation areas."""
    if not split.rows:
        return math.nan, math.nan
    rows = np.concatenate(split.rows)
    size = model.config.batch_areas * model.config.views
    logits = np.concatenate(
        [model.view_logits(pixels[rows[i : i + size]], device=device) for i in range(0, len(rows), size)]
    )
    starts = np.cumsum([0] + [len(views) for views in split.rows[:-1]])
    pooled = np.add.reduceat(logits, starts) / np.array([len(views) for views in split.rows])[:, None]
    error = (model.values(pooled) - split.labels) ** 2
    spread = (split.labels - np.nanmean(split.labels, axis=0)) ** 2
    known = np.isfinite(split.labels).any(axis=0)
    r2 = 1.0 - np.nansum(error, axis=0)[known] / np.maximum(np.nansum(spread, axis=0)[known], 1e-12)
    return float(np.nanmean(error)), float(r2.mean())


def _fingerprint(images: pd.DataFrame, labels: pd.DataFrame, config: ImagewiseConfig, parts: list[list[str]]) -> str:
    """What makes two trainings the same; where and with how many threads is not part of it."""
    settings = {
        name: value for name, value in asdict(config).items() if name not in ("workers", "device", "checkpoint_seconds")
    }
    text = json.dumps([settings, parts, images[["image_id", "area_id"]].to_numpy().tolist(), list(labels.columns)])
    return hashlib.sha256(text.encode() + labels.to_numpy(dtype=np.float64).tobytes()).hexdigest()


def train(
    images: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    train_areas: Sequence[str],
    validation_areas: Sequence[str],
    config: ImagewiseConfig,
    checkpoint: Path,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> ImagewiseModel:
    """Train on `train_areas`, keep the epoch with the least squared error on `validation_areas`, stop when it rises.

    `images` holds image_id, area_id, path; `labels` is indexed by area_id, a column an indicator, NaN where unknown, in
    [0, 1] (normalised ranks, classes) unless the loss is the squared error. Without validation areas every epoch runs
    and the last one is kept. `on_epoch` is called after each epoch, and first once for each epoch a resumed checkpoint
    already holds.

    The file `checkpoint` is as `Resumable` has it.

    Raises `LeakingSplit` for an area in both parts, `MissingImages` for one without images, `InputError` for one
    without labels, an indicator nobody has, a file that is no image or a damaged checkpoint.
    """
    parts = [list(train_areas), list(validation_areas)]
    _check_split(images, labels, train_areas=parts[0], validation_areas=parts[1])
    images = images[images["area_id"].isin(parts[0] + parts[1])].sort_values("image_id").reset_index(drop=True)
    labels = labels.loc[parts[0] + parts[1]]
    device = pick_device(config.device)
    fingerprint = _fingerprint(images, labels, config, parts)
    resumable = Resumable(checkpoint, fingerprint, EpochRecord)

    model = build(config, tuple(labels.columns), weights=resumable.weights)
    network = model.network.to(device).to(memory_format=torch.channels_last)
    if resumable.finished(network, on_epoch):
        return replace(model, history=tuple(resumable.history))

    training, validation = (_split(images, labels, areas) for areas in parts)
    frozen = _freeze(model)
    follow_quickly(network)
    optimiser = make_optimiser(network, learning_rate=config.learning_rate, weight_decay=config.weight_decay)
    if not resumable.history:
        _start_at_the_mean(model, training.labels)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    paths = [Path(path) for path in images["path"]]
    spill = checkpoint.with_name(f".{checkpoint.name}.views")
    with decoded(paths, size=config.size, threads=config.workers, spill=spill) as pixels:

        def one_epoch(epoch: int) -> dict[str, float]:
            loss = _train_epoch(model, optimiser, frozen, training, pixels, epoch=epoch, device=device)
            error, r2 = _validate(model, validation, pixels, device=device)
            return {"train_loss": loss, "validation_loss": error, "validation_r2": r2}

        resumable.run(network, optimiser, one_epoch, config=config, on_epoch=on_epoch)
    return replace(model, history=tuple(resumable.history))

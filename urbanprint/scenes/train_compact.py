"""How the weights of the compact parser were made: `python -m urbanprint.scenes.train_compact`.

It learns from pictures and masks of simulated towns that no city of the catalogue is made from, and is scored on
other towns again. The whole run takes about two minutes on two cores; the log it prints is what the card holds.
"""

import argparse
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from urbanprint.imagery.decoding import decode
from urbanprint.models.backbones import normalise
from urbanprint.models.card import save_model
from urbanprint.scenes.classes import SIMULATED
from urbanprint.scenes.compact import ARCHITECTURE, MEAN, SIZE, STD, WEIGHTS, CompactNetwork, CompactParser
from urbanprint.simulation.canvas import CLASSES
from urbanprint.simulation.scenes import jpeg, render
from urbanprint.simulation.town import build_town

TRAINING_TOWNS, TESTING_TOWNS = tuple(range(9001, 9013)), (9101, 9102)
"""Seeds of towns: none is a city of the catalogue."""

_BATCH, _PEAK, _WARM_UP = 16, 6e-3, 0.1

logger = logging.getLogger(__name__)


def pictures_and_masks(seeds: Sequence[int], *, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of the towns as a parser meets them, uint8 (about `images`, SIZE, SIZE, 3), and masks (..., SIZE, SIZE).

    A picture is drawn at 256 x 192, made a JPEG and squashed; its mask takes the nearest pixel.
    """
    views = []
    for seed in seeds:
        town = build_town(seed=seed, boroughs=4, areas_per_borough=24)
        drawn = np.random.default_rng(seed).permutation(town.images["image_id"].to_numpy(dtype=object))
        views += [town.view(image_id) for image_id in drawn[: math.ceil(images / len(seeds))]]
    rows, columns = (((np.arange(SIZE) + 0.5) * length / SIZE).astype(int) for length in (192, 256))
    pixels = np.empty((len(views), SIZE, SIZE, 3), np.uint8)
    masks = np.empty((len(views), SIZE, SIZE), np.uint8)

    def fill(position: int) -> None:
        scene = render(views[position])
        pixels[position] = decode(jpeg(scene), size=SIZE)
        masks[position] = scene.mask[np.ix_(rows, columns)]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, range(len(views))))
    return pixels, masks


def class_weights(masks: np.ndarray, *, classes: int) -> Tensor:
    """Weights of the loss (classes,), mean 1: rare classes weigh more, but less than their rarity would say."""
    share = np.bincount(masks.ravel(), minlength=classes) / masks.size
    weight = np.maximum(share, 1e-4) ** -0.35
    return torch.from_numpy((weight / weight.mean()).astype(np.float32))


def fit(pixels: np.ndarray, masks: np.ndarray, *, epochs: int, seed: int, classes: int, width: int) -> CompactNetwork:
    """A network trained on `pixels` (n, SIZE, SIZE, 3) and `masks` (n, SIZE, SIZE); the same seed, the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CompactNetwork(classes, width).to(memory_format=torch.channels_last)
    weight = class_weights(masks, classes=classes)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_PEAK, weight_decay=1e-3)
    steps, step = epochs * (len(pixels) // _BATCH), 0
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_PEAK, total_steps=steps, pct_start=_WARM_UP)
    network.train()
    for epoch in range(epochs):
        begun, losses = time.monotonic(), []
        for views, wanted in _batches(pixels, masks, seed=seed, epoch=epoch):
            loss = functional.cross_entropy(network(views), wanted, weight=weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            step += 1
        logger.info("epoch %d: loss %.3f, %.0f s", epoch + 1, np.mean(losses), time.monotonic() - begun)
    return network.eval()


def _batches(pixels: np.ndarray, masks: np.ndarray, *, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches; half of them mirrored (classes have no side), light and colour jittered."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(pixels))
    for start in range(0, len(order) - _BATCH + 1, _BATCH):
        rows = order[start : start + _BATCH]
        views = normalise(torch.from_numpy(pixels[rows]), mean=MEAN, std=STD)
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, (_BATCH, 3, 1, 1)).astype(np.float32))
        wanted = torch.from_numpy(masks[rows].astype(np.int64))
        if rng.random() < 0.5:
            views, wanted = views.flip(3), wanted.flip(2)
        yield (views * gain).contiguous(memory_format=torch.channels_last), wanted


def intersection_over_union(found: np.ndarray, wanted: np.ndarray, *, classes: int) -> np.ndarray:
    """IoU of each class (classes,) over all pixels of two stacks of masks; NaN for a class in neither."""
    together = np.bincount(wanted.ravel().astype(np.int64) * classes + found.ravel(), minlength=classes**2)
    table = together.reshape(classes, classes)
    union = table.sum(0) + table.sum(1) - np.diag(table)
    return np.divide(np.diag(table), union, out=np.full(classes, np.nan), where=union > 0)


def train_compact(
    folder: Path, *, images: int, testing_images: int, epochs: int, seed: int = 0, width: int = 24
) -> dict[str, float]:
    """Train, score on towns not trained on, write the model directory `folder`; returns IoU by class.

    The same arguments give the same weights on one machine.
    """
    begun = time.monotonic()
    pixels, masks = pictures_and_masks(TRAINING_TOWNS, images=images)
    logger.info("%d training pictures drawn in %.0f s", len(pixels), time.monotonic() - begun)
    network = fit(pixels, masks, epochs=epochs, seed=seed, classes=len(CLASSES), width=width)
    names = tuple(SIMULATED[name] for name in CLASSES)
    unseen, truth = pictures_and_masks(TESTING_TOWNS, images=testing_images)
    parser = CompactParser(network, names, "cpu")
    begun = time.monotonic()
    found = np.concatenate([parser.maps(unseen[start : start + 32])[0] for start in range(0, len(unseen), 32)])
    speed = len(unseen) / (time.monotonic() - begun)
    iou = intersection_over_union(found, truth, classes=len(CLASSES))
    scores = dict(zip(names, iou.round(4).tolist(), strict=True))
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_model(folder, tensors, _card(scores, images=len(pixels), unseen=len(unseen), epochs=epochs, width=width))
    share = np.bincount(truth.ravel(), minlength=len(CLASSES)) / truth.size
    for name, value, part in sorted(zip(names, iou, share, strict=True), key=lambda row: -row[1]):
        logger.info("%-24s IoU %.3f  (%.2f %% of the pixels)", name, value, 100 * part)
    size = (folder / "weights.safetensors").stat().st_size
    logger.info("mean IoU %.3f on %d pictures of towns not trained on", np.nanmean(iou), len(unseen))
    logger.info("%d kB of weights, %.0f images/s on %d threads", size // 1000, speed, torch.get_num_threads())
    return scores


def _card(scores: dict[str, float], *, images: int, unseen: int, epochs: int, width: int) -> dict[str, object]:
    return {
        "architecture": ARCHITECTURE,
        "config": {"width": width},
        "labels": {name: {"name": name, "unit": "class of a pixel"} for name in scores},
        "split": {"training_towns": list(TRAINING_TOWNS), "testing_towns": list(TESTING_TOWNS)},
        "scores": {
            "mean_iou": round(float(np.nanmean(list(scores.values()))), 4),
            "iou": scores,
            "testing_images": unseen,
        },
        "data_version": f"{images} simulated scenes of 256 x 192 pixels, {epochs} epochs",
        "licence": "Apache-2.0",
        "intended_use": "Parsing the streets of the simulated towns, for the demo and the tests.",
        "limits": "It has never seen a photograph: on real streets what it says means nothing.",
    }


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=WEIGHTS)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--testing-images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--width", type=int, default=24)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train_compact(
        chosen.folder,
        images=chosen.images,
        testing_images=chosen.testing_images,
        epochs=chosen.epochs,
        width=chosen.width,
    )


if __name__ == "__main__":
    _main()

"""Features of views from a frozen backbone. Belongs here: running a network over images; not: what is fitted on top."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from urbanprint.errors import InputError
from urbanprint.imagery.decoding import decode, decode_batches
from urbanprint.imagery.records import identifier
from urbanprint.imagery.store import FeatureStore
from urbanprint.models.backbones import Backbone, load_backbone, normalise


def pick_device(device: str | None) -> str:
    """The device to compute on: the one asked for, else "cuda" where there is one, else "cpu".

    Raises `InputError` where CUDA is asked for and absent: a run that was planned for a GPU must not crawl on a CPU.
    """
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f'device {device!r} is asked for but this machine has no CUDA: set device = "cpu".')
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def to_device(pixels: np.ndarray, device: str) -> torch.Tensor:
    """uint8 pixels on the device; through pinned memory on CUDA, so that the copy overlaps the computing."""
    tensor = torch.from_numpy(pixels)
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor


def mixed_precision(device: str) -> torch.autocast:
    """bf16 on CUDA; plain float32 on a CPU, where bf16 measured 2 times slower without matrix units."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda")


def embed(
    paths: Sequence[Path],
    backbone: Backbone,
    *,
    size: int = 224,
    batch: int = 32,
    device: str | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Features of the images, float32 of shape (n, backbone.feature_size), in the order of `paths`.

    `size` is the side in pixels the views are squashed to, `workers` the number of decoding threads (two batches are
    decoded ahead), `progress` is called with (images done, images in all). The same on every run on a CPU.

    Raises `InputError` naming the file that cannot be decoded.
    """
    where = pick_device(device)
    module = backbone.module.to(where).eval()
    features = np.empty((len(paths), backbone.feature_size), dtype=np.float32)
    done = 0
    with torch.inference_mode(), mixed_precision(where):
        for pixels in decode_batches(paths, size=size, batch=batch, threads=workers):
            views = normalise(to_device(pixels, where), mean=backbone.mean, std=backbone.std)
            features[done : done + len(pixels)] = module(views).float().cpu().numpy()
            done += len(pixels)
            if progress is not None:
                progress(done, len(paths))
    return features


def feature_store(
    folder: Path, *, backbone: str, weights: str, size: int, seed: int, device: str | None = None
) -> FeatureStore:
    """A store in `folder` that keeps of each image only what `embed` would compute of it, never its pixels.

    Its key names everything the vectors depend on. The network is loaded when the first image comes. Threads take
    turns on it: what a provider that forbids storing sends is slower than one image at a time.
    """
    version = weights if weights in ("imagenet", "none") else hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    key = identifier(f"{backbone}-{version[:16]}-{size}px-{seed}")
    loaded: list[Backbone] = []
    turn = threading.Lock()

    def extract(pixels: bytes) -> np.ndarray:
        view = decode(pixels, size=size)[None]
        with turn:
            where = pick_device(device)
            if not loaded:
                loaded.append(load_backbone(backbone, weights=weights, seed=seed))
                loaded[0].module.to(where).eval()
            network = loaded[0]
            with torch.inference_mode(), mixed_precision(where):
                views = normalise(to_device(view, where), mean=network.mean, std=network.std)
                vector: np.ndarray = network.module(views)[0].float().cpu().numpy()
        return vector

    return FeatureStore(folder, extract, key)

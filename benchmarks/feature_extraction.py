"""Features of images on disk against the bare network on pixels in memory: `python -m benchmarks.feature_extraction`.

The bare forward pass is the most that any extraction can reach: decoding has to hide behind it. Rounds alternate; the
ratio is theirs over ours, above 0.9 wanted. It ends with status 1 below that.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from urbanprint.imagery.decoding import decode_many
from urbanprint.models.backbones import load_backbone, normalise
from urbanprint.models.embedding import embed, mixed_precision, pick_device, to_device

_IMAGES, _BATCH, _SIZE, _ROUNDS = 96, 32, 224, 3
_WANTED = 0.9


def main() -> None:
    """Print images a second of both and their ratio."""
    device = pick_device(None)
    backbone = load_backbone("resnet34", weights="none", seed=1)
    module = backbone.module.to(device).eval()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(_IMAGES):  # as large as Mapillary's thumbnails
            small = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            paths.append(Path(folder) / f"{number}.jpg")
            Image.fromarray(small).resize((1024, 768), Image.Resampling.BICUBIC).save(paths[-1], quality=85)
        pixels = decode_many(paths, size=_SIZE, threads=2)

        def bare() -> None:
            with torch.inference_mode(), mixed_precision(device):
                for start in range(0, len(pixels), _BATCH):
                    part = to_device(pixels[start : start + _BATCH], device)
                    module(normalise(part, mean=backbone.mean, std=backbone.std)).float().cpu()

        def ours() -> None:
            embed(paths, backbone, size=_SIZE, batch=_BATCH)

        seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        for turn in range(_ROUNDS + 1):
            for name, side in (("ours", ours), ("bare", bare)):
                begun = time.perf_counter()
                side()
                if turn:  # the first round warms up
                    seconds[name].append(time.perf_counter() - begun)
    ratio = statistics.median(b / o for o, b in zip(seconds["ours"], seconds["bare"], strict=True))
    speeds = {name: _IMAGES / statistics.median(times) for name, times in seconds.items()}
    print(f"ResNet-34 features of {_IMAGES} files of 1024 x 768 on {device}, {_SIZE} px, images a second")
    print(f"from files {speeds['ours']:.1f}, bare forward pass {speeds['bare']:.1f}, ratio {ratio:.2f}")
    if ratio < _WANTED:
        sys.exit(f"below {_WANTED}")


if __name__ == "__main__":
    main()

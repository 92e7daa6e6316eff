"""Run every benchmark and print a table of ratios: ours against the other way, the median of interleaved rounds.

A ratio above 1 means ours is faster. The two sides of a row alternate, so that a machine that slows down slows both.
"""

import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import torch
from PIL import Image

from urbanprint.areas import assign
from urbanprint.explanation.gradcam import gradcam
from urbanprint.imagery.decoding import decode
from urbanprint.models.imagewise import ImagewiseConfig, build
from urbanprint.simulation.town import build_town

_ROUNDS = 5


@dataclass(frozen=True)
class Comparison:
    """Two ways to the same result."""

    what: str
    other: str
    ours: Callable[[], object]
    theirs: Callable[[], object]


def comparisons() -> Iterator[Comparison]:
    """Yield every comparison, ready to run."""
    rng = np.random.default_rng(1)
    picture = io.BytesIO()
    noise = rng.integers(0, 255, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((2048, 1024)).save(picture, "JPEG", quality=85)
    jpeg = picture.getvalue()

    def plain() -> np.ndarray:
        with Image.open(io.BytesIO(jpeg)) as image:
            return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))

    yield Comparison("decode 2048 x 1024 JPEG to 224 px", "plain Pillow", lambda: decode(jpeg, size=224), plain)

    areas = build_town().areas
    west, south, east, north = areas.total_bounds
    longitudes, latitudes = rng.uniform(west, east, 50_000), rng.uniform(south, north, 50_000)

    def joined() -> gpd.GeoDataFrame:
        points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(longitudes, latitudes), crs=4326)
        return gpd.sjoin(points, areas[["area_id", "geometry"]], predicate="within")

    yield Comparison(
        "assign 50,000 points to areas", "geopandas sjoin", lambda: assign(longitudes, latitudes, areas), joined
    )

    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget

    model = build(ImagewiseConfig(weights="none", size=128), ("imd",))
    images = torch.rand(16, 3, 128, 128)
    layer = model.layer
    theirs = GradCAM(model=model.network, target_layers=[model.network.get_submodule(layer)])
    targets = [RawScoresOutputTarget()] * len(images)
    yield Comparison(
        "GradCAM of 16 images, ResNet-18",
        "grad-cam package",
        lambda: gradcam(model.network, images, layer=layer, target=0),
        lambda: theirs(input_tensor=images, targets=targets),
    )


def main() -> None:
    """Print the table."""
    print(f"{'what':<36} {'against':<18} {'ours':>9} {'other':>9} {'ratio':>6}")
    for comparison in comparisons():
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for turn in range(_ROUNDS + 1):
            for side in seconds:
                begun = time.perf_counter()
                getattr(comparison, side)()
                if turn:  # the first round warms up
                    seconds[side].append(time.perf_counter() - begun)
        ours, theirs = (statistics.median(seconds[side]) for side in seconds)
        ratio = statistics.median(t / o for o, t in zip(seconds["ours"], seconds["theirs"], strict=True))
        print(f"{comparison.what:<36} {comparison.other:<18} {ours:8.4f}s {theirs:8.4f}s {ratio:6.1f}")


main()

"""How long cluster features take and what memory: `python -m benchmarks.cluster_features`.

1.1 million images of 7,000 clusters, each with about 15 of the 65 classes of Mapillary Vistas: 16.5 million rows of
scenes. The scenes are written to Parquet by one process and read and summed by another, whose peak memory is printed.
It ends with status 1 above a minute or 4 GB.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from urbanprint.scenes.classes import VISTAS
from urbanprint.scenes.clusters import cluster_counts

_SEED = 3
_SECONDS, _BYTES = 60.0, 4e9


def _write(folder: Path, *, images: int, clusters: int, classes: int) -> None:
    rng = np.random.default_rng(_SEED)
    image_id = pa.array([f"{number:015d}" for number in rng.permutation(images)])
    area_id = pa.array([f"KE2014{number:08d}" for number in range(clusters)]).take(
        pa.array(rng.integers(0, clusters, images))
    )
    pq.write_table(pa.table({"image_id": image_id, "area_id": area_id}), folder / "images.parquet")
    writer = None
    for start in range(0, images, 100_000):
        here = min(100_000, images - start)
        # Each image has `classes` different classes: a random start and stride through the list.
        first, stride = rng.integers(0, 65, (here, 1)), rng.choice([1, 2, 3, 4, 6, 7], (here, 1))
        name = ((first + stride * np.arange(classes)) % 65).ravel()
        rows = pa.table(
            {
                "image_id": image_id.take(pa.array(np.repeat(np.arange(start, start + here), classes))),
                "class": pa.array(VISTAS).take(pa.array(name)),
                "fraction": rng.dirichlet(np.ones(classes), here).ravel(),
                "count": rng.poisson(1.5, here * classes).astype(float),
                "confidence": rng.random(here * classes),
            }
        )
        writer = writer or pq.ParquetWriter(folder / "scenes.parquet", rows.schema)
        writer.write_table(rows)
    if writer is not None:
        writer.close()


def _measure(folder: Path) -> None:
    begun = time.perf_counter()
    scenes = pd.read_parquet(folder / "scenes.parquet")
    images = pd.read_parquet(folder / "images.parquet")
    read = time.perf_counter()
    counts = cluster_counts(scenes, images)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    shape = f"{len(images):,} images, {len(counts):,} clusters, {counts.shape[1]} features"
    print(f"{len(scenes):,} rows of scenes, {shape}")
    print(f"read {read - begun:.1f} s, summed {done - read:.1f} s, peak memory {peak / 1e9:.2f} GB")
    total = counts.filter(like="count:").to_numpy().sum()
    if total != scenes["count"].sum():
        sys.exit(f"{scenes['count'].sum() - total:.0f} objects were lost")
    if done - begun > _SECONDS or peak > _BYTES:
        sys.exit(f"above {_SECONDS:.0f} s or {_BYTES / 1e9:.0f} GB")


def main() -> None:
    """Write, then measure in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_100_000)
    parser.add_argument("--clusters", type=int, default=7_000)
    parser.add_argument("--classes", type=int, default=15, help="classes an image has")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        _measure(chosen.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), images=chosen.images, clusters=chosen.clusters, classes=chosen.classes)
        command = [sys.executable, "-m", "benchmarks.cluster_features", "--measure", folder]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()

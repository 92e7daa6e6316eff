"""From pixels to numbers: what a frozen network sees in each image."""

import dagster as dg
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.imagery import image_store
from resources.workspace import Workspace


@dg.asset(group_name="features", owners=OWNERS, partitions_def=CITIES, kinds={"torch", "parquet"}, code_version="1")
def image_embeddings(
    context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, street_images: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Features of each fetched image from the frozen backbone; no label has ever touched them."""
    import numpy as np

    # torch and torchvision take 3 s to import: only the step that needs them pays.
    from urbanprint.imagery.store import ImageStore
    from urbanprint.models.backbones import load_backbone
    from urbanprint.models.embedding import embed
    from urbanprint.progress import Printed

    city = cities.place(context.partition_key)
    training, size = city.training, city.training.frozen_size
    images = street_images[street_images["state"] == "fetched"]
    store = image_store(city, workspace)
    if isinstance(store, ImageStore):
        backbone = load_backbone(training.backbone, weights=training.weights, seed=training.seed)
        with Printed() as bar:
            features = embed(
                [store.path(sha256) for sha256 in images["sha256"]],
                backbone,
                size=size,
                progress=lambda done, of: bar("embedding images", done, of),
            )
    else:
        features = np.stack([store.read(sha256) for sha256 in images["sha256"]])
    columns = [f"f{index:04d}" for index in range(features.shape[1])]
    embeddings = pd.DataFrame(features, columns=columns)
    embeddings.insert(0, "image_id", images["image_id"].to_numpy())
    return described(embeddings, backbone=training.backbone, weights=training.weights, size_pixels=size)

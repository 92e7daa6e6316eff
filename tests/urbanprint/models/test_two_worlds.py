"""Graph against image-wise on held-out blocks: ahead where wealth shows only in several images, not where each tells.

Both networks are the real ones, small and briefly trained, on the pictures of one simulated country whose survey exists
in both worlds.
"""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from urbanprint.evaluation.cluster_gain import cluster_gain
from urbanprint.evaluation.clusters import cluster_folds, cross_fit_clusters
from urbanprint.evaluation.study import make_study
from urbanprint.indicators.survey import DHS_JITTER
from urbanprint.models.backbones import load_backbone
from urbanprint.models.embedding import embed
from urbanprint.models.graph_learner import graph_learner
from urbanprint.models.graph_model import GraphConfig
from urbanprint.models.imagewise import ImagewiseConfig
from urbanprint.models.imagewise_clusters import imagewise_cluster_learner
from urbanprint.simulation.country import World, build_country
from urbanprint.simulation.scenes import render
from urbanprint.simulation.survey import survey

# Over two seeds of the one and four of the other the gain was .28 to .50, in the world of single images -.18 to -.08.
NETWORK = ImagewiseConfig(
    backbone="resnet18", weights="none", size=32, views=2, epochs=5, patience=4, batch_areas=16, learning_rate=2e-3
)
GRAPH = GraphConfig(seed=7)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images of the country, drawn small, and features of them from a network that has seen no label."""
    country = build_country("simland-a")
    folder = tmp_path_factory.mktemp("pictures")
    images = country.images[~country.images["is_pano"] & (country.images["shows"] == country.images["image_id"])]
    images = images.groupby("area_id").head(16).reset_index(drop=True)
    images["path"] = [str(folder / f"{image_id}.png") for image_id in images["image_id"]]
    for image_id, path in zip(images["image_id"], images["path"], strict=True):
        Image.fromarray(render(country.view(image_id), width=96, height=72).pixels).save(path)
    backbone = load_backbone("resnet18", weights="none", seed=7)
    features = embed([Path(path) for path in images["path"]], backbone, size=32)
    return images, pd.DataFrame(features, index=pd.Index(images["image_id"], name="image_id")).add_prefix("f")


def gain(world: World, seen: tuple[pd.DataFrame, pd.DataFrame], folder: Path) -> pd.Series:
    """R2 of the graph minus that of the image-wise network in the first block fold, with its interval."""
    images, features = seen
    clusters = survey(build_country("simland-a"), world=world)
    folds = cluster_folds(clusters, folds=3, seed=7, block_m=40_000, jitter=DHS_JITTER, held_out="region")
    study = make_study(clusters, folds, buffer_m=20_000, jitter=DHS_JITTER, images=images)
    positions = images.set_index("image_id")[["longitude", "latitude"]]
    learners = {
        "imagewise": imagewise_cluster_learner(
            study.labels, folds, task="regression", config=NETWORK, checkpoints=folder
        ),
        "graph_images": graph_learner(features, positions, study.labels, folds, task="regression", config=GRAPH),
    }
    first = study.splits["block"][:1]
    predictions = pd.concat(
        cross_fit_clusters(
            learner, model=name, splits=first, labels=study.labels, task="regression", images=study.images
        )
        for name, learner in learners.items()
    )
    gains = cluster_gain(predictions, "graph_images", "imagewise", folds=folds, seed=1)
    return gains.set_index("indicator").loc["poverty"]


def test_the_graph_is_ahead_where_several_images_are_needed(
    seen: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    ahead = gain("several", seen, tmp_path)
    print(ahead)
    assert ahead["low"] > 0


def test_the_graph_is_not_ahead_where_each_image_tells(seen: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    behind = gain("single", seen, tmp_path)
    print(behind)
    assert behind["low"] <= 0

"""From predictions of single images to predictions of clusters, and the scores of both.

What belongs here: votes and means, over tables. Which network predicted the images does not matter.
"""

import pandas as pd
from sklearn.metrics import accuracy_score, r2_score

from urbanprint.evaluation.tasks import Task


def pool_images(predicted: pd.DataFrame, *, task: Task) -> pd.DataFrame:
    """One prediction a cluster, indexed by area_id, from those of its images: area_id and the indicators.

    Regression: the mean. Classification: the share of images that vote for label 1, among which the mean probability
    counts as one image more, so that the majority decides and the mean probability only where votes are even.
    """
    names = [name for name in predicted.columns if name not in ("image_id", "area_id")]
    by_cluster = predicted.groupby("area_id")[names]
    if task == "regression":
        return by_cluster.mean()
    votes = (predicted[names] >= 0.5).astype(float).groupby(predicted["area_id"]).sum()
    return (votes + by_cluster.mean()).div(by_cluster.size() + 1, axis=0)


def image_scores(predicted: pd.DataFrame, *, task: Task) -> pd.DataFrame:
    """Accuracy (classification) or R2 (regression) over single images and over clusters.

    `predicted` is what `imagewise_cluster_learner` hands to `on_images`, of one or more folds of a kind. An image is
    judged by the label of its cluster. Columns: kind, indicator, unit ("image", "cluster"), score, count.
    """
    rows = []
    for (kind, indicator), images in predicted.dropna(subset="observed").groupby(["kind", "indicator"], sort=False):
        pooled = pool_images(images[["area_id", "predicted"]], task=task)
        clusters = pooled.assign(observed=images.groupby("area_id")["observed"].first())
        for unit, table in (("image", images), ("cluster", clusters)):
            score = (
                accuracy_score(table["observed"], table["predicted"] >= 0.5)
                if task == "classification"
                else r2_score(table["observed"], table["predicted"])
            )
            row = {"kind": kind, "indicator": indicator, "unit": unit, "score": score, "count": len(table)}
            rows.append(row)
    return pd.DataFrame(rows)

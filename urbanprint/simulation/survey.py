"""What the survey of a simulated country publishes, and the best scores that its images allow.

What belongs here: the survey's file in the shape of the project's own clusters, and the ceilings. The generative model
itself is in `country.py`.
"""

from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.special import ndtr, xlogy

from urbanprint.evaluation.tasks import Task
from urbanprint.simulation.country import (
    EFFECTS,
    LEANINGS,
    LEVEL_CUES,
    UNPUBLISHED,
    WEIGHTS,
    Country,
    World,
    tilt,
    variety,
)

Reader = Literal["images", "set"]
"""How a model reads a cluster: predictions of its single images, averaged; or all of them together."""


def survey(country: Country, *, world: World) -> pd.DataFrame:
    """The published survey, a row a cluster, columns as in `tables.CLUSTERS`; an indicator not asked for is NaN."""
    signal = country.truth[["level", "tilt", "variety"]].to_numpy() @ np.array(WEIGHTS[world])
    clusters = country.clusters
    published = clusters[["area_id", "region", "longitude", "latitude", "urban", "weight"]]
    published = published.assign(country=country.name)
    for indicator, effects in EFFECTS.items():
        unseen = country.truth[f"unseen_{indicator}"]
        latent = effects.urban * country.truth["urban"] + effects.signal * signal + effects.unseen * unseen
        known = np.nan if indicator in UNPUBLISHED[country.name] else 1.0
        published[indicator] = known * (effects.centre + effects.scale * latent).round(4)
    columns = ["area_id", "country", "region", "longitude", "latitude", "urban", "weight", *EFFECTS]
    return published[columns]


def reachable(country: Country, images: pd.DataFrame, *, world: World) -> pd.DataFrame:
    """The best prediction of each cluster from the pictures `images` (image_id, area_id) and the urban flag.

    Columns: area_id, indicator, reader, value and deviation = mean and standard deviation of the indicator given what
    the reader sees, probability = that it lies at or above the median of all clusters. Nothing is simulated. Of n
    different pictures, s of them of the shabby look,

        share | looks ~ prior of the share, times p^s (1 - p)^(n - s)
        level | cues  ~ Normal(m, 1 / (1 + I)),  I = n sum_k r_k^2 / (1 - r_k^2)
                                                 m = sum_i sum_k r_k c_k(i) / (1 - r_k^2) / (1 + I)

    The reader "images" has the best linear function of the mean look for the tilt, and nothing of the variety: no
    average of single-image predictions can be better (see `country.py`). Both take the cues as they were drawn, before
    a renderer turned them into counts and pixels, and take no note of where the cluster lies.
    """
    rows = country.images.set_index("image_id").loc[images["image_id"]].reset_index(drop=True)
    rows["area_id"] = images["area_id"].to_numpy()
    by_cluster = rows.drop_duplicates(["area_id", "shows"]).groupby("area_id")
    n = by_cluster.size()
    shabby = by_cluster["look"].agg(lambda looks: (looks > 0).sum())
    loading = np.array(list(LEVEL_CUES.values()))
    precision = loading / (1 - loading**2)
    known = 1 + n * float((loading * precision).sum())
    level = (by_cluster[[f"cue_{cue}" for cue in LEVEL_CUES]].sum() @ precision) / known

    prior = (1 + LEANINGS) / 2
    chance = xlogy(shabby.to_numpy()[:, None], prior) + xlogy((n - shabby).to_numpy()[:, None], 1 - prior)
    posterior = np.exp(chance - chance.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    # The mean look is x with a sampling variance of E[1 - x^2] / n.
    square = float((LEANINGS**2).mean())
    shrunk = square / (square + (1 - square) / n.to_numpy()[:, None])
    mean_look = (2 * shabby / n - 1).to_numpy()[:, None]

    of_level, of_tilt, of_variety = WEIGHTS[world]
    middle, rest = of_level * level.to_numpy()[:, None], of_level**2 / known.to_numpy()[:, None]
    # Of each reader: (clusters, nodes) the signal at each node of the share and the nodes' probabilities, (clusters, 1)
    # the variance of the signal around them.
    read: dict[Reader, tuple[np.ndarray, np.ndarray, np.ndarray]] = {
        "images": (
            middle + of_tilt * shrunk * tilt((1 + mean_look) / 2) + of_variety * variety(prior),
            np.full_like(posterior, 1 / len(prior)),
            rest + of_tilt**2 * (1 - shrunk),
        ),
        "set": (middle + of_tilt * tilt(prior) + of_variety * variety(prior), posterior, rest),
    }

    published = survey(country, world=world)
    town = country.truth.set_index("area_id")["urban"].loc[n.index].to_numpy()[:, None]
    parts = []
    for indicator, effects in EFFECTS.items():
        if indicator in UNPUBLISHED[country.name]:
            continue
        median = (published[indicator].median() - effects.centre) / effects.scale
        for reader, (signal, weight, around) in read.items():
            latent = effects.urban * town + effects.signal * signal
            mean = (weight * latent).sum(axis=1)
            variance = (weight * (latent - mean[:, None]) ** 2).sum(axis=1)
            spread = np.sqrt(effects.unseen**2 + effects.signal**2 * around)
            part = {
                "area_id": n.index,
                "indicator": indicator,
                "reader": reader,
                "value": effects.centre + effects.scale * mean,
                "deviation": effects.scale * np.sqrt(variance + spread[:, 0] ** 2),
                "probability": (weight * ndtr((latent - median) / spread)).sum(axis=1),
            }
            parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def ceiling(country: Country, images: pd.DataFrame, *, world: World) -> pd.DataFrame:
    """The best R2 (regression) and accuracy (classification by the median) that `images` allow.

    A row an indicator the country publishes, task and reader, over the clusters that `images` (image_id, area_id)
    names. Columns: indicator, task, reader, score = what `reachable` scores on these clusters, expected = what it
    scores on average over all countries with these images.
    """
    predicted = reachable(country, images, world=world)
    published = survey(country, world=world).set_index("area_id")
    rows = []
    for (indicator, reader), part in predicted.groupby(["indicator", "reader"], sort=False):
        values, scale = published[str(indicator)], EFFECTS[str(indicator)].scale
        observed = values.loc[part["area_id"]].to_numpy()
        probability = part["probability"].to_numpy()
        r2 = 1 - ((observed - part["value"]) ** 2).sum() / ((observed - observed.mean()) ** 2).sum()
        right = (observed >= values.median()) == (probability >= 0.5)
        expected = (1 - (part["deviation"] ** 2).mean() / scale**2, np.maximum(probability, 1 - probability).mean())
        for task, score, mean in zip(get_args(Task), (right.mean(), r2), expected[::-1], strict=True):
            row = {"indicator": indicator, "task": task, "reader": reader, "score": score, "expected": mean}
            rows.append(row)
    return pd.DataFrame(rows)

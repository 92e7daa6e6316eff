"""What networks of one conurbation say of another: a matrix, and each conurbation left out of all others.

What belongs here: joining conurbations. Incomes are ranked within each, so that what is asked of a network is who is
poorer than whom there, and not how rich a city is beside another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from urbanprint.aerial.learning import tile_config, train_tiles
from urbanprint.errors import InputError
from urbanprint.evaluation.bootstrap import group_draws, interval, pearson
from urbanprint.evaluation.splits import Split
from urbanprint.models.imagewise import ImagewiseModel
from urbanprint.settings import TileTraining

OTHERS = "all others"
TRANSFER_COLUMNS = ("trained_on", "tested_on", "value", "low", "high", "areas")


@dataclass(frozen=True, eq=False, kw_only=True)
class Study:
    """The tiles of a conurbation (image_id, area_id, sequence_id, path), its incomes by area_id, and its folds."""

    images: pd.DataFrame
    incomes: pd.Series
    folds: pd.DataFrame


def transfer_table(
    studies: Mapping[str, Study],
    *,
    own: Mapping[str, pd.DataFrame],
    model_of: Callable[[str], ImagewiseModel],
    training: TileTraining,
    head: str,
    checkpoints: Path,
    seed: int,
) -> pd.DataFrame:
    """Pearson r of the expected and the observed class (`TRANSFER_COLUMNS`), a row a pair of conurbations.

    `own` are the held-out predictions of each conurbation's block folds, whose observed classes all networks are judged
    on; `model_of` gives the network trained on all of one. With three or more, one is trained on all others of each
    (trained_on `OTHERS`). Intervals are of a bootstrap of whole blocks of the conurbation tested on. Raises
    `InputError` where two conurbations share a cell.
    """
    named = pd.concat([pd.Series(key, index=study.incomes.index) for key, study in studies.items()])
    if (shared := named.index.duplicated()).any():
        raise InputError(f"Cell {named.index[shared][0]} is in two conurbations: leave it out of one.")
    rows = []
    for tested in studies:
        truth = own[tested].set_index("area_id")
        for trained in studies:
            predicted = truth["predicted"] if trained == tested else _predicted(model_of(trained), studies[tested])
            rows.append((trained, tested, *_judged(truth["observed"], predicted, studies[tested], seed)))
        if len(studies) > 2:
            pooled = _pooled({key: study for key, study in studies.items() if key != tested})
            split = Split(kind="block", fold=-1, train=tuple(sorted(pooled.incomes.index)), test=())
            model = train_tiles(
                pooled.images,
                pooled.incomes,
                pooled.folds,
                split=split,
                config=tile_config(training, head),
                checkpoint=checkpoints / f"without-{tested}.pt",
            )
            predicted = _predicted(model, studies[tested])
            rows.append((OTHERS, tested, *_judged(truth["observed"], predicted, studies[tested], seed)))
    return pd.DataFrame(rows, columns=list(TRANSFER_COLUMNS))


def _predicted(model: ImagewiseModel, study: Study) -> pd.Series:
    return model.predict(study.images).set_index("area_id").iloc[:, 0]


def _judged(observed: pd.Series, predicted: pd.Series, study: Study, seed: int) -> tuple[float, float, float, int]:
    blocks = study.folds[study.folds["kind"] == "block"].set_index("area_id")["block"]
    unit, weights = group_draws(blocks.loc[observed.index], repeats=1000, seed=seed)
    r = pearson(observed.to_numpy(float), predicted.loc[observed.index].to_numpy(), unit, weights)
    return (*interval(r), len(observed))


def _pooled(studies: Mapping[str, Study]) -> Study:
    """Several conurbations as one: incomes as ranks within each, blocks under names of their own."""
    folds = [study.folds.assign(block=f"{key}/" + study.folds["block"]) for key, study in studies.items()]
    tiles = [study.images[study.images["area_id"].isin(study.folds["area_id"])] for study in studies.values()]
    kept = [study.incomes.loc[np.unique(study.folds["area_id"])].rank(pct=True) for study in studies.values()]
    return Study(
        images=pd.concat(tiles, ignore_index=True),
        incomes=pd.concat(kept),
        folds=pd.concat(folds, ignore_index=True),
    )

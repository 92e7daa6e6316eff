"""Whose labels a table of features has seen, and the guard that refuses features which have seen the test labels.

Object counts and features of a frozen network have seen no label. Features of a network fine-tuned on labels carry
them: of areas they were fitted on they say more than any picture could, so a model trained on them must not be tested
there. Learners take their features through `features_for`, so that none can forget to ask.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from urbanprint.errors import LeakingSplit
from urbanprint.evaluation.splits import Split


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of images and the areas whose labels they were fitted on, in any part of the fitting.

    `table` is indexed by image_id, a column a feature.
    """

    table: pd.DataFrame
    fitted_on: frozenset[str] = frozenset()


FeatureSource = pd.DataFrame | Features | Callable[[Split], Features]
"""Features that have seen no label, features with their provenance, or others for each split (fine-tuned a fold)."""


def features_for(source: FeatureSource, split: Split) -> pd.DataFrame:
    """Return the table of features for `split`, past the guard.

    Raises `LeakingSplit` where the features were fitted on labels of its test areas, or of areas left out as a buffer:
    those are left out because they resemble the test areas.
    """
    if isinstance(source, pd.DataFrame):
        return source
    features = source if isinstance(source, Features) else source(split)
    for part, areas in (("test", split.test), ("buffered", split.buffered)):
        if shared := sorted(features.fitted_on.intersection(areas)):
            raise LeakingSplit(
                f"The features leak: they were fitted on the labels of {len(shared)} of {len(areas)} {part} areas of "
                f"fold {split.fold} ({split.kind}): {', '.join(shared[:3])}{', ...' if len(shared) > 3 else ''}; "
                f"fit them on the training areas of each fold alone, or use features that have seen no label."
            )
    return features.table

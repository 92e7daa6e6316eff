"""The closed sets every room shares: identifiers in tables -> names for people. Imports nothing."""

INDICATORS: dict[str, str] = {
    "imd": "Index of Multiple Deprivation",
    "income": "Income",
    "employment": "Employment",
    "education": "Education, skills and training",
    "health": "Health and disability",
    "crime": "Crime",
    "housing": "Barriers to housing and services",
    "environment": "Living environment",
}
"""The index and its seven domains: column prefix -> name for people."""

FOLD_KINDS: dict[str, str] = {
    "random": "random areas",
    "borough": "whole boroughs",
    "block": "spatial blocks with a buffer",
}
"""The kinds of fold, from the easiest to the most honest: identifier -> name for people."""

MEASURES: dict[str, str] = {
    "r2": "R²",
    "spearman": "Spearman",
    "mae_rank": "mean error, ranks",
    "mae_decile": "mean error, deciles",
    "within_one_decile": "within one decile",
}
"""The scores of a set of held-out predictions: identifier -> name for people."""

IMAGE_STATES: tuple[str, ...] = ("planned", "found", "fetched", "rejected", "failed")
"""What can have become of an image, in the order it happens."""

LIVELIHOODS: dict[str, str] = {
    "poverty": "Asset wealth (poverty)",
    "population": "Population density",
    "bmi": "Women's body-mass index",
}
"""The indicators of a survey cluster: column -> name for people. As surveyed: a higher `poverty` index is a wealthier
cluster (the published column `pov` is a wealth index)."""

CLUSTER_BASELINES: dict[str, str] = {
    "random": "random",
    "prior": "prior",
    "country": "mean of the country",
    "neighbours": "average of the nearest clusters",
    "coordinates": "coordinates only",
    "urban": "urban flag",
    "coordinates_urban": "coordinates + urban flag",
}
"""Models of survey clusters that look at no picture: identifier -> name for people."""

CLUSTERWISE_METHODS: tuple[str, ...] = ("k-NN", "random forest", "boosted trees")
"""The tabular learners that the cluster-wise model is chosen from."""

TASKS: dict[str, str] = {
    "classification": "at or above the training median",
    "regression": "the value itself",
}
"""What is asked of a cluster: identifier -> name for people."""

TASK_MEASURES: dict[str, dict[str, str]] = {
    "classification": {"accuracy": "accuracy", "auc": "AUC"},
    "regression": {"r2": "R²", "pearson_r2": "squared Pearson r", "pearson_r": "Pearson r"},
}
"""The scores of each task: identifier -> name for people. `pearson_r2` is the "r2" of the livelihood papers, which a
constant offset, a wrong scale and even a wrong sign leave as it is; `r2` forgives none of them."""

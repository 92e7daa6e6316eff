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

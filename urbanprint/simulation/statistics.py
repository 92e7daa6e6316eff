"""What the simulated town publishes, and the best score that its pictures allow.

What belongs here: the statistics in the shape of the official file, and the ceiling. The generative model itself
is in `town.py`.
"""

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import rankdata

from urbanprint.simulation.town import CUES, HABIT_SHARE, VISIBILITY, Town, imd_score, mix_domains
from urbanprint.vocabulary import INDICATORS

_MEASURES: dict[str, str] = {
    "imd": "Index of Multiple Deprivation (IMD)",
    "income": "Income",
    "employment": "Employment",
    "education": "Education, Skills and Training",
    "health": "Health Deprivation and Disability",
    "crime": "Crime",
    "housing": "Barriers to Housing and Services",
    "environment": "Living Environment",
    "idaci": "Income Deprivation Affecting Children Index (IDACI)",
    "idaopi": "Income Deprivation Affecting Older People (IDAOPI)",
    "children": "Children and Young People Sub-domain",
    "skills": "Adult Skills Sub-domain",
    "geographical": "Geographical Barriers Sub-domain",
    "wider": "Wider Barriers Sub-domain",
    "indoors": "Indoors Sub-domain",
    "outdoors": "Outdoors Sub-domain",
}
_PARENT: dict[str, str] = {
    "idaci": "income",
    "idaopi": "income",
    "children": "education",
    "skills": "education",
    "geographical": "housing",
    "wider": "housing",
    "indoors": "environment",
    "outdoors": "environment",
}
_RATES = frozenset({"income", "employment", "idaci", "idaopi"})
_PERCENTAGES = frozenset({"education", "housing", "environment"})
_TIED_PAIRS = 2


def file7(town: Town) -> pd.DataFrame:
    """The town's statistics under the 57 headings of the official File 7 of the Indices of Deprivation 2019.

    Ranks run 1..n, 1 = most deprived; a few areas share a score and therefore a rank. Deciles run 1..10.
    """
    rng = np.random.default_rng([town.seed, 7])
    areas, n = town.areas, len(town.areas)
    columns: dict[str, object] = {
        "LSOA code (2011)": areas["area_id"],
        "LSOA name (2011)": areas["name"],
        "Local Authority District code (2019)": areas["district_code"],
        "Local Authority District name (2019)": areas["district"],
    }
    for name, heading in _MEASURES.items():
        score = _scores(town, name, rng)
        by_score = np.argsort(score)
        tied = rng.choice(n - 1, _TIED_PAIRS, replace=False)
        score[by_score[tied]] = score[by_score[tied + 1]]
        rank = rankdata(-score, method="min").astype(int)
        rate = " (rate)" if name in _RATES else ""
        columns[f"{heading} Score{rate}"] = score.round(6)
        columns[f"{heading} Rank (where 1 is most deprived)"] = rank
        columns[f"{heading} Decile (where 1 is most deprived 10% of LSOAs)"] = 1 + (rank - 1) * 10 // n
    total = areas["population"].to_numpy().astype(int)
    children = (total * rng.uniform(0.14, 0.26, n)).astype(int)
    older = (total * rng.uniform(0.10, 0.24, n)).astype(int)
    columns["Total population: mid 2015 (excluding prisoners)"] = total
    columns["Dependent Children aged 0-15: mid 2015 (excluding prisoners)"] = children
    columns["Population aged 16-59: mid 2015 (excluding prisoners)"] = total - children - older
    columns["Older population aged 60 and over: mid 2015 (excluding prisoners)"] = older
    # The official heading ends in a blank.
    columns["Working age population 18-59/64: for use with Employment Deprivation Domain (excluding prisoners) "] = (
        total - children - older - (0.02 * total).astype(int)
    )
    return pd.DataFrame(columns)


def _scores(town: Town, name: str, rng: np.random.Generator) -> np.ndarray:
    """Scores on the published scale, rising with the latent: rates in (0, 1), percentages, or standard scores."""
    if name == "imd":
        return town.truth["imd_score"].to_numpy(copy=True)
    latent = town.truth[f"{_PARENT.get(name, name)}_latent"].to_numpy(copy=True)
    if name in _PARENT:
        latent = 0.9 * latent + np.sqrt(1 - 0.9**2) * rng.normal(size=len(latent))
    if name in _RATES:
        return 1 / (1 + np.exp(2.0 - 0.6 * latent))
    if name in _PERCENTAGES:
        return 100 * ndtr(0.5 * latent - 0.7)
    return latent


def normalised_ranks(town: Town) -> pd.DataFrame:
    """The labels, area_id by indicator: 1 - (rank - 1) / (n - 1) of the published rank, 1 = most deprived."""
    published = file7(town)
    ranks = published[[f"{_MEASURES[name]} Rank (where 1 is most deprived)" for name in INDICATORS]]
    labels = 1 - (ranks.to_numpy() - 1) / (len(published) - 1)
    return pd.DataFrame(labels, columns=list(INDICATORS), index=pd.Index(published["LSOA code (2011)"], name="area_id"))


def ceiling(town: Town, images: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The best R2 that any model can reach from the pictures `images` (image_id, area_id): a row an indicator.

    Definition: the R2 of E[y | all cues of the area's views], y the published normalised rank, over the areas
    that `images` names. It takes the cue values as they were drawn, before a renderer turned them into counts and
    pixels, and it knows the generative model, but neither the area's place nor its style. Of n views only the mean
    of each cue counts, and all is Gaussian, so the cues enter through the posterior mean m of the visible latent:

        q_k = (1 - r_k^2) (s + (1 - s) / n),   I = sum_k r_k^2 / q_k,   m = sum_k r_k mean_i c_ik / q_k / (1 + I)

    and E[y | m] is read off 40,000 areas drawn from the model, as a polynomial in m. `low`, `high`: 95 % interval,
    bootstrap of whole boroughs. Columns: indicator, r2, low, high.
    """
    names = [f"cue_{cue}" for cue in CUES]
    cues = town.images.set_index("image_id").loc[images["image_id"], names]
    of_area = cues.groupby(images["area_id"].to_numpy())
    means, views = of_area.mean(), of_area.size().to_numpy()
    labels = normalised_ranks(town).loc[means.index].to_numpy()
    loading = np.array(list(CUES.values()))
    rng = np.random.default_rng(seed)
    visible, ranks = _population(40_000, rng)
    predicted = np.empty_like(labels)
    for count in np.unique(views):
        noise = (1 - loading**2) * (HABIT_SHARE + (1 - HABIT_SHARE) / count)
        information = float((loading**2 / noise).sum())
        chosen = views == count
        posterior_mean = means.to_numpy()[chosen] @ (loading / noise) / (1 + information)
        simulated = (information * visible + np.sqrt(information) * rng.normal(size=len(visible))) / (1 + information)
        powers = np.polynomial.polynomial.polyvander(simulated, 5)
        coefficients = np.linalg.lstsq(powers, ranks, rcond=None)[0]
        predicted[chosen] = np.polynomial.polynomial.polyvander(posterior_mean, 5) @ coefficients
    district = town.areas.set_index("area_id").loc[means.index, "district_code"]
    r2, low, high = _bootstrapped_r2(labels, np.clip(predicted, 0, 1), pd.factorize(district)[0], rng)
    return pd.DataFrame({"indicator": list(INDICATORS), "r2": r2, "low": low, "high": high})


def _population(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`n` areas from the model: visible latent (n,), and normalised ranks (n, 8) in the order of INDICATORS."""
    fields = rng.normal(size=(n, len(VISIBILITY) + 2))
    domains = mix_domains(fields[:, 0], fields[:, 1], fields[:, 2:])
    scores = np.column_stack([imd_score(domains), domains])
    return fields[:, 0], (rankdata(scores, axis=0) - 1) / (n - 1)


def _bootstrapped_r2(
    labels: np.ndarray, predicted: np.ndarray, borough: np.ndarray, rng: np.random.Generator, *, draws: int = 2000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R2 of each column (k,) with its 95 % interval, resampling whole boroughs."""
    boroughs = borough.max() + 1
    drawn = rng.multinomial(boroughs, np.full(boroughs, 1 / boroughs), draws)
    weights = np.vstack([np.ones(boroughs, dtype=int), drawn])  # the first row is the town itself

    def weighted(values: np.ndarray) -> np.ndarray:
        sums = np.zeros((boroughs, *values.shape[1:]))
        np.add.at(sums, borough, values)
        return weights @ sums

    count = weighted(np.ones((len(labels), 1)))
    residual = weighted((labels - predicted) ** 2)
    total = weighted(labels**2) - weighted(labels) ** 2 / count
    r2 = 1 - residual / total
    low, high = np.quantile(r2[1:], [0.025, 0.975], axis=0)
    return r2[0], low, high

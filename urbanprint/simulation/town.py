"""The simulated town: areas, latent deprivation, domains, coverage, and the images a provider would hold.

What belongs here is the generative model, so that every number a model is scored against is known. The pictures
are drawn in `scenes.py`, statistics and the ceiling are computed in `statistics.py`, files and protocols are in
`server.py`.

The model, for area a, image i of area a, domain d and cue k, all terms of unit variance:

    field  = sqrt(.20) borough effect + sqrt(.55) smooth field + sqrt(.25) local noise
    V, H, E_d                 independent fields: what shows in the street, what never shows, what only d measures
    domain latent  L_d(a)   = v_d V(a) + h_d H(a) + e_d E_d(a)          v_d = VISIBILITY[d]
    IMD score               = official weights on the exponentially transformed ranks of the domains
    cue            c_k(i)   = r_k V(a) + sqrt(1 - r_k^2) (sqrt(s) habit(a, k) + sqrt(1 - s) noise(i, k))
                              r_k = CUES[k], s = HABIT_SHARE: a street can be leafy and poor in all its views

An area's style is drawn without regard to any of these and is the same in all its images.
"""

from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from urbanprint.simulation.styles import Style, View, random_style

CUES: dict[str, float] = {
    "vegetation": -0.83,
    "litter": 0.80,
    "shutters": 0.77,
    "boarded": 0.74,
    "decay": 0.72,
    "cars": 0.64,
}
"""Cue of a view -> its correlation with the visible latent (positive: more of it where more deprived)."""

HABIT_SHARE = 0.7
"""Of a cue's noise variance, the part that all views of an area share: more views do not average it away."""

VISIBILITY: dict[str, float] = {
    "income": 0.90,
    "employment": 0.87,
    "education": 0.78,
    "health": 0.72,
    "crime": 0.60,
    "housing": 0.88,
    "environment": 0.98,
}
"""Domain -> correlation of its latent with the visible latent."""

IMD_WEIGHTS: dict[str, float] = {
    "income": 0.225,
    "employment": 0.225,
    "education": 0.135,
    "health": 0.135,
    "crime": 0.093,
    "housing": 0.093,
    "environment": 0.093,
}
"""Domain -> weight in the IMD (English Indices of Deprivation 2019, Technical Report); published to sum to 0.999."""

ORIGIN = (-8.0, 50.0)
"""Centre of the town, longitude and latitude: open sea south of Ireland, never confused with a real place."""

_BOROUGH_SHARE, _SMOOTH_SHARE, _LENGTH_M = 0.20, 0.55, 1000.0
_INVISIBLE_SHARE = 0.35  # of a domain's unseen variance, the part it shares with the other domains
_AREA_KM2 = 0.30
_M_PER_DEGREE_LAT = 111_229.0  # WGS 84 at 50 N
_M_PER_DEGREE_LON = 71_696.0
_BOROUGH_NAMES = tuple(
    f"{first}{last}"
    for last in ("wick", "mere", "holt", "combe")
    for first in ("Alder", "Bracken", "Cald", "Dunmar", "Elver", "Fenna", "Gors", "Hesk", "Ivel", "Kessing")
)
_CREATORS = (
    "fernwalker",
    "orbit_cyclist",
    "streetwise_ada",
    "quiet_lens",
    "mapper_42",
    "northbound",
    "<script>alert(1)</script>",  # usernames are free text: whoever shows one has to escape it
)
_ALPHABET = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))


@dataclass(frozen=True, eq=False)
class Town:
    """A built town; the frames are shared by all callers and must not be changed.

    `areas`: GeoDataFrame, EPSG:4326: area_id, name, district_code, district, population, geometry.
    `truth`: area_id, visible, invisible, deprivation, `<indicator>_latent` (standard normal, high = deprived),
    imd_score, `style_<field>`.
    `images`: image_id, area_id, sequence_id, creator, captured_at, longitude, latitude (the true position),
    raw_longitude, raw_latitude (the camera's own), has_computed_geometry, thumb ("ok", "late", "never"), heading
    (degrees clockwise from north), is_pano, `cue_<name>`.
    """

    seed: int
    areas: gpd.GeoDataFrame
    truth: pd.DataFrame
    images: pd.DataFrame

    def view(self, image_id: str) -> View:
        """What the picture `image_id` is drawn from; KeyError when there is no such image."""
        image = self._image_rows[image_id]
        style = self._styles[image["area_id"]]
        return View(image_id=image_id, seed=self.seed, style=style, **{cue: image[f"cue_{cue}"] for cue in CUES})

    @cached_property
    def _image_rows(self) -> dict[str, dict]:
        return dict(zip(self.images["image_id"], self.images.to_dict("records"), strict=True))

    @cached_property
    def _styles(self) -> dict[str, Style]:
        names = [field.name for field in fields(Style)]
        rows = self.truth[[f"style_{name}" for name in names]].itertuples(index=False, name=None)
        return {area_id: Style(*row) for area_id, row in zip(self.truth["area_id"], rows, strict=True)}


@lru_cache(maxsize=4)
def build_town(*, seed: int = 7, boroughs: int = 10, areas_per_borough: int = 24) -> Town:
    """Return the town of `seed`; the same arguments give the same town on every machine."""
    if not 1 <= boroughs <= len(_BOROUGH_NAMES) or areas_per_borough < 4:
        raise ValueError(f"a town has 1 to {len(_BOROUGH_NAMES)} boroughs of at least 4 areas each")
    layout_rng, latent_rng, style_rng, image_rng = np.random.default_rng(seed).spawn(4)
    cells, borough = _layout(boroughs, areas_per_borough, layout_rng)
    centres = shapely.get_coordinates(shapely.centroid(cells))
    latents = _latents(centres, borough, latent_rng)
    areas = _areas_frame(cells, borough, layout_rng)
    styles = pd.DataFrame([asdict(random_style(style_rng)) for _ in range(len(areas))]).add_prefix("style_")
    truth = pd.concat([areas[["area_id"]], latents, styles], axis=1)
    images = _images_frame(cells, areas["area_id"].to_numpy(), latents, image_rng)
    return Town(seed=seed, areas=areas, truth=pd.DataFrame(truth), images=images)


# --- ground ---------------------------------------------------------------------------------------------------------


def _layout(boroughs: int, areas_per_borough: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cells (n,) in metres that tile the town, and the borough of each (n,), sorted by borough.

    Cells are the Voronoi cells of relaxed random points, cut by the outline. Boroughs are the optimal assignment of
    equally many points to each borough centre, i.e. the pieces of a power diagram, which is why they hang together.
    """
    n = boroughs * areas_per_borough
    radius = np.sqrt(n * _AREA_KM2 / np.pi) * 1000.0
    angle = np.linspace(0.0, 2.0 * np.pi, 240, endpoint=False)
    turn = rng.uniform(0, 2 * np.pi, 2)
    coast = radius * (1 + 0.07 * np.cos(2 * angle + turn[0]) + 0.04 * np.cos(5 * angle + turn[1]))
    outline = shapely.polygons(np.column_stack([1.15 * coast * np.cos(angle), coast / 1.15 * np.sin(angle)]))
    points = _relaxed(n, outline, rng, rounds=4)
    centres = _relaxed(boroughs, outline, rng, rounds=6)
    borough = linear_sum_assignment(cdist(points, np.repeat(centres, areas_per_borough, axis=0), "sqeuclidean"))[1]
    borough = borough // areas_per_borough
    # Numbered from north to south, as a reader of the map would.
    north_first = np.argsort(np.argsort([-points[borough == b, 1].mean() for b in range(boroughs)]))
    borough = north_first[borough]
    order = np.lexsort((-points[:, 1], borough))
    return _voronoi(points[order], outline), borough[order]


def _voronoi(points: np.ndarray, outline: shapely.Polygon) -> np.ndarray:
    cells = shapely.voronoi_polygons(shapely.multipoints(points), extend_to=outline, ordered=True)
    # Rounded vertices are equal in both neighbours, so that the cells share their borders exactly.
    return shapely.set_precision(shapely.intersection(shapely.get_parts(cells), outline), 0.01, mode="pointwise")


def _relaxed(n: int, outline: shapely.Polygon, rng: np.random.Generator, *, rounds: int) -> np.ndarray:
    """`n` random points inside `outline` (n, 2), spread by `rounds` of Lloyd's relaxation."""
    low, high = np.array(outline.bounds[:2]), np.array(outline.bounds[2:])
    points = np.empty((0, 2))
    while len(points) < n:
        drawn = rng.uniform(low, high, (4 * n, 2))
        points = np.vstack([points, drawn[shapely.contains_xy(outline, drawn)]])[:n]
    for _ in range(rounds):
        points = shapely.get_coordinates(shapely.centroid(_voronoi(points, outline)))
    return points


def _degrees(metres: np.ndarray) -> np.ndarray:
    """Metres east and north of the town's centre (n, 2) -> longitude and latitude, locally affine, 1e-7 degrees."""
    return np.round(metres / [_M_PER_DEGREE_LON, _M_PER_DEGREE_LAT] + ORIGIN, 7)


def _part(index: int) -> str:
    """Areas are numbered by fives, as the statistics office does: 001A to 001E, 002A, ..."""
    return f"{index // 5 + 1:03d}{'ABCDE'[index % 5]}"


def _areas_frame(cells: np.ndarray, borough: np.ndarray, rng: np.random.Generator) -> gpd.GeoDataFrame:
    within = np.arange(len(cells)) - np.searchsorted(borough, borough)
    districts = [_BOROUGH_NAMES[b] for b in borough]
    return gpd.GeoDataFrame(
        {
            "area_id": [f"X01{i + 1:06d}" for i in range(len(cells))],
            "name": [f"{district} {_part(k)}" for district, k in zip(districts, within, strict=True)],
            "district_code": [f"X09{b + 1:06d}" for b in borough],
            "district": districts,
            "population": np.clip(rng.normal(1700, 260, len(cells)), 1000, 3000).round(),
        },
        geometry=shapely.transform(cells, _degrees),
        crs="EPSG:4326",
    )


# --- latents --------------------------------------------------------------------------------------------------------


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Standard normal quantiles of the ranks of `values` (Blom 1958)."""
    return ndtri((rankdata(values) - 0.375) / (len(values) + 0.25))


def _latents(centres: np.ndarray, borough: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    n, count = len(centres), len(VISIBILITY) + 2
    covariance = np.exp(-(cdist(centres, centres) ** 2) / (2 * _LENGTH_M**2)) + 1e-8 * np.eye(n)
    smooth = np.linalg.cholesky(covariance) @ rng.normal(size=(n, count))
    effect = rng.normal(size=(borough.max() + 1, count))
    effect = (effect - effect.mean(0)) / np.where(effect.std(0) > 0, effect.std(0), 1.0)
    noise = rng.normal(size=(n, count))
    local_share = 1 - _BOROUGH_SHARE - _SMOOTH_SHARE
    field = (
        np.sqrt(_BOROUGH_SHARE) * effect[borough]
        + np.sqrt(_SMOOTH_SHARE) * smooth / smooth.std(0)
        + np.sqrt(local_share) * noise
    )
    field[:, 0] = normal_scores(field[:, 0])
    # A town has few boroughs: left alone, two fields would correlate by chance and no stated visibility would hold.
    basis, _ = np.linalg.qr(np.column_stack([np.ones(n), field]))
    signs = np.sign(np.einsum("ij,ij->j", basis[:, 1:], field))
    unit = basis[:, 1:] * signs * np.sqrt(n)
    domains = mix_domains(field[:, 0], unit[:, 1], unit[:, 2:])
    score = imd_score(domains)
    linear = domains @ np.array(list(IMD_WEIGHTS.values()))
    columns = {"visible": field[:, 0], "invisible": unit[:, 1], "deprivation": (linear - linear.mean()) / linear.std()}
    columns["imd_latent"] = normal_scores(score)
    columns |= {f"{name}_latent": domains[:, j] for j, name in enumerate(VISIBILITY)}
    columns["imd_score"] = score
    return pd.DataFrame(columns)


def mix_domains(visible: np.ndarray, invisible: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Latents of the seven domains (n, 7) from the fields V (n,), H (n,) and E (n, 7)."""
    v = np.array(list(VISIBILITY.values()))
    unseen = 1 - v**2
    return (
        v * visible[:, None]
        + np.sqrt(unseen * _INVISIBLE_SHARE) * invisible[:, None]
        + np.sqrt(unseen * (1 - _INVISIBLE_SHARE)) * own
    )


def imd_score(domains: np.ndarray) -> np.ndarray:
    """IMD scores (n,) from domain latents (n, 7), as published: weighted sum of exponentially transformed ranks.

    E = -23 ln(1 - R (1 - exp(-100 / 23))), R the rank scaled to (0, 1] with 1 = most deprived
    (English Indices of Deprivation 2019, Technical Report, on the exponential transformation).
    """
    scaled = rankdata(domains, axis=0) / len(domains)
    transformed = -23 * np.log1p(-scaled * (1 - np.exp(-100 / 23)))
    return transformed @ np.array(list(IMD_WEIGHTS.values()))


# --- images ----------------------------------------------------------------------------------------------


def _images_frame(
    cells: np.ndarray, area_ids: np.ndarray, latents: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    # Coverage bias: the most deprived areas are photographed least, as volunteers' imagery is.
    bare_share = 0.05 * ndtr(1.2 * latents["deprivation"].to_numpy())
    grid = rng.uniform(0, 180)
    rows: list[dict] = []
    for cell, area_id, bare in zip(cells, area_ids, bare_share, strict=True):
        wanted, is_bare = int(rng.integers(5, 10)), rng.random() < bare
        if not is_bare:
            rows += _area_images(cell, str(area_id), wanted, grid, rng)
    images = pd.DataFrame(rows)
    images.insert(0, "image_id", _image_ids(len(images), rng))
    _cross_borders(images, rng)
    area = np.searchsorted(area_ids, images["area_id"].to_numpy())
    visible = latents["visible"].to_numpy()[area]
    for cue, loading in CUES.items():
        habit, noise = rng.normal(size=len(area_ids))[area], rng.normal(size=len(images))
        unexplained = np.sqrt(HABIT_SHARE) * habit + np.sqrt(1 - HABIT_SHARE) * noise
        images[f"cue_{cue}"] = loading * visible + np.sqrt(1 - loading**2) * unexplained
    true = images[["x_m", "y_m"]].to_numpy()
    has_computed = rng.random(len(images)) > 0.04
    raw = true + np.where(has_computed[:, None], rng.normal(0, 6.0, true.shape), 0.0)
    images[["longitude", "latitude"]] = _degrees(true)
    images[["raw_longitude", "raw_latitude"]] = _degrees(raw)
    images["has_computed_geometry"] = has_computed
    images["thumb"] = rng.choice(["ok", "late", "never"], len(images), p=[0.97, 0.02, 0.01])
    images["is_pano"] = False
    images["captured_at"] = pd.to_datetime(images["captured_at"], unit="ms", utc=True).astype("datetime64[ms, UTC]")
    return images.drop(columns=["x_m", "y_m"])


def _area_images(cell: shapely.Polygon, area_id: str, wanted: int, grid: float, rng: np.random.Generator) -> list[dict]:
    """`wanted` images of an area: two streets that cross it, one drive along each."""
    inside = cell.buffer(-15.0)  # metres: a true position never hangs on the precision of a border
    centre = inside.representative_point()
    rows: list[dict] = []
    for count, turn in ((wanted // 2, 0.0), (wanted - wanted // 2, 90.0)):
        bearing = np.deg2rad(grid + turn + rng.normal(0, 12))
        along = 2000.0 * np.array([np.sin(bearing), np.cos(bearing)])
        middle = np.array([centre.x, centre.y]) + rng.normal(0, 25, 2)
        street = shapely.intersection(shapely.linestrings([middle - along, middle + along]), inside)
        # A street that only clips a corner, or leaves and returns, is replaced by the longest piece through the centre.
        if street.geom_type != "LineString" or street.length < 60:
            through = shapely.linestrings(np.add([-along, along], [centre.x, centre.y]))
            street = max(shapely.get_parts(shapely.intersection(through, inside)), key=shapely.length)
        stops = (np.arange(count) + rng.uniform(0.1, 0.9, count)) / count
        positions = shapely.get_coordinates(shapely.line_interpolate_point(street, stops, normalized=True))
        start_ms = int(rng.integers(1_546_300_800_000, 1_761_955_200_000))  # 2019-01-01 to 2025-11-01
        sequence_id = "".join(_ALPHABET[rng.integers(0, 62, 22)])
        creator = str(_CREATORS[rng.integers(len(_CREATORS))])
        for stop, (x, y) in enumerate(positions):
            rows.append(
                {
                    "area_id": area_id,
                    "sequence_id": sequence_id,
                    "creator": creator,
                    "captured_at": start_ms + 9_000 * stop + int(rng.integers(0, 3000)),
                    "x_m": x,
                    "y_m": y,
                    "heading": round(float((np.rad2deg(bearing) + rng.normal(0, 4)) % 360), 2),
                }
            )
    return rows


def _image_ids(n: int, rng: np.random.Generator) -> list[str]:
    drawn = np.unique(rng.integers(10**14, 10**15, n + 64))
    return [str(number) for number in rng.permutation(drawn)[:n]]


def _cross_borders(images: pd.DataFrame, rng: np.random.Generator) -> None:
    """Let about 4 % of the drives end in a neighbouring area: its nearest image joins the drive (in place)."""
    positions = images[["x_m", "y_m"]].to_numpy()
    area = images["area_id"].to_numpy()
    for sequence_id, drive in images.groupby("sequence_id", sort=False):
        if rng.random() > 0.04:
            continue
        last = drive.index[-1]
        distance = np.where(area == area[last], np.inf, np.hypot(*(positions - positions[last]).T))
        nearest = int(distance.argmin())
        images.loc[nearest, ["sequence_id", "creator"]] = [sequence_id, drive["creator"].iloc[0]]
        images.loc[nearest, "captured_at"] = int(drive["captured_at"].iloc[-1]) + 9_000

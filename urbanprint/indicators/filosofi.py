"""Income on the grid of INSEE: Filosofi, squares of 200 m and 1 km, of the years 2015, 2017 and 2019.

What belongs here is reading those files: which heading is which in each edition, where a cell lies, which of its values
are real, and the classes that incomes are cut into. A cell is rebuilt from its id, which names the south-west corner;
outlines in the files are not read: those of mainland France are published in Lambert-93 (EPSG:2154), in which the cells
of the European grid (EPSG:3035) are no squares, and those of Corsica 2015 are 0.7 mm off the grid.

Source: "Documentation - données carroyées, Filosofi 2019", https://www.insee.fr/fr/statistiques/7655515.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from pyproj.exceptions import CRSError

from urbanprint.errors import InputError

Edition = Literal["filosofi2015", "filosofi2017", "filosofi2019"]
Side = Literal[200, 1000]

INCOME_CELLS = pa.DataFrameSchema(
    {
        "cell_id": pa.Column(str, pa.Check.str_length(min_value=1), unique=True),
        "edition": pa.Column(str, pa.Check.str_length(min_value=1)),
        "size_m": pa.Column(int, pa.Check.isin([200, 1000])),
        "people": pa.Column(float, pa.Check.gt(0)),
        "households": pa.Column(float, pa.Check.ge(0), nullable=True),
        "income": pa.Column(float, pa.Check.ge(0)),
        "imputed": pa.Column(bool),
        "epsg": pa.Column(int),
        "x_m": pa.Column(float),
        "y_m": pa.Column(float),
        "geometry": pa.Column(nullable=False),
    },
    strict=True,
    name="income_cells",
)
"""Income cells of one edition: squares in EPSG:4326; `x_m`, `y_m` is the centre in metres of the grid, EPSG:`epsg`.

`income` is euros a year and head: the sum over people of their standard of living (disposable income of the household
by consumption unit), each cut off at the 5th and 95th percentile of the département (winsorised), by the people."""

_COLUMNS = ("cell_id", "imputed", "people", "households", "income_sum")
_HEADINGS: dict[tuple[Edition, Side], tuple[str, ...]] = {
    ("filosofi2015", 200): ("IdINSPIRE", "I_est_cr", "Ind", "Men", "Ind_snv"),
    ("filosofi2015", 1000): ("Id_carr1km", "I_est_1km", "Ind", "Men", "Ind_snv"),
    ("filosofi2017", 200): ("Idcar_200m", "I_est_200", "Ind", "Men", "Ind_snv"),
    ("filosofi2017", 1000): ("Idcar_1km", "I_est_1km", "Ind", "Men", "Ind_snv"),
    ("filosofi2019", 200): ("idcar_200m", "i_est_200", "ind", "men", "ind_snv"),
    ("filosofi2019", 1000): ("idcar_1km", "i_est_1km", "ind", "men", "ind_snv"),
}
"""What an edition calls each of `_COLUMNS` at each side, in the spelling that tells 2017 from 2019."""

_CORNER_HEADINGS = {
    **{"x": "x", "y": "y", "imputed": "imputed"},
    **{"people": "ind", "households": "men", "income_sum": "ind_snv"},
}
"""The same for files that give corners in place of ids."""

_OPTIONAL = "households"
_GRID_ID = r"CRS(?P<epsg>\d{4,5})RES(?P<side>\d+)mN(?P<y>-?\d+)E(?P<x>-?\d+)"

# 2: real values of a 1 km cell whose households, summed over rounded parts, come to 10.8 or 10.9 where 11 is the least.
_IMPUTED = {0.0: False, 1.0: True, 2.0: False}


@dataclass(frozen=True)
class IncomeClasses:
    """`classes` is indexed by cell_id, 0 = poorest; `edges` are the K - 1 incomes at which the next class begins."""

    classes: pd.Series
    edges: tuple[float, ...]


def read_income_cells(
    path: Path, *, edition: Edition, size_m: Side, crs: str | None = None, layer: str | None = None
) -> gpd.GeoDataFrame:
    """Return the cells of a CSV, GeoPackage or shapefile (`INCOME_CELLS`), imputed ones flagged, in the file's order.

    The edition says what the columns are called; later ones (2021) are published under the headings of 2019, so it
    cannot be told from them. `crs` is for a file without ids, whose columns x and y are the south-west corners in
    metres of that system, with imputed, ind, men (which may be absent) and ind_snv; ids are then made.

    Raises `InputError`, naming file, column and cell, for a file that cannot be read, a missing column, an id that is
    none of the grid or stands twice, a corner off the grid or outside its system's area, people or income that are no
    number, and an unknown flag.
    """
    headings = _find_headings(path, edition=edition, size_m=size_m, corners=crs is not None, layer=layer)
    sheet = _read(path, headings, layer=layer)
    if crs is None:
        place = _from_ids(sheet["cell_id"], file=path.name, heading=headings["cell_id"], size_m=size_m)
    else:
        place = _from_corners(sheet, file=path.name, crs=crs, size_m=size_m)
    _check_place(place, file=path.name, size_m=size_m)
    numbers: dict[str, pd.Series] = {
        column: _numbers(sheet[column], place["cell_id"], where=f"{path.name}, column {headings[column]!r}")
        for column in ("people", "households", "income_sum", "imputed")
        if column in headings
    }
    _check_values(numbers, place["cell_id"], file=path.name, headings=headings)
    frame = place.assign(
        edition=pd.Series(edition, index=place.index, dtype="str"),
        size_m=size_m,
        people=numbers["people"],
        households=numbers.get("households", np.nan),
        income=numbers["income_sum"] / numbers["people"],
        imputed=numbers["imputed"].map(_IMPUTED).astype(bool),
        geometry=_squares(place, file=path.name, size_m=size_m),
    )
    cells = gpd.GeoDataFrame(frame[list(INCOME_CELLS.columns)], geometry="geometry", crs=4326)
    return INCOME_CELLS.validate(cells)


def read_value_cells(path: Path, *, crs: str, size_m: int) -> gpd.GeoDataFrame:
    """Return the cells of any grid of squares with a value (`INCOME_CELLS`, edition "values"), none of them imputed.

    The columns are x and y, the south-west corners in metres of `crs` at multiples of `size_m`, and value; one person
    is counted a cell. Raises `InputError` as `read_income_cells` does.
    """
    present = _present(path, layer=None)
    if missing := [name for name in ("x", "y", "value") if name not in present]:
        raise InputError(
            f"{path.name} has no column {missing[0]}, expected x, y and value; it has {', '.join(present)}."
        )
    sheet = _read(path, {name: name for name in ("x", "y", "value")}, layer=None)
    place = _from_corners(sheet, file=path.name, crs=crs, size_m=size_m)
    _check_place(place, file=path.name, size_m=size_m)
    values = _numbers(sheet["value"], place["cell_id"], where=f"{path.name}, column 'value'")
    if (wrong := values < 0).any():
        raise InputError(
            f"{path.name}, column 'value', cell {place['cell_id'][wrong].iloc[0]} is {values[wrong].iloc[0]:g}:"
            " expected 0 or more."
        )
    frame = place.assign(
        edition=pd.Series("values", index=place.index, dtype="str"),
        size_m=size_m,
        people=1.0,
        households=np.nan,
        income=values,
        imputed=False,
        geometry=_squares(place, file=path.name, size_m=size_m),
    )
    cells = gpd.GeoDataFrame(frame[list(INCOME_CELLS.columns)], geometry="geometry", crs=4326)
    return INCOME_CELLS.validate(cells)


def measured_cells(cells: gpd.GeoDataFrame, *, with_imputed: bool = False) -> gpd.GeoDataFrame:
    """Return the cells whose income was measured; `with_imputed` keeps the others too.

    A cell of fewer than 11 households is published with the mean income of its group of cells, which may lie
    kilometres apart: 79 % of the 200 m cells of mainland France in 2019, with 20 % of the people. A picture of such a
    cell shows one place and its label is that of others.

    Raises `InputError` if all cells are imputed.
    """
    chosen = cells if with_imputed else cells[~cells["imputed"]]
    if chosen.empty:
        raise InputError(f"All {len(cells)} income cells are imputed: take a denser area, or cells of 1 km.")
    return chosen.reset_index(drop=True)


def income_classes(cells: pd.DataFrame, training_ids: Collection[str], classes: int = 5) -> IncomeClasses:
    """Return the income class of every cell, cut at the quantiles of the training cells alone.

    The edges are the k / `classes` quantiles (linear interpolation, cells unweighted) of the incomes of `training_ids`:
    no test cell moves an edge. An income at an edge belongs to the class above it.

    Raises `InputError` for fewer than 2 classes, an unknown training cell, and training incomes with so many ties that
    a class has no training cell.
    """
    if classes < 2:
        raise InputError(f"classes = {classes}: incomes are cut into 2 classes or more.")
    incomes = cells.set_index("cell_id")["income"]
    if unknown := sorted(set(training_ids) - set(incomes.index)):
        raise InputError(f"{len(unknown)} training cells, such as {unknown[0]}, are no income cells: leave them out.")
    training = incomes.loc[sorted(set(training_ids))].to_numpy()
    edges = np.quantile(training, np.arange(1, classes) / classes) if len(training) else np.array([])
    held = np.bincount(np.searchsorted(edges, training, side="right"), minlength=classes)
    if (held == 0).any():
        raise InputError(
            f"{len(training)} training cells hold {len(np.unique(training))} different incomes, too few for {classes}"
            f" classes: class {int(np.argmin(held))} has none; ask for fewer classes or train on more cells."
        )
    found = pd.Series(np.searchsorted(edges, incomes.to_numpy(), side="right"), index=incomes.index, name="class")
    return IncomeClasses(classes=found, edges=tuple(map(float, edges)))


def _find_headings(path: Path, *, edition: Edition, size_m: Side, corners: bool, layer: str | None) -> dict[str, str]:
    """Column -> heading in the file, for those it has."""
    if (edition, size_m) not in _HEADINGS:
        known = ", ".join(f"{name} at {side} m" for name, side in _HEADINGS)
        raise InputError(f"{path.name}: {edition} at {size_m} m is not known here, only {known}.")
    present = _present(path, layer=layer)
    wanted = _CORNER_HEADINGS if corners else dict(zip(_COLUMNS, _HEADINGS[edition, size_m], strict=True))
    missing = [name for column, name in wanted.items() if name not in present and column != _OPTIONAL]
    if missing:
        likely = [f"{name} at {side} m" for (name, side), spelt in _HEADINGS.items() if set(spelt) <= set(present)]
        hint = f"; its headings are those of {likely[0]}" if likely and not corners else ""
        raise InputError(
            f"{path.name} has no column {missing[0]}, expected of {edition} at {size_m} m{hint}; it has"
            f" {', '.join(present)}."
        )
    fine = _HEADINGS[edition, 200][0]
    if size_m == 1000 and not corners and fine in present:  # such a file names the 1 km cell of each 200 m cell too
        raise InputError(f"{path.name} has a column {fine}: its rows are cells of 200 m, read it with size_m = 200.")
    return {column: name for column, name in wanted.items() if name in present}


def _present(path: Path, *, layer: str | None) -> list[str]:
    """The headings of the file."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: name a CSV, GeoPackage or shapefile of income cells.")
    if path.suffix.lower() not in (".csv", ".gpkg", ".shp"):
        raise InputError(f"{path.name} is no .csv, .gpkg or .shp file: unpack an archive first, and name the file.")
    try:
        if path.suffix.lower() == ".csv":
            return list(pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns)
        layers = [str(name) for name, _ in pyogrio.list_layers(path)]
        if layer is None and len(layers) != 1:
            raise InputError(f"{path.name} holds {len(layers)} layers ({', '.join(layers)}): name one.")
        return list(pyogrio.read_info(path, layer=layer or layers[0])["fields"])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is no CSV in UTF-8 ({error}): download it again.") from error
    except (DataSourceError, DataLayerError) as error:
        raise InputError(f"{path.name} cannot be read ({error}): name a complete GeoPackage or shapefile.") from error


def _read(path: Path, headings: dict[str, str], *, layer: str | None) -> pd.DataFrame:
    """The columns asked for, by our names."""
    wanted = list(headings.values())
    if path.suffix.lower() == ".csv":
        sheet = pd.read_csv(path, dtype="str", usecols=wanted, encoding="utf-8-sig")
    else:
        sheet = pyogrio.read_dataframe(path, layer=layer, columns=wanted, read_geometry=False)
    if sheet.empty:
        raise InputError(f"{path.name} has no rows: expected a row a cell.")
    return sheet.rename(columns={name: column for column, name in headings.items()})


def _from_ids(ids: pd.Series, *, file: str, heading: str, size_m: int) -> pd.DataFrame:
    """cell_id, epsg and the centre x_m, y_m of cells that have ids."""
    parts = ids.astype("str").str.strip().str.extract(f"^{_GRID_ID}$")
    if (wrong := parts["epsg"].isna().to_numpy()).any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{file}, cell number {row + 1}, column {heading!r} {_told(ids.iloc[row])}: expected the id of a grid cell,"
            " such as CRS3035RES200mN2471400E3698600."
        )
    if (wrong := (parts["side"].astype(int) != size_m).to_numpy()).any():
        raise InputError(f"{file}: cell {ids[wrong].iloc[0]} is not {size_m} m wide, as size_m says.")
    centre = parts[["x", "y"]].astype(float) + size_m / 2
    ids = ids.str.strip().astype("str")
    return pd.DataFrame({"cell_id": ids, "epsg": parts["epsg"].astype(int), "x_m": centre["x"], "y_m": centre["y"]})


def _from_corners(sheet: pd.DataFrame, *, file: str, crs: str, size_m: int) -> pd.DataFrame:
    """The same for cells that have corners."""
    try:
        epsg = CRS.from_user_input(crs).to_epsg()
    except CRSError as error:
        raise InputError(f"crs = {crs!r} is no coordinate system: name one such as EPSG:5490.") from error
    if epsg is None:
        raise InputError(f"crs = {crs!r} has no EPSG code, which the ids of cells are made of: name one that has.")
    order = pd.Series([f"number {row + 1}" for row in range(len(sheet))])
    x, y = (_numbers(sheet[each], order, where=f"{file}, column {each!r}") for each in ("x", "y"))
    ids = [f"CRS{epsg}RES{size_m}mN{north:.0f}E{east:.0f}" for east, north in zip(x, y, strict=True)]
    return pd.DataFrame(
        {"cell_id": pd.Series(ids, dtype="str"), "epsg": epsg, "x_m": x + size_m / 2, "y_m": y + size_m / 2}
    )


def _check_place(place: pd.DataFrame, *, file: str, size_m: int) -> None:
    corner = place[["x_m", "y_m"]].to_numpy() - size_m / 2
    if (wrong := (corner % size_m != 0).any(axis=1)).any():
        x, y = corner[wrong][0]
        raise InputError(
            f"{file}: the cell at x = {x:.10g}, y = {y:.10g} lies off the grid; expected south-west corners at"
            f" multiples of {size_m} m."
        )
    if (wrong := place["cell_id"].duplicated()).any():
        raise InputError(f"{file}: cell {place.loc[wrong, 'cell_id'].iloc[0]} stands twice; expected a row a cell.")


def _numbers(cells: pd.Series, names: pd.Series, *, where: str) -> pd.Series:
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    if (wrong := ~np.isfinite(numbers.to_numpy())).any():
        raise InputError(f"{where}, cell {names[wrong].iloc[0]} {_told(cells[wrong].iloc[0])}: expected a number.")
    return numbers


def _told(given: str | float | None) -> str:
    return "is empty" if pd.isna(given) else f"is {given!r}"


def _check_values(numbers: dict[str, pd.Series], cell_ids: pd.Series, *, file: str, headings: dict[str, str]) -> None:
    for column, wrong, expected in (
        ("people", numbers["people"] <= 0, "people, more than 0"),
        ("income_sum", numbers["income_sum"] < 0, "a sum of standards of living in euros, 0 or more"),
        ("households", numbers.get("households", pd.Series(0.0)) < 0, "households, 0 or more"),
        ("imputed", ~numbers["imputed"].isin(list(_IMPUTED)), "1 for an imputed cell, else 0 (or 2 at 1 km)"),
    ):
        if wrong.any():
            raise InputError(
                f"{file}, column {headings[column]!r}, cell {cell_ids[wrong].iloc[0]} is"
                f" {numbers[column][wrong].iloc[0]:g}: expected {expected}."
            )


def _squares(place: pd.DataFrame, *, file: str, size_m: int) -> np.ndarray:
    """The cells as squares in EPSG:4326."""
    squares = np.empty(len(place), dtype=object)
    for epsg in map(int, place["epsg"].unique()):
        rows = np.flatnonzero(place["epsg"] == epsg)
        try:
            system = CRS.from_epsg(epsg)
        except CRSError as error:
            raise InputError(
                f"{file}: cells say EPSG:{epsg}, which is no coordinate system: correct the ids."
            ) from error
        x, y = place[["x_m", "y_m"]].to_numpy()[rows].T
        half = size_m / 2
        shapes = gpd.GeoSeries(shapely.box(x - half, y - half, x + half, y + half), crs=system).to_crs(4326)
        west, south, east, north = system.area_of_use.bounds if system.area_of_use else (-180.0, -90.0, 180.0, 90.0)
        bounds = shapes.bounds.to_numpy()
        # Turned round, so that a bound that is not finite counts as outside.
        outside = ~((bounds >= [west, south, west, south]) & (bounds <= [east, north] * 2)).all(axis=1)
        if outside.any():
            cell_id = place["cell_id"].iloc[rows[outside][0]]
            raise InputError(
                f"{file}: cell {cell_id} is not where {system.name} (EPSG:{epsg}) is used: correct its system."
            )
        squares[rows] = shapes.to_numpy()
    return squares

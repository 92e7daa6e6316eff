"""The simulated conurbations as published: `/<name>/income.csv`, `/<name>/land_use.gpkg`, `/<name>/ortho/...`.

Incomes stand under the headings of Filosofi 2019, land use under those of Urban Atlas 2018, and the photographs are
served by the WMS and WMTS of `ortho.py`.
"""

import threading

import pandas as pd

from urbanprint.landuse.classes import URBAN_ATLAS
from urbanprint.simulation.conurbation import CONURBATIONS, Conurbation, ConurbationName, named_conurbation
from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.open_data import file_answer, written
from urbanprint.simulation.protocols.ortho import OrthoServices
from urbanprint.simulation.protocols.wire import Headers, Query


class Conurbations:
    """Every simulated conurbation; drawn when first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services: dict[ConurbationName, OrthoServices] = {}
        self._files: dict[str, tuple[bytes, str]] = {}

    def answer(self, path: str, query: Query, headers: Headers, base: str) -> Answer | None:
        """A file, or what the conurbation's map services answer."""
        for name in CONURBATIONS:
            if path.startswith(f"/{name}/ortho/"):
                return self._ortho(name).answer(path.removeprefix(f"/{name}"), query, headers, base)
            if path in (f"/{name}/income.csv", f"/{name}/land_use.gpkg"):
                return file_answer(*self._file(name, path), headers)
        return None

    def _ortho(self, name: ConurbationName) -> OrthoServices:
        with self._lock:
            if name not in self._services:
                self._services[name] = OrthoServices(named_conurbation(name).ground)
            return self._services[name]

    def _file(self, name: ConurbationName, path: str) -> tuple[bytes, str]:
        with self._lock:
            if path not in self._files:
                conurbation = named_conurbation(name)
                if path.endswith(".csv"):
                    text = income_table(conurbation).to_csv(index=False)
                    self._files[path] = text.encode(), "text/csv; charset=utf-8"
                else:
                    table = conurbation.land_use
                    table = table.assign(class_2018=table["code_2018"].map(URBAN_ATLAS))
                    content = written(table, "land_use.gpkg")["land_use.gpkg"]
                    self._files[path] = content, "application/geopackage+sqlite3"
            return self._files[path]


def income_table(conurbation: Conurbation) -> pd.DataFrame:
    """The cells under the headings of Filosofi 2019 at 200 m; sums are of persons, as published."""
    cells = conurbation.cells.reset_index()
    return pd.DataFrame(
        {
            "idcar_200m": cells["cell_id"],
            "i_est_200": cells["imputed"].astype(int),
            "ind": cells["people"],
            "men": cells["households"],
            "ind_snv": (cells["income"] * cells["people"]).round(1),
        }
    )

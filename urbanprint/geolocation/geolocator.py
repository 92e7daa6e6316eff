"""The fitted system: networks, temperatures and thresholds that answer where a photograph was taken, and how sure.

What belongs here: one object for both designs, from pixels to answers, and the fit of what is measured on the
calibration part. A joint network's log-probabilities are valid logits of a classifier a level (`probabilities.py`), so
everything after `Seen` is the same for either design, and both can be compared.

`finest` is the precision cap: nothing finer than that level is ever told, by any answer. A photograph that is unlike
those the system was fitted on (`familiarity.py`) gets the whole Earth for an answer: nothing measured holds for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from urbanprint.errors import InputError
from urbanprint.evaluation.calibration import expected_calibration_error, top_confidence
from urbanprint.geolocation.calibration import fit_temperatures
from urbanprint.geolocation.datasets import class_circles, class_labels, true_labels
from urbanprint.geolocation.familiarity import Familiarity, fit_familiarity
from urbanprint.geolocation.hierarchy import Hierarchy, Level, cell_name
from urbanprint.geolocation.network import CellClassifier, Design, rebuild
from urbanprint.geolocation.parts import APART_M, check_parts
from urbanprint.geolocation.position import Circles, positions
from urbanprint.geolocation.prediction_sets import Answers, confident_cells, fit_thresholds, prediction_sets
from urbanprint.geolocation.probabilities import beam_search, conditional, joint, old_fusion
from urbanprint.geolocation.sphere import FARTHEST_KM
from urbanprint.imagery.decoding import decode_batches
from urbanprint.models.card import check_architecture, load_model, save_model

FAMILIAR_IMAGES = 4_000
"""Most training images that what is familiar is learned from, drawn by the seed of the last classifier.

More than twice the 1,664 features of a ResNet-50; to read all of a million again would take as long as to train on."""

_ARCHITECTURE = "geolocator"
_CIRCLE = ("longitude", "latitude", "radius_km")


@dataclass(frozen=True, kw_only=True)
class LikelyCell:
    """A cell's id ("0/1/2/3", or "the Earth") and the probability that the photograph was taken there."""

    cell: str
    probability: float


_EARTH = LikelyCell(cell=cell_name(0, 0), probability=1.0)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Where one photograph was taken, as far as the model knows.

    - `candidates`: level -> its likeliest cells, the likeliest first, looked for under those of the level above;
    - `sure`: the finest cell that has at least the probability `confidence`, "the Earth" if none has;
    - `sets`: level -> its prediction set, likeliest first, at each level at which a set can be promised to hold the
      true cell `coverage` often; `cells` is that of the finest of them, `cells_level`;
    - `longitude`, `latitude` in degrees and `radius_km`: `peak_position`, and the circle around it that holds the
      probability `confidence`;
    - `familiar`: the share of calibration photographs at least as unlike the training ones as this one;
    - `widened`: that share is so small (`familiarity.UNFAMILIAR`) that the model knows no photographs like it. Then
      `sure` is the Earth, `cells` are all classes of the coarsest level and `radius_km` is half the Earth; candidates
      and position still say what the model makes of it.
    """

    candidates: Mapping[int, tuple[LikelyCell, ...]]
    sure: LikelyCell
    confidence: float
    sets: Mapping[int, tuple[LikelyCell, ...]]
    coverage: float
    longitude: float
    latitude: float
    radius_km: float
    familiar: float
    widened: bool

    @property
    def cells_level(self) -> int:
        return max(self.sets)

    @property
    def cells(self) -> tuple[LikelyCell, ...]:
        return self.sets[self.cells_level]


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What the networks see in n photographs.

    `level_logits`: (n, classes) at each level, before any temperature; `familiar` (n,): the share of calibration
    photographs at least as unlike the training ones as each.
    """

    level_logits: Sequence[np.ndarray]
    familiar: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Geolocator:
    """The classifiers, one a level from coarse to fine or the joint one, and what was fitted on the calibration part.

    `temperatures` and `thresholds` (log-probabilities) are one a level, `circles` the classes as `class_circles`;
    `familiarity` is of the style that the last classifier sees.
    """

    classifiers: tuple[CellClassifier, ...]
    circles: tuple[Circles, ...]
    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]
    familiarity: Familiarity
    coverage: float
    finest: int | None = None

    @property
    def hierarchy(self) -> Hierarchy:
        return self.classifiers[0].hierarchy

    @property
    def design(self) -> Design:
        return self.classifiers[0].design

    def capped(self, finest: int | None) -> "Geolocator":
        """The same with answers no finer than level `finest` nor than it was capped before.

        Raises `InputError` where no level is left.
        """
        caps = [cap for cap in (self.finest, finest) if cap is not None]
        self.hierarchy.upto(min(caps, default=None))
        return replace(self, finest=min(caps, default=None))

    def see(self, pixels: np.ndarray) -> Seen:
        """What the networks see in pixels uint8 (n, size, size, 3)."""
        return self._seen(*_see(self.classifiers, pixels))

    def read(self, paths: Sequence[Path]) -> Seen:
        """`see` of image files, each decoded once. Raises `InputError` naming a file that is no image."""
        return self._seen(*_read(self.classifiers, paths))

    def _seen(self, *logits_and_style: np.ndarray) -> Seen:
        *logits, style = logits_and_style
        return Seen(level_logits=_at_levels(self.classifiers, logits), familiar=self.familiarity.shares(style))

    def log_probabilities(self, level_logits: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Coherent log-probabilities (n, classes) at each level: children sum to their parent."""
        return conditional(level_logits, self.hierarchy, temperatures=self.temperatures)

    def positions(self, log_probabilities: Sequence[np.ndarray], *, share: float = 0.9) -> Circles:
        """`peak_position` of each image, and the radius that holds a `share` of its probability."""
        return positions(log_probabilities, self.circles, self.hierarchy, share=share, finest=self.finest)

    def answers(self, seen: Seen, *, confidence: float = 0.9) -> list[Answer]:
        """An `Answer` for each photograph seen.

        Widening breaks no promise: where a set held the true cell, all cells of the coarsest level hold the one around
        it, so `coverage` can only rise.
        """
        log_p = self.log_probabilities(seen.level_logits)
        unlike = self.familiarity.unlike(seen.familiar)
        levels = self.hierarchy.upto(self.finest)
        kept = beam_search(log_p, self.hierarchy, finest=self.finest)
        sure = confident_cells(log_p, self.hierarchy, confidence=confidence, finest=self.finest)
        held = prediction_sets(log_p, self.thresholds, self.hierarchy, finest=self.finest)
        promised = [number for number in range(len(levels)) if np.isfinite(self.thresholds[number])] or [0]
        circles = self.positions(log_p, share=confidence)
        found = []
        for image in range(len(log_p[0])):
            answer = Answer(
                candidates={
                    each.level.number: _likely(each.level, each.cells[image], each.log_probabilities[image])
                    for each in kept
                },
                sure=_sure(levels, sure, image),
                confidence=confidence,
                sets={
                    levels[number].number: _ordered(levels[number], held[number][image], log_p[number][image])
                    for number in promised
                },
                coverage=self.coverage,
                longitude=float(circles.longitude[image]),
                latitude=float(circles.latitude[image]),
                radius_km=float(circles.radius_km[image]),
                familiar=float(seen.familiar[image]),
                widened=False,
            )
            found.append(_widened(answer, levels[0], log_p[0][image]) if unlike[image] else answer)
        return found

    def locate(self, paths: Sequence[Path], *, confidence: float = 0.9) -> list[Answer]:
        """An `Answer` for each image file. Raises `InputError` naming a file that is no image."""
        return self.answers(self.read(paths), confidence=confidence)

    def fused_scores(self, level_logits: Sequence[np.ndarray]) -> np.ndarray:
        """Scores (n, classes) of the finest level told, as an earlier project fused its levels: the flawed comparator.

        P(parent) times the child's logit (`old_fusion`), among the children of the parents that the adaptive beam
        keeps; -inf elsewhere. Raises `InputError` for the joint design, which has no logits a level to fuse.
        """
        if self.design == "joint":
            raise InputError("The old fusion multiplies logits of one classifier a level: the joint design has none.")
        levels = self.hierarchy.upto(self.finest)
        scores = old_fusion(level_logits, self.hierarchy)[len(levels) - 1]
        if len(levels) == 1:
            return scores
        parents = beam_search(conditional(level_logits, self.hierarchy), self.hierarchy, finest=levels[-2].number)[-1]
        reached = levels[-1].children(parents.cells)
        masked = np.full(scores.shape, -np.inf)
        rows, columns = np.nonzero(reached >= 0)[0], reached[reached >= 0]
        masked[rows, columns] = scores[rows, columns]
        return masked

    def fused_positions(self, level_logits: Sequence[np.ndarray]) -> Circles:
        """The circle of the cell with the best of `fused_scores`, for each image."""
        best = self.fused_scores(level_logits).argmax(axis=1)
        circles = self.circles[len(self.hierarchy.upto(self.finest)) - 1]
        return Circles(**{name: getattr(circles, name)[best] for name in _CIRCLE})

    def calibration_errors(self, level_logits: Sequence[np.ndarray], labels: np.ndarray) -> pd.DataFrame:
        """Expected calibration error of each level without and with its temperature: columns level, before, after.

        `labels` (n, levels) as `true_labels`; of images that neither trained nor calibrated, it is the honest one.
        """
        rows = []
        plain = conditional(level_logits, self.hierarchy)
        for level, *both, true in zip(
            self.hierarchy.numbers, plain, self.log_probabilities(level_logits), labels.T, strict=True
        ):
            before, after = (expected_calibration_error(*top_confidence(log_p, true)) for log_p in both)
            rows.append({"level": level, "before": before, "after": after})
        return pd.DataFrame(rows)

    def save(self, folder: Path, card: Mapping[str, Any]) -> Path:
        """Write the whole system as one model directory; what is needed to rebuild it is added to `card`."""
        tensors = {
            f"{classifier.name}.{name}": tensor
            for classifier in self.classifiers
            for name, tensor in classifier.tensors().items()
        }
        tensors |= {
            f"circles.L{number}.{name}": getattr(circles, name)
            for number, circles in zip(self.hierarchy.numbers, self.circles, strict=True)
            for name in _CIRCLE
        }
        tensors |= {f"familiarity.{name}": array for name, array in self.familiarity.tensors().items()}
        # Thresholds can be -inf, which JSON has no word for.
        tensors |= {"temperatures": np.array(self.temperatures), "thresholds": np.array(self.thresholds)}
        own = {
            "architecture": _ARCHITECTURE,
            "config": {"coverage": self.coverage, "finest": self.finest},
            "labels": {f"L{level.number}": f"{len(level)} cells" for level in self.hierarchy.levels},
            "hierarchy": self.hierarchy.to_json(),
            "classifiers": {classifier.name: classifier.description() for classifier in self.classifiers},
        }
        return save_model(folder, tensors, {**card, **own})


def fit_geolocator(
    classifiers: Sequence[CellClassifier],
    *,
    training: pd.DataFrame,
    calibration: pd.DataFrame,
    coverage: float = 0.9,
    finest: int | None = None,
    apart_m: float = APART_M,
) -> Geolocator:
    """Fit temperatures, thresholds and familiarity of trained classifiers, one a level in any order or the joint one.

    `training` and `calibration` hold image_id, sequence_id, longitude, latitude and path. The centres of classes come
    from `training`, and what is familiar from at most `FAMILIAR_IMAGES` of it; all else from `calibration`, of which 99
    images are needed for `UNFAMILIAR` to mean what it says. Temperatures are fitted to the classes images train,
    thresholds to the cells they lie in, so that a set is promised to hold the true cell.

    Raises `LeakingSplit` unless the two parts are strangers (`check_parts`), `InputError` for classifiers that are not
    one system, `MissingImages` where a level has no calibration image to be fitted on.
    """
    ordered = tuple(sorted(classifiers, key=lambda classifier: classifier.level))
    hierarchy = _check_system(ordered)
    sides = pd.concat([training.assign(part="train"), calibration.assign(part="calibration")], ignore_index=True)
    check_parts(sides.drop(columns="part"), sides["part"], apart_m=apart_m)
    *found, style = _read(ordered, _paths(calibration))
    logits = _at_levels(ordered, found)
    temperatures = fit_temperatures(logits, class_labels(hierarchy, calibration), hierarchy)
    log_p = conditional(logits, hierarchy, temperatures=temperatures)
    return Geolocator(
        classifiers=ordered,
        circles=class_circles(hierarchy, training),
        temperatures=temperatures,
        thresholds=fit_thresholds(log_p, true_labels(hierarchy, calibration), hierarchy, coverage=coverage),
        familiarity=fit_familiarity(_read(ordered[-1:], _paths(_drawn(training, ordered[-1])))[-1], style),
        coverage=coverage,
    ).capped(finest)


def load_geolocator(folder: Path, *, device: str | None = None, finest: int | None = None) -> Geolocator:
    """The system in a model directory, to be applied on `device`; `finest` can only make its precision cap coarser.

    Raises `InputError` or `MissingWeights` as `load_model` does.
    """
    tensors, card = load_model(folder)
    check_architecture(folder, card, _ARCHITECTURE)
    hierarchy = Hierarchy.from_json(card["hierarchy"], name=str(folder))
    circles = [_below(tensors, f"circles.L{number}") for number in hierarchy.numbers]
    return Geolocator(
        classifiers=tuple(
            rebuild(_below(tensors, name), described, hierarchy, name=str(folder), device=device)
            for name, described in card["classifiers"].items()
        ),
        circles=tuple(Circles(**arrays) for arrays in circles),
        temperatures=tuple(tensors["temperatures"].tolist()),
        thresholds=tuple(tensors["thresholds"].tolist()),
        familiarity=Familiarity(**_below(tensors, "familiarity")),
        coverage=card["config"]["coverage"],
        finest=card["config"]["finest"],
    ).capped(finest)


def _see(classifiers: Sequence[CellClassifier], pixels: np.ndarray) -> list[np.ndarray]:
    """The logits of each classifier, and at the end the style the last one sees."""
    return [*(each.logits(pixels) for each in classifiers[:-1]), *classifiers[-1].logits_and_style(pixels)]


def _read(classifiers: Sequence[CellClassifier], paths: Sequence[Path]) -> list[np.ndarray]:
    """`_see` of image files."""
    config = classifiers[-1].config
    batches = decode_batches(paths, size=config.size, batch=config.batch, threads=config.workers)
    parts = [_see(classifiers, pixels) for pixels in batches]
    nothing = np.zeros((0, config.size, config.size, 3), dtype=np.uint8)
    return [np.concatenate(arrays) for arrays in zip(*parts or [_see(classifiers, nothing)], strict=True)]


def _at_levels(classifiers: Sequence[CellClassifier], logits: list[np.ndarray]) -> list[np.ndarray]:
    """Logits at each level from those of each classifier."""
    return logits if classifiers[0].design == "level" else joint(logits[0], classifiers[0].hierarchy)


def _drawn(training: pd.DataFrame, classifier: CellClassifier) -> pd.DataFrame:
    """The training images that say what is familiar, the same in whatever order the rows come."""
    ordered = training.sort_values("image_id")
    return ordered.sample(min(FAMILIAR_IMAGES, len(ordered)), random_state=classifier.config.seed)


def _paths(images: pd.DataFrame) -> list[Path]:
    return [Path(path) for path in images["path"]]


def _check_system(classifiers: Sequence[CellClassifier]) -> Hierarchy:
    """Raise `InputError` unless the classifiers, from coarse to fine, belong together; return their hierarchy."""
    if not classifiers:
        raise InputError("A geolocator was asked for without classifiers: give one a level, or the joint one.")
    first = classifiers[0]
    wanted = ["joint"] if first.design == "joint" else [f"L{number}" for number in first.hierarchy.numbers]
    if (names := [classifier.name for classifier in classifiers]) != wanted:
        raise InputError(f"The classifiers are {', '.join(names)}, where {', '.join(wanted)} are expected.")
    for classifier in classifiers[1:]:
        if classifier.hierarchy.to_json() != first.hierarchy.to_json():
            raise InputError(f"{classifier.name} and {first.name} were trained on different classes: train them again.")
        if classifier.config.size != first.config.size:
            raise InputError(
                f"{classifier.name} takes images of {classifier.config.size} pixels and {first.name} of"
                f" {first.config.size}: train them at one size, so that an image is decoded once."
            )
    return first.hierarchy


def _below(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The tensors whose names start with `name` and a dot, without that start."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _ordered(level: Level, held: np.ndarray, log_probabilities: np.ndarray) -> tuple[LikelyCell, ...]:
    """The classes of a set (classes,) of bool by name, the likeliest first."""
    within = np.flatnonzero(held)
    within = within[np.argsort(-log_probabilities[within], kind="stable")]
    return _likely(level, within, log_probabilities[within])


def _likely(level: Level, cells: np.ndarray, log_probabilities: np.ndarray) -> tuple[LikelyCell, ...]:
    """Classes of a level by name, those that are -1 left out."""
    return tuple(
        LikelyCell(cell=cell_name(int(level.cells[cell]), int(level.depths[cell])), probability=float(np.exp(log_p)))
        for cell, log_p in zip(cells.tolist(), log_probabilities.tolist(), strict=True)
        if cell >= 0
    )


def _sure(levels: Sequence[Level], answers: Answers, image: int) -> LikelyCell:
    if (number := int(answers.levels[image])) < 0:
        return _EARTH
    row = slice(image, image + 1)
    return _likely(levels[number], answers.cells[row], answers.log_probabilities[row])[0]


def _widened(answer: Answer, coarsest: Level, log_probabilities: np.ndarray) -> Answer:
    """The answer where nothing fitted holds; log-probabilities (classes,) of the coarsest level order its cells."""
    return replace(
        answer,
        sure=_EARTH,
        sets={coarsest.number: _ordered(coarsest, np.ones(len(coarsest), dtype=bool), log_probabilities)},
        radius_km=FARTHEST_KM,
        widened=True,
    )

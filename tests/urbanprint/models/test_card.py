"""A model directory: written whole or not at all, read only where card and weights agree."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from urbanprint.errors import InputError, MissingWeights
from urbanprint.models.card import check_architecture, load_model, save_model

CARD: dict[str, Any] = {
    "architecture": "probe",
    "config": {"seed": 3},
    "labels": {"imd": {"name": "Index of Multiple Deprivation", "unit": "normalised rank"}},
    "split": {"kind": "borough", "fold": 0},
    "scores": {"r2": 0.3, "baselines": {"mean": 0.0}},
    "data_version": "IMD 2019",
    "licence": "CC BY-SA 4.0",
    "intended_use": "research",
    "limits": "one town",
}


def tensors(scale: float = 1.0) -> dict[str, np.ndarray]:
    return {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T * scale, "steps": np.array(7)}


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "models" / "probe", tensors(), CARD)
    read, card = load_model(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "weights.safetensors"]
    np.testing.assert_array_equal(read["w"], tensors()["w"])
    assert read["steps"].shape == ()
    assert {entry: card[entry] for entry in CARD} == CARD
    assert card["created"].endswith("+00:00")


def test_saving_again_replaces_the_model_and_leaves_nothing_beside(tmp_path: Path) -> None:
    save_model(tmp_path / "probe", tensors(), CARD)
    save_model(tmp_path / "probe", tensors(2.0), {**CARD, "limits": "two towns"})
    read, card = load_model(tmp_path / "probe")
    assert read["w"][2, 1] == 10.0
    assert card["limits"] == "two towns"
    assert [path.name for path in tmp_path.iterdir()] == ["probe"]


@pytest.mark.parametrize("broken", [{**CARD, "scores": {"r2": float("nan")}}, {**CARD, "config": {"path": Path()}}])
def test_a_card_that_cannot_be_written_leaves_the_old_model(tmp_path: Path, broken: dict[str, Any]) -> None:
    save_model(tmp_path / "probe", tensors(), CARD)
    with pytest.raises((ValueError, TypeError)):
        save_model(tmp_path / "probe", tensors(2.0), broken)
    assert load_model(tmp_path / "probe")[0]["w"][2, 1] == 5.0
    assert [path.name for path in tmp_path.iterdir()] == ["probe"]


def test_a_card_without_licence_or_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks scores, licence"):
        save_model(tmp_path / "probe", tensors(), {k: v for k, v in CARD.items() if k not in ("licence", "scores")})


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing is no model: it has no card\.json"):
        load_model(tmp_path / "nothing")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "probe", tensors(), CARD)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(MissingWeights, match=r"no weights\.safetensors"):
        load_model(folder)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "probe", tensors(), CARD)
    (folder / "weights.safetensors").write_bytes(b"\x00" * 10)
    with pytest.raises(InputError, match=r"weights\.safetensors is damaged"):
        load_model(folder)


def test_weights_of_another_model_are_refused_by_tensor_name(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "probe", tensors(), CARD)
    save_file({"w": np.zeros((4, 2), dtype=np.float32), "steps": np.array(7)}, folder / "weights.safetensors")
    with pytest.raises(InputError, match=r"tensor 'w' has shape \[4, 2\] where the card says \[3, 2\]"):
        load_model(folder)


@pytest.mark.parametrize(("change", "sentence"), [({"version": 99}, "version 99"), ({"labels": None}, "lacks labels")])
def test_a_card_of_another_release_or_without_entries_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    folder = save_model(tmp_path / "probe", tensors(), CARD)
    card = json.loads((folder / "card.json").read_text()) | change
    (folder / "card.json").write_text(json.dumps({k: v for k, v in card.items() if v is not None}))
    with pytest.raises(InputError, match=sentence):
        load_model(folder)


def test_a_card_that_is_not_json_is_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "probe", tensors(), CARD)
    (folder / "card.json").write_text("{")
    with pytest.raises(InputError, match=r"card\.json is not JSON"):
        load_model(folder)


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="'probe', where 'imagewise' is expected"):
        check_architecture(Path("m"), CARD, "imagewise")

"""Parsers from checkpoints, on tiny ones of random weights that are made here: loading and reading, not quality."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from urbanprint.errors import InputError, MissingWeights
from urbanprint.scenes.checkpoints import load_checkpoint
from urbanprint.scenes.classes import CITYSCAPES

transformers = pytest.importorskip("transformers", reason="the extra 'scenes' is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # the library's own deprecations are not ours

NAMES = ("Sky", "object--vehicle--car", "Person")


def _labels(names: tuple[str, ...]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segformer")
    config = transformers.SegformerConfig(
        **_labels(CITYSCAPES),
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
    )
    torch.manual_seed(0)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mask2former")
    backbone = transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        **_labels(NAMES),
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
    )
    torch.manual_seed(0)
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    transformers.Mask2FormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)


def test_segformer_gives_the_share_of_each_class_at_its_own_resolution(segformer: Path, pixels: np.ndarray) -> None:
    parser = load_checkpoint(str(segformer), device="cpu")
    assert (parser.classes, parser.size, parser.counts_by) == (CITYSCAPES, 64, "components")
    amounts = parser.parse(pixels)
    np.testing.assert_allclose(amounts.fraction.sum(axis=1), 1)
    # The library itself is the oracle.
    processor = transformers.AutoImageProcessor.from_pretrained(segformer)
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(segformer).eval()
    with torch.inference_mode():
        outputs = network(**processor(list(pixels), return_tensors="pt"))
    for row, labels in enumerate(processor.post_process_semantic_segmentation(outputs)):
        expected = np.bincount(labels.numpy().ravel(), minlength=19) / labels.numel()
        np.testing.assert_allclose(amounts.fraction[row], expected, atol=2 / labels.numel())


def test_mask2former_counts_the_segments_it_finds(mask2former: Path, pixels: np.ndarray) -> None:
    parser = load_checkpoint(str(mask2former), device="cpu")
    assert (parser.classes, parser.counts_by) == (("sky", "car", "person"), "segments")
    amounts = parser.parse(pixels)
    assert np.isnan(amounts.count[:, 0]).all()  # the sky is not counted
    assert np.isfinite(amounts.count[:, 1:]).all()
    assert ((amounts.fraction >= 0) & (amounts.fraction.sum(axis=1) <= 1 + 1e-9)[:, None]).all()


def test_segments_become_counts_shares_and_mean_confidences(
    mask2former: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = load_checkpoint(str(mask2former), device="cpu")
    drawn = torch.zeros(10, 10, dtype=torch.int32)
    drawn[:5], drawn[5:7, :5], drawn[8, :5] = 1, 2, 3
    found = [
        {"id": 1, "label_id": 0, "was_fused": True, "score": 0.9},
        {"id": 1, "label_id": 0, "was_fused": True, "score": 0.7},  # two queries of one sky
        {"id": 2, "label_id": 1, "was_fused": False, "score": 0.8},
        {"id": 3, "label_id": 1, "was_fused": False, "score": 0.6},
    ]
    nothing = {"segmentation": torch.zeros(10, 10) - 1, "segments_info": []}

    def segments(outputs: object, **settings: object) -> list[dict]:
        assert settings["label_ids_to_fuse"] == {0}
        return [{"segmentation": drawn, "segments_info": found}, nothing, nothing]

    monkeypatch.setattr(parser.processor, "post_process_panoptic_segmentation", segments)  # type: ignore[attr-defined]
    amounts = parser.parse(pixels)
    np.testing.assert_allclose(amounts.fraction, [[0.5, 0.15, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(amounts.count, [[np.nan, 2, 0], [np.nan, 0, 0], [np.nan, 0, 0]])
    np.testing.assert_allclose(amounts.confidence[0], [0.8, 0.7, np.nan])


def test_another_size_can_be_asked_for(segformer: Path) -> None:
    assert load_checkpoint(str(segformer), size=32, device="cpu").size == 32


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'urbanprint\[scenes\]'"):
        load_checkpoint("any/name")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="nowhere does not exist"):
        load_checkpoint(str(tmp_path / "nowhere"))


def test_a_name_that_cannot_be_had_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match="nobody/no-such-checkpoint is neither a folder") as raised:
        load_checkpoint("nobody/no-such-checkpoint")
    assert "\n" not in str(raised.value)


def test_an_empty_folder_and_one_without_weights_are_refused(segformer: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"config\.json"):
        load_checkpoint(str(tmp_path))
    for name in ("config.json", "preprocessor_config.json"):
        if (segformer / name).is_file():
            (tmp_path / name).write_bytes((segformer / name).read_bytes())
    with pytest.raises(MissingWeights, match="weights"):
        load_checkpoint(str(tmp_path))


def test_weights_that_are_not_all_there_are_never_filled_with_random_ones(segformer: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in segformer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["decode_head.classifier.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MissingWeights, match=r"lacks 1 tensors, such as decode_head\.classifier\.bias"):
        load_checkpoint(str(tmp_path))


def test_damaged_weights_are_one_sentence(segformer: Path, tmp_path: Path) -> None:
    for file in segformer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:5000])
    with pytest.raises(MissingWeights, match="is neither a folder with") as raised:
        load_checkpoint(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_another_kind_is_refused(segformer: Path, tmp_path: Path) -> None:
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a vit: name a Mask2Former or a SegFormer"):
        load_checkpoint(str(tmp_path))


def test_a_checkpoint_without_class_names_is_refused(segformer: Path, tmp_path: Path) -> None:
    for file in segformer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {str(index): f"LABEL_{index}" for index in range(19)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="does not name its classes"):
        load_checkpoint(str(tmp_path))

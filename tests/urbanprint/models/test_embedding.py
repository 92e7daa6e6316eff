"""Embedding: a row an image, in order, the same in any batch and on any run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.imagery.decoding import decode
from urbanprint.models.backbones import Backbone, load_backbone
from urbanprint.models.embedding import embed, pick_device


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("resnet18", weights="none", seed=1)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("views"), np.random.default_rng(0)
    names = [folder / f"{i}.png" for i in range(7)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(name)
    return names


def test_a_row_is_the_networks_output_for_that_image(paths: list[Path], backbone: Backbone) -> None:
    features = embed(paths, backbone, size=48, batch=3, device="cpu")
    assert features.shape == (7, 512)
    assert features.dtype == np.float32
    pixels = decode(paths[4], size=48) / 255.0
    view = torch.tensor((pixels - backbone.mean) / backbone.std, dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        np.testing.assert_allclose(features[4], backbone.module(view)[0].numpy(), rtol=1e-4, atol=1e-4)


def test_runs_are_identical_and_batches_do_not_matter(paths: list[Path], backbone: Backbone) -> None:
    first = embed(paths, backbone, size=48, batch=3, device="cpu", workers=1)
    np.testing.assert_array_equal(first, embed(paths, backbone, size=48, batch=3, device="cpu", workers=4))
    np.testing.assert_allclose(first, embed(paths, backbone, size=48, batch=7, device="cpu"), rtol=1e-4, atol=1e-4)


def test_progress_counts_images(paths: list[Path], backbone: Backbone) -> None:
    seen: list[tuple[int, int]] = []
    embed(paths, backbone, size=32, batch=4, device="cpu", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 7), (7, 7)]


def test_no_images_give_no_rows(backbone: Backbone) -> None:
    assert embed([], backbone, size=32, device="cpu").shape == (0, 512)


def test_a_gpu_that_is_asked_for_and_absent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(None) == "cpu"
    with pytest.raises(InputError, match=r"'cuda'.*no CUDA"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(None) == "cuda"
    assert pick_device("cpu") == "cpu"

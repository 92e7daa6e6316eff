"""Backbones: any convolutional torchvision network, weights as asked for and never a silent substitute."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from urbanprint.errors import InputError, MissingWeights
from urbanprint.models.backbones import load_backbone, normalise


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch.hub cache on a machine that reaches nothing; returns the folder for checkpoints."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    for scheme in ("http", "https", "all"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize(
    ("name", "size", "last_conv"),
    [
        ("resnet18", 512, "layer4"),
        ("mobilenet_v3_small", 1024, "features"),
        ("efficientnet_b0", 1280, "features"),
        ("densenet121", 1024, "features"),
        ("shufflenet_v2_x0_5", 1024, "conv5"),
        ("regnet_y_400mf", 440, "trunk_output"),
    ],
)
def test_any_family_gives_features_and_the_name_of_its_last_map(name: str, size: int, last_conv: str) -> None:
    backbone = load_backbone(name, weights="none")
    assert (backbone.feature_size, backbone.last_conv) == (size, last_conv)
    assert backbone.strides[last_conv] == 32
    assert not backbone.module.training
    with torch.no_grad():
        assert backbone.module(torch.zeros(2, 3, 64, 64)).shape == (2, size)


def test_features_are_what_the_published_network_gives_its_head() -> None:
    torch.manual_seed(5)
    whole = models.resnet18().eval()
    backbone = load_backbone("resnet18", weights="none", seed=5)
    views = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(whole.fc(backbone.module(views)), whole(views))


def test_random_weights_come_from_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (
        load_backbone("resnet18", weights="none", seed=seed).module.conv1.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet81", "resnet18"), ("vit_b_16", "for example"), ("squeezenet1_0", "for example")]
)
def test_an_unknown_or_unsuitable_network_is_refused_with_a_near_name(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"'{name}'.*{hint}"):
        load_backbone(name, weights="none")


def test_imagenet_weights_offline_say_where_to_put_which_file(offline: Path) -> None:
    with pytest.raises(MissingWeights, match=r'checkpoints/resnet18-f37072fd\.pth.*weights = "none"'):
        load_backbone("resnet18", weights="imagenet")


def test_imagenet_weights_already_in_the_cache_are_used_offline(offline: Path) -> None:
    torch.manual_seed(11)
    whole = models.resnet18()
    torch.save(whole.state_dict(), offline / "resnet18-f37072fd.pth")
    backbone = load_backbone("resnet18", weights="imagenet")
    assert torch.equal(backbone.module.conv1.weight, whole.conv1.weight)
    assert backbone.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("with_head", [True, False])
def test_a_state_dict_is_loaded_with_or_without_its_head(tmp_path: Path, suffix: str, with_head: bool) -> None:
    torch.manual_seed(2)
    state = models.resnet18(num_classes=7).state_dict()
    if not with_head:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    backbone = load_backbone("resnet18", weights=str(path))
    assert torch.equal(backbone.module.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_weights_of_another_network_are_refused_by_tensor_name(tmp_path: Path) -> None:
    save_file(models.resnet34().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w\.safetensors does not fit resnet18: tensor 'layer1\.2\."):
        load_backbone("resnet18", weights=str(tmp_path / "w.safetensors"))


def test_a_weights_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"gone\.pth does not exist"):
        load_backbone("resnet18", weights=str(tmp_path / "gone.pth"))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_damaged_weights_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(InputError, match=f"{name} cannot be read as weights"):
        load_backbone("resnet18", weights=str(tmp_path / name))


def test_a_pickled_model_is_never_executed(tmp_path: Path) -> None:
    torch.save(models.resnet18(), tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"whole\.pth cannot be read as weights"):
        load_backbone("resnet18", weights=str(tmp_path / "whole.pth"))


def test_normalising_is_the_published_formula_in_channels_last_memory() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    views = normalise(torch.from_numpy(pixels), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    expected = (pixels / 255.0 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]
    np.testing.assert_allclose(views.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert views.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "regnet_y_400mf"])
@pytest.mark.parametrize("stages", [2, 3, 4])
def test_a_shortened_network_is_the_start_of_the_whole_one(name: str, stages: int) -> None:
    whole, short = (load_backbone(name, weights="none", seed=1, stages=kept) for kept in (None, stages))
    assert max(short.strides.values()) == 2**stages
    views = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    last = list(short.module.children())[-3]
    twin = next(
        child
        for child in whole.module.modules()
        if type(child) is type(last)
        and list(child.state_dict()) == list(last.state_dict())
        and all(torch.equal(a, b) for a, b in zip(child.state_dict().values(), last.state_dict().values(), strict=True))
    )
    handle = twin.register_forward_hook(lambda _module, _given, output: seen.append(output.detach().clone()))
    with torch.no_grad():
        whole.module(views)
        features = short.module(views)
    handle.remove()
    torch.testing.assert_close(features, seen[0].mean(dim=(2, 3)))
    assert features.shape[1] == short.feature_size


def test_a_shortened_network_takes_published_weights_before_it_is_cut(tmp_path: Path) -> None:
    whole = load_backbone("resnet18", weights="none", seed=3)
    save_file(
        {name: tensor.contiguous() for name, tensor in whole.module.state_dict().items()},
        tmp_path / "weights.safetensors",
    )
    short = load_backbone("resnet18", weights=str(tmp_path / "weights.safetensors"), stages=2)
    assert torch.equal(short.module[0].weight, whole.module.conv1.weight)


@pytest.mark.parametrize("stages", [0, 6])
def test_stages_that_a_network_has_not_are_refused(stages: int) -> None:
    with pytest.raises(InputError, match=f"stages = {stages}: resnet18 can be cut after 1, 2, 3, 4, 5 halvings"):
        load_backbone("resnet18", weights="none", stages=stages)

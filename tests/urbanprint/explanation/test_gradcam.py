"""GradCAM for regression: equal to the published package, signed, and without a trace in the model."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget
from torch import Tensor, nn
from torchvision import models

from urbanprint.explanation.gradcam import common_limit, for_display, gradcam, upsample


@pytest.fixture(scope="module")
def regression() -> nn.Module:
    """A ResNet-18 regression of two indicators, with statistics of its own in batch normalisation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.resnet18(num_classes=2)
        model.train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.rand(8, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(5, 3, 96, 128, generator=torch.Generator().manual_seed(1))


class Planted(nn.Module):
    """Output 0 = mean of channel 0 minus mean of channel 1 of a map that is the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.copy_(torch.tensor([[1.0, -1.0, 0.0]]))

    def forward(self, views: Tensor) -> Tensor:
        return self.head(self.map(views).mean(dim=(2, 3)))


@pytest.mark.parametrize("layer", ["layer4", "layer3"])
@pytest.mark.parametrize("target", [0, 1])
def test_rectified_and_scaled_alike_it_equals_the_grad_cam_package(
    regression: nn.Module, images: Tensor, layer: str, target: int
) -> None:
    reference = copy.deepcopy(regression)
    package = GradCAM(model=reference, target_layers=[getattr(reference, layer)])

    class Output:
        def __call__(self, output: Tensor) -> Tensor:
            return output[target]

    expected = package(input_tensor=images, targets=[Output()] * len(images))
    package.activations_and_grads.release()
    ours = gradcam(regression, images, layer=layer, target=target, signed=False)
    scaled = scale_cam_image(scale_cam_image(ours, (128, 96)))
    assert expected.shape == (5, 96, 128)
    np.testing.assert_allclose(scaled, expected, atol=1e-5)


def test_our_resizing_is_the_packages_resizing(regression: nn.Module, images: Tensor) -> None:
    single = copy.deepcopy(regression)
    single.fc = nn.Linear(512, 1)
    package = GradCAM(model=single, target_layers=[single.layer4])
    expected = package(input_tensor=images, targets=[RawScoresOutputTarget()] * len(images))
    package.activations_and_grads.release()
    maps = gradcam(single, images, layer="layer4", target=0, signed=False)
    for size in ((3, 4), (96, 128)):  # the package scales each map at the layer's resolution and at the image's
        maps = upsample(maps, *size)
        maps -= maps.min(axis=(1, 2), keepdims=True)
        maps /= 1e-7 + maps.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_what_raises_is_positive_and_what_lowers_is_negative() -> None:
    views = torch.zeros(1, 3, 4, 4)
    views[0, 0, 0, 0], views[0, 1, 3, 3], views[0, 2] = 1.0, 1.0, 5.0
    expected = np.zeros((1, 4, 4), dtype=np.float32)
    expected[0, 0, 0], expected[0, 3, 3] = 1 / 16, -1 / 16
    raw = gradcam(Planted(), views, layer="map", target=0)
    np.testing.assert_allclose(raw, expected, atol=1e-7)
    np.testing.assert_allclose(
        gradcam(Planted(), views, layer="map", target=0, signed=False), expected.clip(min=0), atol=1e-7
    )


def test_a_linear_head_on_a_mean_makes_the_map_sum_to_the_output() -> None:
    views = torch.rand(3, 3, 6, 5)
    raw = gradcam(Planted(), views, layer="map", target=0)
    np.testing.assert_allclose(raw.sum(axis=(1, 2)), Planted()(views)[:, 0].detach().numpy(), atol=1e-6)


def test_relative_maps_say_what_sets_a_picture_apart_from_the_average_one() -> None:
    views = torch.rand(4, 3, 6, 5)
    views[:, :, 2, 3] = torch.tensor([0.9, 0.1, 0.5])  # the same in every picture
    relative = gradcam(Planted(), views, layer="map", target=0, relative=True)
    output = Planted()(views)[:, 0].detach().numpy()
    np.testing.assert_allclose(relative[:, 2, 3], 0.0, atol=1e-7)
    np.testing.assert_allclose(relative.sum(axis=(1, 2)), output - output.mean(), atol=1e-6)
    np.testing.assert_allclose(
        gradcam(Planted(), views, layer="map", target=0, relative=True, batch=3), relative, atol=1e-6
    )


def test_relative_maps_of_a_network_sum_to_its_difference_from_the_mean(regression: nn.Module, images: Tensor) -> None:
    relative = gradcam(regression, images, layer="layer4", target=1, relative=True)
    with torch.no_grad():
        output = regression(images)[:, 1].numpy()
    np.testing.assert_allclose(relative.sum(axis=(1, 2)), output - output.mean(), atol=1e-4)


def test_batches_do_not_change_the_maps(regression: nn.Module, images: Tensor) -> None:
    whole = gradcam(regression, images, layer="layer4", target=0)
    assert whole.shape == (5, 3, 4)
    assert whole.dtype == np.float32
    assert (whole < 0).any()
    np.testing.assert_allclose(gradcam(regression, images, layer="layer4", target=0, batch=2), whole, atol=1e-6)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules())


def fails(_: nn.Module, __: object, ___: object) -> None:
    raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("broken", [False, True])
def test_modes_gradients_and_hooks_are_as_before_even_after_an_error(regression: nn.Module, broken: bool) -> None:
    model = copy.deepcopy(regression).train()
    model.layer2.eval()
    modes = [module.training for module in model.modules()]
    handle = model.fc.register_forward_hook(fails) if broken else None
    before = hooks(model)
    with pytest.raises(RuntimeError, match="broken on purpose") if broken else nullcontext():
        gradcam(model, torch.rand(2, 3, 64, 64), layer="layer4", target=0)
    assert hooks(model) == before
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert handle is None or handle.remove() is None


def test_it_works_on_frozen_weights_inside_no_grad_and_before_an_in_place_layer(images: Tensor) -> None:
    model = models.densenet121(num_classes=1).eval().requires_grad_(False)  # its features meet an in-place ReLU
    with torch.no_grad():
        raw = gradcam(model, images[:2], layer="features", target=0)
    assert raw.shape == (2, 3, 4)
    assert np.abs(raw).max() > 0


def test_bfloat16_weights_give_float32_maps_near_the_float32_ones(regression: nn.Module, images: Tensor) -> None:
    exact = gradcam(regression, images, layer="layer4", target=0)
    half = gradcam(copy.deepcopy(regression).bfloat16(), images.bfloat16(), layer="layer4", target=0)
    assert half.dtype == np.float32
    assert np.corrcoef(exact.ravel(), half.ravel())[0, 1] > 0.98


def test_a_layer_without_a_spatial_map_is_refused(regression: nn.Module, images: Tensor) -> None:
    with pytest.raises(ValueError, match="layer 'fc' has no single spatial map"):
        gradcam(regression, images[:1], layer="fc", target=0)


def test_display_uses_one_scale_for_all_maps_and_keeps_zero_and_sign() -> None:
    maps = np.stack([np.full((2, 2), 4.0), np.full((2, 2), -1.0), np.zeros((2, 2))]).astype(np.float32)
    assert common_limit(maps) == 4.0
    np.testing.assert_allclose(for_display(maps)[:, 0, 0], [1.0, -0.25, 0.0])
    np.testing.assert_allclose(for_display(maps, limit=2.0)[:, 0, 0], [1.0, -0.5, 0.0])
    assert (for_display(np.zeros((1, 2, 2))) == 0).all()

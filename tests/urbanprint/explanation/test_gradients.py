"""Guided gradients are the published rule on ReLU and differ from plain ones on SiLU; integrated ones are complete."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from urbanprint.errors import InputError
from urbanprint.explanation import gradients
from urbanprint.explanation.gradcam import gradcam, upsample
from urbanprint.explanation.gradients import Method, attributions, integrated_gradients
from urbanprint.models.backbones import load_backbone
from urbanprint.models.ordinal import BinomialHead

NETWORKS = ["resnet18", "efficientnet_b0"]


def network(name: str, *, seed: int = 0) -> nn.Sequential:
    """A torchvision network with a head of two outputs, random weights and the statistics of some smooth pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = load_backbone(name, weights="none", seed=seed)
        model = nn.Sequential(backbone.module, nn.Linear(backbone.feature_size, 2))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model.train()
        with torch.no_grad():
            model(pictures(8, seed=1))
    return model.eval()


def pictures(n: int, *, seed: int, size: int = 64) -> Tensor:
    coarse = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


@pytest.fixture(scope="module", params=NETWORKS)
def model(request: pytest.FixtureRequest) -> nn.Sequential:
    return network(request.param)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return pictures(2, seed=2)


class PublishedRule(torch.autograd.Function):
    """ReLU whose backward pass passes on positive gradients of positive inputs (Springenberg et al. 2015)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0.0)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where((x > 0) & (gradient > 0), gradient, 0.0)


class SmoothRule(torch.autograd.Function):
    """SiLU whose backward pass clamps the gradient before it multiplies by x sigmoid(x)'s derivative."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient.clamp(min=0.0) * s * (1 + x * (1 - s))


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def with_activations(model: nn.Module, old: type[nn.Module], function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of the model whose activations of a class are the function."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, old):
                setattr(parent, name, Applied(function))
    return model


def plain(model: nn.Module, images: Tensor, target: int) -> np.ndarray:
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(images)[:, target].sum(), images)
    return gradient.numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("target", [0, 1])
def test_the_gradient_is_autograds(model: nn.Module, images: Tensor, target: int) -> None:
    close(attributions(model, images, method="gradient", target=target), plain(model, images, target))


@pytest.mark.parametrize(
    ("name", "old", "rule"), [("resnet18", nn.ReLU, PublishedRule), ("efficientnet_b0", nn.SiLU, SmoothRule)]
)
def test_guided_gradients_are_the_rule_written_into_each_activation(
    name: str, old: type[nn.Module], rule: type[torch.autograd.Function], images: Tensor
) -> None:
    model = network(name)
    guided = attributions(model, images, method="guided", target=1)
    close(guided, plain(with_activations(model, old, rule.apply), images, 1))
    assert np.corrcoef(guided.ravel(), plain(model, images, 1).ravel())[0, 1] < 0.9


def test_exchanging_relu_modules_alone_changes_nothing_in_a_network_of_smooth_activations(images: Tensor) -> None:
    """What earlier work did to EfficientNet, and why the rule has to be one for all activations."""
    model = network("efficientnet_b0")
    exchanged = with_activations(model, nn.ReLU, PublishedRule.apply)
    np.testing.assert_array_equal(plain(exchanged, images, 0), plain(model, images, 0))


def test_of_two_paths_with_opposite_signs_guidance_keeps_the_one_that_raises_the_output() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.SiLU(), nn.Flatten(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])[:, :, None, None])
        model[3].weight.copy_(torch.tensor([[2.0, -2.0]]))
    image = torch.ones(1, 3, 1, 1)
    slope = torch.sigmoid(torch.tensor(1.0)).item()
    slope *= 2 - slope
    found = [attributions(model, image, method=method, target=0).ravel() for method in ("gradient", "guided")]
    np.testing.assert_allclose(found, [[2 * slope, -2 * slope, 0.0], [2 * slope, 0.0, 0.0]], rtol=1e-6)


def test_guided_gradcam_is_guided_times_the_rectified_map(images: Tensor) -> None:
    model = network("efficientnet_b0")
    found = attributions(model, images, method="guided-gradcam", target=0, layer="0.features")
    cam = upsample(gradcam(model, images, layer="0.features", target=0, signed=False), 64, 64)
    close(found, attributions(model, images, method="guided", target=0) * cam[:, None])
    assert found.shape == (2, 3, 64, 64)
    assert np.abs(found).max() > 0


def test_behind_an_ordinal_head_the_target_is_a_class() -> None:
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    model = nn.Sequential(features, BinomialHead(5))
    image = pictures(1, seed=3)
    up, poorest, richest = (
        attributions(network, image, method="gradient", target=target)
        for network, target in ((features, 0), (model, 0), (model, 4))
    )
    p = torch.sigmoid(features(image)).item()
    np.testing.assert_allclose(poorest, -4 * p * up, rtol=1e-4, atol=1e-9)  # log (1 - p)^4
    np.testing.assert_allclose(richest, 4 * (1 - p) * up, rtol=1e-4, atol=1e-9)  # log p^4


def test_integrated_gradients_sum_to_the_difference_of_outputs_within_one_percent(model: nn.Module) -> None:
    views = pictures(1, seed=2, size=32)
    starts = 0.98 * views  # a network of random weights is rugged: longer paths need hundreds of steps
    found = integrated_gradients(model, views, target=1, baseline=starts)
    with torch.no_grad():
        change = (model(views) - model(starts))[:, 1].numpy()
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), change, rtol=0.01)


def test_integrated_gradients_of_a_linear_model_are_weights_times_values() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    image, start = torch.rand(2, 3, 2, 2), torch.rand(3, 2, 2)
    weights = model[1].weight.detach().reshape(3, 2, 2)
    for baseline, way in ((None, image), (start, image - start)):
        found = attributions(model, image, method="integrated", target=0, baseline=baseline)
        np.testing.assert_allclose(found, weights * way, rtol=1e-4, atol=1e-6)


def test_a_path_with_bends_gets_more_steps_until_its_sum_is_right() -> None:
    """The output rises by 1 within a hundredth of the path, which 2 steps jump over."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sharpness = nn.Parameter(torch.tensor(400.0))

        def forward(self, views: Tensor) -> Tensor:
            return torch.sigmoid(self.sharpness * (views.mean(dim=(1, 2, 3)) - 0.37))[:, None]

    images = torch.stack([torch.ones(3, 2, 2), torch.full((3, 2, 2), 0.1)])
    found = integrated_gradients(Step(), images, target=0, steps=2)
    np.testing.assert_allclose(found[0].sum(), 1.0, rtol=0.01)
    np.testing.assert_allclose(found[0], found[0].mean(), rtol=1e-5)
    assert np.abs(found[1]).max() < 1e-6


def test_an_image_whose_sum_stays_wrong_is_named(monkeypatch: pytest.MonkeyPatch, images: Tensor) -> None:
    monkeypatch.setattr(gradients, "MOST_STEPS", 4)
    far = torch.cat([torch.zeros_like(images[:1]), images[:1]])  # the first is the baseline itself
    with pytest.raises(InputError, match="image 1 are more than 1% off after 4 steps"):
        integrated_gradients(network("resnet18"), far, target=0, steps=2)


@pytest.mark.parametrize("method", ["gradient", "guided", "guided-gradcam", "integrated"])
def test_batches_do_not_matter_and_the_model_is_as_before(method: Method) -> None:
    model, views = network("efficientnet_b0").train().requires_grad_(False), pictures(2, seed=2, size=32)
    model[0].features[2].eval()
    modes = [module.training for module in model.modules()]
    how = {"method": method, "target": 0, "layer": "0.features.6", "baseline": 0.98 * views}
    with torch.no_grad():
        whole, parts = (attributions(model, views, **how, batch=batch) for batch in (2, 1))
    assert whole.shape == (2, 3, 32, 32)
    assert whole.dtype == np.float32
    close(parts, whole)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_unknown_methods_missing_layers_and_models_that_cannot_be_guided_are_refused(images: Tensor) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 1), nn.Sigmoid())
    unknown: Any = "smooth"
    with pytest.raises(InputError, match="'smooth' is not a method of attribution: use one of gradient, guided"):
        attributions(linear, images, method=unknown, target=0)
    with pytest.raises(InputError, match="needs the name of a layer"):
        attributions(linear, images, method="guided-gradcam", target=0)
    with pytest.raises(InputError, match="no rectifying activation modules: guided gradients would be plain ones"):
        attributions(linear, images, method="guided", target=0)

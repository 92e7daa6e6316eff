"""GradCAM for regression: where in a picture a prediction comes from, and with which sign.

Belongs here: the raw maps and their resizing and scaling. A classifier's GradCAM drops what is negative; a deprivation
rank has two sides, so the sign is kept: positive raises the prediction, negative lowers it. Raw maps are comparable
between pictures, which scaling each picture to its own maximum destroys; scaling is for display alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every submodule's own mode again outside."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _capturing(layer: nn.Module) -> Iterator[list[Tensor]]:
    """The layer's output in each forward pass, as the start of the gradient's graph; the hook is always released.

    The graph begins at this output, so frozen parameters do not matter and nothing is kept of the layers below. What
    goes on is a copy, because a layer above may work in place (densenet's last ReLU does).
    """
    captured: list[Tensor] = []

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        captured.append(output.detach().requires_grad_())
        return captured[-1].clone()

    handle = layer.register_forward_hook(hook)
    try:
        yield captured
    finally:
        handle.remove()


def gradcam(
    model: nn.Module,
    images: Tensor,
    *,
    layer: str,
    target: int,
    signed: bool = True,
    relative: bool = False,
    batch: int = 32,
) -> np.ndarray:
    """Raw maps of one output of a regression, float32 of shape (n, h, w) at the resolution of `layer`.

    `model` maps `images` (n, 3, H, W) to outputs (n, k) before any sigmoid; `layer` names the submodule whose output
    (n, channels, h, w) is looked at. The map is sum_k mean_ij(d output / d A_k) A_k (Selvaraju et al., 2017, eq. 1
    and 2), in units of the output, without its rectification, which `signed=False` applies.

    `relative` replaces A by its difference from its mean over `images`, place by place. A regression has no natural
    zero: what every street shows (sky above, road below) adds the same to each output and drowns what sets a picture
    apart. Below a pooling and a linear head the mean of a relative map is exactly output - mean output.

    The model's modes, parameters, gradients and hooks are afterwards as before. Raises `ValueError` for a layer
    without a spatial map.
    """
    device = next(model.parameters()).device
    maps, weights = [], []
    total: Tensor | None = None
    with evaluating(model), torch.enable_grad(), _capturing(model.get_submodule(layer)) as captured:
        for chunk in images.split(batch):
            captured.clear()
            output = model(chunk.to(device))
            if len(captured) != 1 or captured[0].ndim != 4:
                raise ValueError(f"layer {layer!r} has no single spatial map (n, channels, h, w) in a forward pass")
            activation = captured[0]
            (gradient,) = torch.autograd.grad(output[:, target].sum(), activation)
            weights.append(gradient.float().mean(dim=(2, 3)))
            seen = activation.detach().float()
            maps.append(torch.einsum("nk,nkhw->nhw", weights[-1], seen))
            if relative:
                total = seen.sum(dim=0) if total is None else total + seen.sum(dim=0)
    raw = torch.cat(maps)
    if total is not None:
        # The map is linear in the activations: the mean can be taken off when all have been seen.
        raw -= torch.einsum("nk,khw->nhw", torch.cat(weights), total / len(images))
    return (raw if signed else raw.clamp(min=0.0)).cpu().numpy()


def upsample(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (n, h, w) resized bilinearly to (n, height, width), float32; pixel centres aligned as OpenCV does."""
    tensor = torch.from_numpy(np.asarray(maps, dtype=np.float32))[:, None]
    return functional.interpolate(tensor, size=(height, width), mode="bilinear", align_corners=False)[:, 0].numpy()


def common_limit(maps: np.ndarray, *, quantile: float = 0.99) -> float:
    """The one scale a set of raw maps is shown on: the given quantile of their absolute values, above 0."""
    return max(float(np.quantile(np.abs(maps), quantile)), float(np.finfo(np.float32).tiny))


def for_display(maps: np.ndarray, *, limit: float | None = None) -> np.ndarray:
    """Raw maps scaled to [-1, 1] by one limit for all of them, `common_limit` where none is given, float32."""
    scale = common_limit(maps) if limit is None else limit
    return np.clip(np.asarray(maps, dtype=np.float32) / scale, -1.0, 1.0)

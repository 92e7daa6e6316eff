"""Which pixels an output rests on: gradients down to the picture, plain, guided, or integrated along a path.

What belongs here: maps at the picture's own resolution, one value a channel, where `gradcam` has one a cell of a layer.
`target` is the output explained. Of a network with an ordinal head in `nn.Sequential` that is the log-probability of a
class; of the network alone it is the logit, with which all classes rise.

Guided backpropagation (Springenberg et al. 2015, "Striving for simplicity: the all convolutional net") passes on, at
each ReLU, only positive gradients, and only where its input was positive. The second half is the derivative of ReLU;
the first is the change. Implementations that exchange ReLU modules change nothing in a network of SiLU (swish) or GELU,
such as EfficientNet, and hand out plain gradients under another name. The rule here serves both: at every rectifying
activation the incoming gradient is clamped to what is positive, then multiplied by the activation's own derivative.
With ReLU that is the published rule. A smooth derivative is slightly negative below the activation's minimum (-0.10 at
most for SiLU), where a small part of a gradient still turns its sign.

Guided maps look sharp also for networks that learnt nothing, because they redraw edges (Adebayo et al. 2018, "Sanity
checks for saliency maps"): judge them by `faithfulness` before believing them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from urbanprint.errors import InputError
from urbanprint.explanation.gradcam import evaluating, gradcam, upsample

Method = Literal["gradient", "guided", "guided-gradcam", "integrated"]

MOST_STEPS = 1024
"""Of integrated gradients: where the path is not exact after that many, another baseline is needed."""

# Bounded activations (sigmoid, tanh, hard sigmoid) are left alone: in squeeze-and-excitation they are factors, not
# evidence, and a factor may well lower the output.
_RECTIFIERS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU),
    *(nn.SiLU, nn.GELU, nn.Mish, nn.Softplus, nn.Hardswish),
)


def attributions(
    model: nn.Module,
    images: Tensor,
    *,
    method: Method,
    target: int,
    layer: str | None = None,
    baseline: Tensor | None = None,
    batch: int = 32,
) -> np.ndarray:
    """How each value of each picture moves one output, by the method of that name, float32 of shape (n, 3, H, W).

    `model` maps `images` (n, 3, H, W) to outputs (n, k); its modes, gradients and hooks are afterwards as before.

    - "gradient": d output / d value (Simonyan et al. 2014, "Deep inside convolutional networks");
    - "guided": the same by the rule above, for modules of the classes of activations it names;
    - "guided-gradcam": guided times the rectified Grad-CAM of `layer`, resized (Selvaraju et al. 2017, "Grad-CAM");
    - "integrated": `integrated_gradients` from `baseline`.

    Raises `InputError` for an unknown method, guidance of a model without such activations, and what
    `integrated_gradients` raises; `ValueError` for a layer that Grad-CAM cannot look at.
    """
    if method == "integrated":
        return integrated_gradients(model, images, target=target, baseline=baseline, batch=batch)
    if method == "gradient":
        return _gradients(model, images, target=target, batch=batch)
    if method == "guided":
        with _guiding(model):
            return _gradients(model, images, target=target, batch=batch)
    if method != "guided-gradcam":
        raise InputError(f"'{method}' is not a method of attribution: use one of {', '.join(get_args(Method))}.")
    if layer is None:
        raise InputError("guided-gradcam needs the name of a layer: give that of the last spatial map.")
    guided = attributions(model, images, method="guided", target=target, batch=batch)
    cam = gradcam(model, images, layer=layer, target=target, signed=False, batch=batch)
    return guided * upsample(cam, *images.shape[2:])[:, None]


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    *,
    target: int,
    baseline: Tensor | None = None,
    steps: int = 32,
    tolerance: float = 0.01,
    batch: int = 32,
) -> np.ndarray:
    """Integrated gradients, float32 (n, 3, H, W): they sum over a picture to output(picture) - output(baseline).

    (x - x') times the integral of the gradient from the baseline x' straight to x (Sundararajan et al. 2017, "Axiomatic
    attribution for deep networks"). `baseline` broadcasts to the images; None is 0, the mean colour of normalised ones.

    The integral is taken at the Gauss-Legendre points of `steps`, which are doubled for the pictures whose sum is off
    by more than `tolerance` of the way the output goes along the path, the integral of |d output|: that is
    |output(picture) - output(baseline)| where it goes one way, and does not vanish where it comes back to where it
    began. EfficientNet-B0 with random weights was right to 1e-4 after 32 steps, ResNet-18, whose gradient jumps, to 1 %
    after 64 to 256. Raises `InputError` for a picture that needs more than `MOST_STEPS`.
    """
    start = torch.zeros(1, 3, 1, 1) if baseline is None else baseline
    starts = start.to(images).expand_as(images)
    found, left = np.empty(images.shape, dtype=np.float32), np.arange(len(images))
    while len(left):
        if steps > MOST_STEPS:
            raise InputError(
                f"The integrated gradients of image {left[0]} are more than {tolerance:.0%} off after {steps // 2}"
                " steps: use a baseline nearer to the images, such as blurred ones."
            )
        complete = []
        for rows in np.array_split(left, -(-len(left) // batch)):
            found[rows], gap, way = _integral(model, images[rows], starts[rows], target=target, steps=steps)
            complete.append(gap <= tolerance * way)
        left = left[~np.concatenate(complete)]
        steps *= 2
    return found


def _integral(
    model: nn.Module, images: Tensor, starts: Tensor, *, target: int, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The attributions of a batch; how far their sums are off (n,); and the way the output goes (n,)."""
    device = next(model.parameters()).device
    images, starts = images.to(device), starts.to(device)
    path = images - starts
    points, weights = np.polynomial.legendre.leggauss(steps)  # of [-1, 1]
    mean, way = torch.zeros_like(images, dtype=torch.float32), torch.zeros(len(images), device=device)
    with evaluating(model):
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            gradient = _gradient(model, starts + float(point) * path, target=target).float()
            mean += float(weight) * gradient
            way += float(weight) * (gradient * path).sum(dim=(1, 2, 3)).abs()
        with torch.no_grad():
            change = (model(images) - model(starts))[:, target].float()
    attributed = mean * path
    gap = (attributed.sum(dim=(1, 2, 3)) - change).abs()
    return attributed.cpu().numpy(), gap.cpu().numpy(), way.cpu().numpy()


def _gradients(model: nn.Module, images: Tensor, *, target: int, batch: int) -> np.ndarray:
    device = next(model.parameters()).device
    with evaluating(model):
        parts = [_gradient(model, chunk.to(device), target=target) for chunk in images.split(batch)]
    return torch.cat(parts).float().cpu().numpy()


def _gradient(model: nn.Module, images: Tensor, *, target: int) -> Tensor:
    """d output / d images, of the images' shape; parameters get no gradients."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(images)[:, target].sum(), images)
    return gradient


@contextmanager
def _guiding(model: nn.Module) -> Iterator[None]:
    """Inside, gradients are clamped to what is positive before they enter a rectifying activation from above.

    By a hook on each output and not by the module's own backward hook, which PyTorch refuses for activations that work
    in place, as those of torchvision do. An activation called as a function is no module and is not guided.
    """
    rectifiers = [module for module in model.modules() if isinstance(module, _RECTIFIERS)]
    if not rectifiers:
        raise InputError("The model has no rectifying activation modules: guided gradients would be plain ones.")

    def hook(_: nn.Module, __: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(min=0.0))

    handles = [module.register_forward_hook(hook) for module in rectifiers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

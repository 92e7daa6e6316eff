"""Convolutional networks that turn views into features. Belongs here: building, weights, what a layer is called.

Any torchvision classification network by name, its last linear layer removed. Weights are asked for openly: one that
cannot be had raises, and random ones are never a silent substitute.
"""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from urbanprint.errors import InputError, MissingWeights

_TRACE_SIZE = 96  # the smallest picture, in pixels, that every supported network (alexnet too) maps to more than 1 x 1
_TRANSFORMERS = ("vit_", "swin_", "maxvit_")


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network without its head, and what its users must know of it.

    `module` maps views (n, 3, H, W), normalised, to features (n, feature_size). `last_conv` names the submodule whose
    output (n, channels, h, w) is the last spatial map, which GradCAM looks at; `strides` says for each submodule with
    a spatial map how many input pixels lie between two of its cells.
    """

    module: nn.Module
    name: str
    feature_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    last_conv: str
    strides: Mapping[str, int]


def normalise(pixels: Tensor, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 pixels (n, H, W, 3) -> the network's input, float32 (n, 3, H, W) in channels_last memory."""
    channels = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255.0  # a permuted NHWC array is channels_last already
    shape = (1, 3, 1, 1)
    return channels.sub_(channels.new_tensor(mean).view(shape)).div_(channels.new_tensor(std).view(shape))


def _check_name(name: str) -> None:
    known = [
        known
        for known in models.list_models(module=models)
        if not known.startswith((*_TRANSFORMERS, "squeezenet", "googlenet", "inception"))
    ]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3) or ["resnet18", "efficientnet_b0", "convnext_tiny"]
    raise InputError(
        f"backbone {name!r} is not a torchvision network with one convolutional trunk and one linear head: "
        f"use for example {', '.join(near)}."
    )


def _remove_head(module: nn.Module) -> str:
    """Replace the last linear layer by the identity and return its name."""
    head = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)][-1]
    parent, _, attribute = head.rpartition(".")
    setattr(module.get_submodule(parent), attribute, nn.Identity())
    return head


def _trace(module: nn.Module) -> tuple[int, str, dict[str, int]]:
    """Feature size, name of the last spatial map before pooling, and the strides, from one forward pass."""
    strides: dict[str, int] = {}

    def note(name: str, layer: nn.Module, _: object, output: Tensor) -> None:
        spatial = output.ndim == 4 and output.shape[-1] == output.shape[-2] > 1  # some layers hold channels last
        if spatial and not isinstance(layer, nn.AdaptiveAvgPool2d):
            strides.pop(name, None)  # a layer used twice counts where it is used last
            strides[name] = 2 ** round(math.log2(_TRACE_SIZE / output.shape[-1]))

    hooks = [child.register_forward_hook(partial(note, name)) for name, child in module.named_modules() if name]
    module.eval()
    try:
        with torch.no_grad():
            features = module(torch.zeros(1, 3, _TRACE_SIZE, _TRACE_SIZE))
    finally:
        for hook in hooks:
            hook.remove()
    return features.shape[1], list(strides)[-1], strides


def _published(name: str) -> dict[str, Tensor]:
    """The ImageNet weights torchvision publishes, from torch.hub's cache or the internet."""
    weights = models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except OSError as error:
        raise MissingWeights(
            f"the ImageNet weights of {name} are not at {file} and could not be downloaded ({error}): put "
            f'{weights.url} there, or set weights = "none" to train from random weights.'
        ) from error


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingWeights(
            f'the weights file {path} does not exist: name a .safetensors or .pth file, "imagenet" or "none".'
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as weights ({type(error).__name__}): give a .safetensors file, or a .pth file "
            f"that holds a state dict of tensors and nothing else."
        ) from error
    if not (isinstance(state, dict) and all(isinstance(tensor, Tensor) for tensor in state.values())):
        raise InputError(f"{path} is not a plain state dict of tensors: save `model.state_dict()`.")
    return state


def _load(module: nn.Module, state: dict[str, Tensor], *, head: str, name: str, origin: str) -> None:
    """Load a state dict that may still hold the head; anything else that does not fit is named."""
    wanted = module.state_dict()
    given = {key: tensor for key, tensor in state.items() if not key.startswith(f"{head}.")}
    for key in [*wanted, *given]:
        expected = tuple(wanted[key].shape) if key in wanted else "nothing"
        found = tuple(given[key].shape) if key in given else "nothing"
        if expected != found:
            raise InputError(
                f"{origin} does not fit {name}: tensor {key!r} is {found} in the file and {expected} in the network; "
                f"name the backbone these weights were trained for."
            )
    module.load_state_dict(given)


def _parts(module: nn.Module, strides: Mapping[str, int], coarsest: int, path: str = "") -> Iterator[nn.Module]:
    """The network's parts in their order, as far as none has a map coarser than `coarsest` pixels a cell."""
    for name, child in module.named_children():
        stride = strides.get(f"{path}{name}", math.inf)
        if stride <= coarsest:
            yield child
            continue
        if isinstance(child, nn.Sequential):
            yield from _parts(child, strides, coarsest, f"{path}{name}.")
        return


def _shortened(module: nn.Module, strides: Mapping[str, int], *, name: str, stages: int) -> nn.Module:
    """The network up to where the resolution is halved for the last of `stages` times, and a mean over the map."""
    known = sorted(set(strides.values()))
    kept = list(_parts(module, strides, 2**stages)) if 2**stages in known else []
    if not kept:
        possible = ", ".join(str(round(math.log2(stride))) for stride in known if stride > 1)
        raise InputError(f"stages = {stages}: {name} can be cut after {possible} halvings of the resolution.")
    return nn.Sequential(*kept, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def load_backbone(name: str, *, weights: str, seed: int = 0, stages: int | None = None) -> Backbone:
    """A torchvision network by name (`resnet18`, `efficientnet_b0`, `convnext_tiny`, ...) without its head.

    Of `stages`, the halvings of the resolution from the input, the first so many are kept and what follows is left
    out: a shallow network sees textures and small things, learns from few pictures, and has a fine last map (after
    three, a cell is 8 pixels wide), of which a class's activation is exactly its share of the output (Brendel and
    Bethge 2019, "Approximating CNNs with bag-of-local-features models", ICLR). None keeps the whole network.

    `weights` is "imagenet" (torchvision's own), "none" (random, drawn from `seed`) or the path of a .safetensors or
    .pth state dict of this network, with or without its head. The module is in eval mode.

    Raises `InputError` for an unknown name or weights that do not fit, `MissingWeights` for ones that cannot be had.
    """
    _check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = models.get_model(name, weights=None)
    head = _remove_head(module)
    if weights == "imagenet":
        _load(module, _published(name), head=head, name=name, origin="the published file")
    elif weights != "none":
        path = Path(weights).expanduser()
        _load(module, _from_file(path), head=head, name=name, origin=str(path))
    feature_size, last_conv, strides = _trace(module)
    if stages is not None:
        module = _shortened(module, strides, name=name, stages=stages)
        feature_size, last_conv, strides = _trace(module)
    published = models.get_model_weights(name).DEFAULT.transforms()
    return Backbone(
        module=module.to(memory_format=torch.channels_last),
        name=name,
        feature_size=feature_size,
        mean=tuple(published.mean),
        std=tuple(published.std),
        last_conv=last_conv,
        strides=strides,
    )

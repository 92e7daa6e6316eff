"""The compact parser: a small segmentation network of this project's own, which knows the simulated street only.

Belongs here: the network and how it parses. How its weights were made is in `train_compact`. It serves the simulated
cities on a machine without a GPU; on photographs of real streets it means nothing, and its card says so.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from urbanprint.errors import InputError
from urbanprint.models.backbones import normalise
from urbanprint.models.card import check_architecture, load_model
from urbanprint.models.embedding import mixed_precision, pick_device, to_device
from urbanprint.scenes.parsing import Amounts, CountsBy, amounts_of_maps

ARCHITECTURE = "compact scene parser"
WEIGHTS = Path(__file__).parent / "weights"
SIZE = 96
"""Side of its pictures, pixels."""

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def _separable(channels: int, out: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A depthwise and a pointwise convolution, after MobileNets (Howard et al. 2017, arXiv:1704.04861)."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )


class CompactNetwork(nn.Module):
    """Views (n, 3, H, W), normalised, H and W multiples of 8 -> logits (n, classes, H, W).

    An encoder to an eighth of the side and a decoder that adds the encoder's maps on the way back, after U-Net
    (Ronneberger et al. 2015, arXiv:1505.04597); the mean of the whole picture is added at the bottom. No layer works at
    the full size: each cell of the last map holds the logits of its 2 x 2 pixels (Shi et al. 2016, arXiv:1609.05158),
    which costs a third of what a full-size stem and decoder did.
    """

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            _separable(width, width),
        )
        self.down = nn.ModuleList(
            nn.Sequential(_separable(here, below, stride=2), _separable(below, below))
            for here, below in pairwise(widths)
        )
        self.bottom = nn.Sequential(
            _separable(widths[-1], widths[-1], dilation=2), _separable(widths[-1], widths[-1], dilation=4)
        )
        self.context = nn.Conv2d(widths[-1], widths[-1], 1)
        pairs = list(pairwise(widths))[::-1]
        self.narrow = nn.ModuleList(nn.Conv2d(below, here, 1) for here, below in pairs)
        self.up = nn.ModuleList(_separable(here, here) for here, _ in pairs)
        self.head = nn.Sequential(nn.Conv2d(width, 4 * classes, 1), nn.PixelShuffle(2))

    def forward(self, views: Tensor) -> Tensor:
        """Logits of each pixel's class."""
        maps = [self.stem(views)]
        for down in self.down:
            maps.append(down(maps[-1]))
        x = self.bottom(maps.pop())
        x = x + self.context(x.mean(dim=(2, 3), keepdim=True))
        for narrow, up in zip(self.narrow, self.up, strict=True):
            finer = functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest")
            x = up(finer + maps.pop())
        logits: Tensor = self.head(x)
        return logits


@dataclass(frozen=True, eq=False)
class CompactParser:
    """The network with the names of its classes; objects are counted as connected patches."""

    network: CompactNetwork
    classes: tuple[str, ...]
    device: str
    size: int = SIZE
    counts_by: CountsBy = "components"

    def maps(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class index and confidence of each pixel, both (n, size, size), of pictures uint8 (n, size, size, 3)."""
        views = normalise(to_device(pixels, self.device), mean=MEAN, std=STD)
        with torch.inference_mode(), mixed_precision(self.device):
            confidence, labels = self.network(views).float().softmax(dim=1).max(dim=1)
        return labels.cpu().numpy(), confidence.cpu().numpy()

    def parse(self, pixels: np.ndarray) -> Amounts:
        """What pictures, uint8 (n, size, size, 3), hold."""
        labels, confidence = self.maps(pixels)
        return amounts_of_maps(labels, confidence, classes=self.classes)


def load_compact(folder: Path = WEIGHTS, *, device: str | None = None) -> CompactParser:
    """The parser whose weights are part of the package, or those in another model directory.

    Raises `InputError` or `MissingWeights` as `load_model` does.
    """
    tensors, card = load_model(folder)
    check_architecture(folder, card, ARCHITECTURE)
    classes = tuple(card["labels"])
    network = CompactNetwork(len(classes), **card["config"])
    try:
        network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise InputError(f"{folder} does not fit the network of this release: train it again.") from error
    where = pick_device(device)
    return CompactParser(network.to(where).to(memory_format=torch.channels_last).eval(), classes, where)

"""A network that tells cells apart: its settings, its classes, how it is applied, saved and read.

What belongs here: one network. Two designs share it: a classifier of one level's classes, of which a geolocator has one
a level, and the joint design, one classifier of the leaves whose probabilities parents sum. They differ in the loss
(`training.py`) and in what their outputs mean (`geolocator.py`), not in the network.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from urbanprint.errors import InputError
from urbanprint.geolocation.datasets import level_position
from urbanprint.geolocation.hierarchy import Hierarchy, Level
from urbanprint.models.backbones import Backbone, load_backbone, normalise
from urbanprint.models.card import check_architecture, load_model, save_model
from urbanprint.models.embedding import mixed_precision, pick_device, to_device
from urbanprint.models.imagewise import ImagewiseNetwork

STYLE_STRIDE = 8
"""Style is read off the stages whose maps have at most this many input pixels between two cells.

Early maps show how a picture is made (edges, grain, colours), late ones what is in it. Of a ResNet-50 these are 1,664
numbers, where all stages would be 7,808; and at 32 pixels, the least size, a map still has 4 x 4 cells to vary over."""

_ARCHITECTURE = "cell-classifier"

Design = Literal["level", "joint"]
"""One classifier a level, or one of the leaves."""

Sampling = Literal["none", "effective-number", "balanced"]
"""How often an image is drawn in an epoch: once; by its class's inverse effective number; each class alike."""


@dataclass(frozen=True, kw_only=True)
class GeolocationConfig:
    """How to train. `size` in pixels, `batch` in images; `weights` as in `load_backbone`.

    `augment`: crops, colour and erased rectangles, as `models.training.augment`; `mirror`: also exchange left and right
    in half of the images, off because the side of the road says where a picture was taken; `cutmix` = probability
    that a batch is cut and mixed. `label_smoothing` is for the level design. The joint one has `tau_km`, the distance
    over which its targets fall off around an image, and `level_weights`, a weight of the loss for each level from
    coarse to fine, all 1 if None.

    `validation_share` of the training images, in groups far from the others, decides when to stop: after `patience`
    epochs without a better loss; at 0 every epoch runs. A checkpoint is written after `checkpoint_seconds` of new work.
    Raises `InputError` naming the setting that is out of range.
    """

    backbone: str = "resnet50"
    weights: str = "imagenet"
    size: int = 224
    epochs: int = 20
    batch: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    dropout: float = 0.2
    label_smoothing: float = 0.1
    cutmix: float = 0.5
    augment: bool = True
    mirror: bool = False
    tau_km: float = 75.0
    level_weights: tuple[float, ...] | None = None
    sampling: Sampling = "none"
    validation_share: float = 0.1
    patience: int = 5
    seed: int = 0
    workers: int = 2
    device: str | None = None
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        wanted = {
            "size": (self.size >= 32, "at least 32 pixels"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch": (self.batch >= 4, "at least 4, as batch normalisation needs several images"),
            "learning_rate": (0.0 < self.learning_rate <= 1.0, "above 0 and at most 1"),
            "weight_decay": (self.weight_decay >= 0.0, "0 or more"),
            "dropout": (0.0 <= self.dropout < 1.0, "at least 0 and below 1"),
            "label_smoothing": (0.0 <= self.label_smoothing < 1.0, "at least 0 and below 1"),
            "cutmix": (0.0 <= self.cutmix <= 1.0, "between 0 and 1"),
            "tau_km": (self.tau_km > 0.0, "above 0 km"),
            "sampling": (self.sampling in get_args(Sampling), " or ".join(get_args(Sampling))),
            "validation_share": (0.0 <= self.validation_share < 1.0, "at least 0 and below 1"),
            "patience": (self.patience >= 1, "at least 1"),
            "seed": (self.seed >= 0, "0 or more"),
            "workers": (self.workers >= 1, "at least 1"),
            "checkpoint_seconds": (self.checkpoint_seconds >= 0.0, "0 or more"),
        }
        for setting, (holds, expected) in wanted.items():
            if not holds:
                raise InputError(f"geolocation setting {setting} = {getattr(self, setting)!r} must be {expected}.")


@dataclass(frozen=True, kw_only=True)
class CellEpoch:
    """What one epoch did. Losses are means over images; the training one includes smoothing and mixed images.

    `validation_accuracy` is the share of held-out images whose class is the likeliest. Validation figures are NaN
    without held-out images; `best` says whether this epoch's weights are the best so far.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
    best: bool


@dataclass(frozen=True, kw_only=True)
class CellClassifier:
    """A network of the classes of one `level` of a hierarchy; in the joint design that is the finest."""

    network: ImagewiseNetwork
    backbone: Backbone
    config: GeolocationConfig
    design: Design
    hierarchy: Hierarchy
    level: int
    history: tuple[CellEpoch, ...] = ()

    @property
    def classes(self) -> Level:
        return self.hierarchy.levels[level_position(self.hierarchy, self.level)]

    @property
    def name(self) -> str:
        """What it is called among the classifiers of a geolocator: "joint", "L3"."""
        return "joint" if self.design == "joint" else f"L{self.level}"

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """The outputs before any softmax, float32 (n, classes), of decoded pixels uint8 (n, size, size, 3), in batches.

        The network goes to the configured device and into eval mode. `pixels` may be memory-mapped.
        """
        device = pick_device(self.config.device)
        network = self.network.to(device).eval()
        found = np.empty((len(pixels), len(self.classes)), dtype=np.float32)
        with torch.inference_mode(), mixed_precision(device):
            for start in range(0, len(pixels), self.config.batch):
                raw = to_device(np.array(pixels[start : start + self.config.batch]), device)
                views = normalise(raw, mean=self.backbone.mean, std=self.backbone.std)
                found[start : start + len(raw)] = network(views).float().cpu().numpy()
        return found

    def logits_and_style(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`logits`, and how the pictures are made whatever they show, float32 (n, d), from one forward pass.

        The style is the mean and the standard deviation of each channel over the map at the end of each early stage
        (`STYLE_STRIDE`): the statistics that carry a picture from one style into another (Huang and Belongie 2017,
        "Arbitrary style transfer in real-time with adaptive instance normalization", ICCV).
        """
        if not len(pixels):  # the number of features is that of any picture
            logits, features = self.logits_and_style(np.zeros((1, *pixels.shape[1:]), dtype=np.uint8))
            return logits[:0], features[:0]
        style: dict[str, list[np.ndarray]] = {name: [] for name in _early_stages(self.backbone)}  # a batch each

        def note(name: str, _layer: nn.Module, _inputs: object, maps: Tensor) -> None:
            spread, mean = torch.std_mean(maps.float(), dim=(2, 3), correction=0)
            style[name].append(torch.cat([mean, spread], dim=1).cpu().numpy())

        hooks = [self.network.backbone.get_submodule(name).register_forward_hook(partial(note, name)) for name in style]
        try:
            logits = self.logits(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return logits, np.concatenate([np.concatenate(batches) for batches in style.values()], axis=1)

    def tensors(self) -> dict[str, np.ndarray]:
        """The network's weights by name."""
        return {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}

    def description(self) -> dict[str, Any]:
        """What a card needs to rebuild it, the hierarchy apart."""
        return {
            "design": self.design,
            "level": self.level,
            "config": asdict(self.config),
            "history": [
                {name: value if np.isfinite(value) else None for name, value in asdict(epoch).items()}
                for epoch in self.history
            ],
        }

    def save(self, folder: Path, card: Mapping[str, Any]) -> Path:
        """Write the model directory; architecture, config, classes and training history are added to `card`."""
        own = {
            "architecture": _ARCHITECTURE,
            "labels": {"level": self.level, "classes": len(self.classes), "unit": "cell of the recursive world grid"},
            # As one text: a list of 8,655 codes would take as many lines of the card.
            "hierarchy": self.hierarchy.to_json(),
            **self.description(),
        }
        return save_model(folder, self.tensors(), {**card, **own})


def build_classifier(
    hierarchy: Hierarchy, *, design: Design, level: int | None, config: GeolocationConfig, weights: str | None = None
) -> CellClassifier:
    """A classifier before training: backbone as configured (or with other `weights`), head from the seed.

    `level` is one of the hierarchy's for the level design, and None for the joint one. Raises `InputError` otherwise.
    """
    if (level is None) != (design == "joint"):
        raise InputError(f"design = {design!r} with level = {level}: name the level of a level design, no other.")
    level = hierarchy.numbers[-1] if level is None else level
    classes = hierarchy.levels[level_position(hierarchy, level)]
    backbone = load_backbone(config.backbone, weights=weights or config.weights, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = ImagewiseNetwork(backbone, outputs=len(classes), dropout=config.dropout)
    return CellClassifier(
        network=network.eval(), backbone=backbone, config=config, design=design, hierarchy=hierarchy, level=level
    )


def _early_stages(backbone: Backbone) -> tuple[str, ...]:
    """The submodules at whose ends the early stages end.

    The last of the outermost of each stride, since a block that halves the resolution begins with layers of the old
    one. Those inside another are left out: a ConvNeXt's blocks turn channels to the end, which looks like a stride.
    """
    ends: dict[int, str] = {}
    for name, stride in backbone.strides.items():
        if 1 <= stride <= STYLE_STRIDE and name.count(".") <= ends.get(stride, name).count("."):
            ends[stride] = name
    return tuple(name for name in ends.values() if not any(name.startswith(f"{other}.") for other in ends.values()))


def load_classifier(folder: Path, *, device: str | None = None) -> CellClassifier:
    """The classifier in a model directory, in eval mode, to be applied on `device`.

    Raises `InputError` or `MissingWeights` as `load_model` does.
    """
    tensors, card = load_model(folder)
    check_architecture(folder, card, _ARCHITECTURE)
    hierarchy = Hierarchy.from_json(card["hierarchy"], name=str(folder))
    return rebuild(tensors, card, hierarchy, name=str(folder), device=device)


def rebuild(
    tensors: Mapping[str, np.ndarray],
    description: Mapping[str, Any],
    hierarchy: Hierarchy,
    *,
    name: str,
    device: str | None = None,
) -> CellClassifier:
    """The classifier of these weights and this `CellClassifier.description`; `name` is the folder they came from.

    Raises `InputError` for tensors that are not those of the network described.
    """
    settings = {**description["config"], "device": device}
    if settings["level_weights"] is not None:
        settings["level_weights"] = tuple(settings["level_weights"])
    config = GeolocationConfig(**settings)
    design = description["design"]
    level = None if design == "joint" else description["level"]
    model = build_classifier(hierarchy, design=design, level=level, config=config, weights="none")
    wanted = {key: tuple(tensor.shape) for key, tensor in model.network.state_dict().items()}
    if wanted != {key: tensor.shape for key, tensor in tensors.items()}:
        raise InputError(
            f"{name}: its tensors are not those of {config.backbone} with {len(model.classes)} classes: save it again."
        )
    model.network.load_state_dict({key: torch.from_numpy(tensor) for key, tensor in tensors.items()})
    return model

"""The image-wise model: a fine-tuned convolutional network on single views, pooled within the area.

The head is linear and pooling is a mean, so an area's output before the sigmoid is exactly the mean of its views'
outputs. Views are therefore a flat list with the area each belongs to: no padding, no mask, no empty view that batch
normalisation would see, any number of views an area; and a view's GradCAM explains its share of the area's output.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from urbanprint.errors import InputError, MissingImages
from urbanprint.imagery.decoding import decode_batches
from urbanprint.models.backbones import Backbone, load_backbone, normalise
from urbanprint.models.card import check_architecture, describe_labels, load_model, save_model
from urbanprint.models.embedding import mixed_precision, pick_device, to_device
from urbanprint.models.ordinal import Calibration, Kind, OrdinalHead, expected_class, ordinal_head

_ARCHITECTURE = "imagewise"

Loss = Literal["cross-entropy", "squared-error", "binomial", "cumulative", "regression"]
"""Of an output and its label: cross-entropy for labels in [0, 1], which an output's sigmoid predicts; squared error for
labels of any size, which the output itself predicts; or an ordinal head (`ordinal`) for class numbers."""


@dataclass(frozen=True, kw_only=True)
class ImagewiseConfig:
    """How to train. `size` in pixels; `views` drawn anew from an area's images in each epoch.

    `weights` as in `load_backbone`; `patience` = epochs without a better validation error before stopping;
    `frozen_stages` = how many halvings of the resolution, counted from the input, keep their weights (for ResNet:
    1 the stem, 2 also layer1, 3 also layer2); a checkpoint is written after `checkpoint_seconds` of new work, the
    most a killed training loses; `pooled_share` = share of the loss that judges the mean output of an area's views, the
    rest judges each view: at 0 single views learn copies of their area's label; `classes` = how many an ordinal head
    has; `symmetric` = pictures have no up and no left, as from above: they are also turned and mirrored; `stages` as in
    `load_backbone`. Raises `InputError` naming the setting
    that is out of range.
    """

    backbone: str = "resnet18"
    weights: str = "imagenet"
    size: int = 224
    views: int = 4
    epochs: int = 30
    batch_areas: int = 16
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    dropout: float = 0.2
    patience: int = 6
    frozen_stages: int = 0
    augment: bool = True
    seed: int = 0
    workers: int = 2
    device: str | None = None
    checkpoint_seconds: float = 30.0
    loss: Loss = "cross-entropy"
    pooled_share: float = 0.5
    classes: int = 0
    symmetric: bool = False
    stages: int | None = None

    @property
    def ordinal(self) -> Kind | None:
        """The ordinal head, where labels are class numbers."""
        return None if self.loss == "cross-entropy" or self.loss == "squared-error" else self.loss

    def __post_init__(self) -> None:
        wanted = {
            "size": (self.size >= 32, "at least 32 pixels"),
            "views": (self.views >= 1, "at least 1"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_areas": (self.batch_areas >= 2, "at least 2, which batch normalisation needs"),
            "learning_rate": (0.0 < self.learning_rate <= 1.0, "above 0 and at most 1"),
            "weight_decay": (self.weight_decay >= 0.0, "0 or more"),
            "dropout": (0.0 <= self.dropout < 1.0, "at least 0 and below 1"),
            "patience": (self.patience >= 1, "at least 1"),
            "frozen_stages": (0 <= self.frozen_stages <= 5, "between 0 and 5"),
            "seed": (self.seed >= 0, "0 or more"),
            "workers": (self.workers >= 1, "at least 1"),
            "checkpoint_seconds": (self.checkpoint_seconds >= 0.0, "0 or more"),
            "loss": (self.loss in get_args(Loss), " or ".join(get_args(Loss))),
            "pooled_share": (0.0 <= self.pooled_share <= 1.0, "between 0 and 1"),
            "classes": (self.ordinal is None or self.classes >= 2, "at least 2 for an ordinal head"),
        }
        for setting, (holds, expected) in wanted.items():
            if not holds:
                raise InputError(f"imagewise setting {setting} = {getattr(self, setting)!r} must be {expected}.")


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch did. Losses are means over known labels; the validation one is the squared error of the labels.

    `best` says whether this epoch's weights are the best so far; validation figures are NaN without validation areas.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_r2: float
    learning_rate: float
    seconds: float
    best: bool


class ImagewiseNetwork(nn.Module):
    """Views (n, 3, H, W), normalised -> outputs, before the sigmoid where there is one (n, indicators).

    `ordinal` turns outputs into probabilities of classes, where labels are such; it is trained with the rest.
    """

    def __init__(self, backbone: Backbone, *, outputs: int, dropout: float, ordinal: OrdinalHead | None = None) -> None:
        super().__init__()
        self.backbone = backbone.module
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.feature_size, outputs)
        self.ordinal = ordinal

    def forward(self, views: Tensor) -> Tensor:
        return self.head(self.dropout(self.backbone(views)))


def pool_views(logits: Tensor, area: Tensor, *, areas: int) -> Tensor:
    """Mean of the view outputs (n, k) within each area: (areas, k), `area` (n,) being 0..areas-1."""
    sums = logits.new_zeros(areas, logits.shape[1]).index_add_(0, area, logits)
    return sums / torch.bincount(area, minlength=areas).clamp(min=1)[:, None]


@dataclass(frozen=True, kw_only=True)
class ImagewiseModel:
    """A trained network and how to apply it. `layer` is the name GradCAM takes for the last spatial map."""

    network: ImagewiseNetwork
    backbone: Backbone
    config: ImagewiseConfig
    indicators: tuple[str, ...]
    history: tuple[EpochRecord, ...] = ()

    @property
    def layer(self) -> str:
        return f"backbone.{self.backbone.last_conv}"

    def normalise(self, pixels: np.ndarray) -> Tensor:
        """The network's input, float32 (n, 3, H, W) on the CPU, from decoded pixels uint8 (n, H, W, 3)."""
        return normalise(torch.from_numpy(pixels), mean=self.backbone.mean, std=self.backbone.std)

    def view_logits(self, pixels: np.ndarray, *, device: str = "cpu") -> np.ndarray:
        """Outputs before the sigmoid, float32 (n, indicators), of decoded pixels uint8 (n, H, W, 3)."""
        with torch.inference_mode(), mixed_precision(device):
            views = normalise(to_device(pixels, device), mean=self.backbone.mean, std=self.backbone.std)
            return self.network(views).float().cpu().numpy()

    def _logits(self, images: pd.DataFrame) -> np.ndarray:
        if images.empty:
            raise MissingImages("there are 0 images to predict from, at least 1 was needed: run the image step first.")
        device = pick_device(self.config.device)
        self.network.to(device).eval()
        batches = decode_batches(
            [Path(path) for path in images["path"]],
            size=self.config.size,
            batch=self.config.batch_areas * self.config.views,
            threads=self.config.workers,
        )
        return np.concatenate([self.view_logits(pixels, device=device) for pixels in batches])

    def values(self, outputs: Any) -> Any:
        """Predictions on the scale of the labels, from the network's outputs: of classes the expected one."""
        if self.network.ordinal is not None:
            probabilities = self.probabilities(np.asarray(outputs).reshape(-1, 1))
            expected = expected_class(probabilities).reshape(np.shape(outputs))
            return outputs * 0 + expected  # a table stays one
        return 1.0 / (1.0 + np.exp(-outputs)) if self.config.loss == "cross-entropy" else outputs

    def probabilities(self, outputs: np.ndarray, calibration: Calibration | None = None) -> np.ndarray:
        """Probability of each class (n, classes), from outputs (n, 1) of a network with an ordinal head."""
        head = self.network.ordinal
        if head is None:
            raise InputError(f"a network trained by {self.config.loss} has no classes: train it with an ordinal head.")
        with torch.inference_mode():
            given = torch.tensor(np.asarray(outputs), device=next(self.network.parameters()).device)
            return (calibration or Calibration()).log_probabilities(head, given).exp().cpu().numpy()

    def predict_views(self, images: pd.DataFrame) -> pd.DataFrame:
        """The prediction of each view: columns image_id, area_id and the indicators, rows as in `images`.

        On the scale of the labels: of a town, deprivation in [0, 1].
        """
        frame = images[["image_id", "area_id"]].reset_index(drop=True)
        frame[list(self.indicators)] = self.values(self._logits(images))
        return frame

    def predict(self, images: pd.DataFrame) -> pd.DataFrame:
        """The prediction of each area, from the mean output of its views: columns area_id (sorted) and the indicators.

        `images` holds image_id, area_id, path; all views of an area count. Raises `InputError` for a file that is no
        image, `MissingImages` for an empty table.
        """
        return self.values(self.outputs(images)).rename_axis("area_id").reset_index()

    def outputs(self, images: pd.DataFrame) -> pd.DataFrame:
        """The mean output of each area's views, before it is a prediction: indexed by area_id, as `predict` has it."""
        logits = pd.DataFrame(self._logits(images), columns=list(self.indicators))
        return logits.groupby(images["area_id"].to_numpy()).mean().rename_axis("area_id")

    def save(self, folder: Path, card: Mapping[str, Any]) -> Path:
        """Write the model directory; architecture, config, labels and training history are added to `card`."""
        tensors = {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        own = {
            "architecture": _ARCHITECTURE,
            "config": asdict(self.config),
            "labels": describe_labels(self.indicators),
            "history": [{k: _finite(v) for k, v in asdict(record).items()} for record in self.history],
        }
        return save_model(folder, tensors, {**card, **own})


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def build(config: ImagewiseConfig, indicators: tuple[str, ...], *, weights: str | None = None) -> ImagewiseModel:
    """A model before training: backbone as configured (or with other `weights`), head from the seed."""
    backbone = load_backbone(config.backbone, weights=weights or config.weights, seed=config.seed, stages=config.stages)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        ordinal = ordinal_head(config.ordinal, classes=config.classes) if config.ordinal else None
        network = ImagewiseNetwork(backbone, outputs=len(indicators), dropout=config.dropout, ordinal=ordinal)
    return ImagewiseModel(network=network.eval(), backbone=backbone, config=config, indicators=indicators)


def load_imagewise(folder: Path, *, device: str | None = None) -> ImagewiseModel:
    """The model in a model directory, in eval mode, to be applied on `device`.

    Raises `InputError` or `MissingWeights` as `load_model` does.
    """
    tensors, card = load_model(folder)
    check_architecture(folder, card, _ARCHITECTURE)
    config = ImagewiseConfig(**{**card["config"], "device": device})
    model = build(config, tuple(card["labels"]), weights="none")
    wanted = {name: list(tensor.shape) for name, tensor in model.network.state_dict().items()}
    if wanted != card["tensors"]:
        raise InputError(f"{folder}: its tensors are not those of {config.backbone}: save the model again.")
    model.network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    return model

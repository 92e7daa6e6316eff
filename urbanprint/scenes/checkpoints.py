"""Parsers from published checkpoints of the library transformers: Mask2Former (panoptic) and SegFormer (semantic).

Belongs here: loading by name or folder and reading what the network says. The library is an optional extra, imported
when a checkpoint is loaded. Pictures are squashed to a square, as everywhere in this project and as the published
Mask2Former checkpoints expect; fractions do not change by that.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from urbanprint.errors import InputError, MissingWeights
from urbanprint.models.backbones import normalise
from urbanprint.models.embedding import mixed_precision, pick_device, to_device
from urbanprint.scenes.classes import class_name, is_thing
from urbanprint.scenes.parsing import Amounts, CountsBy, Parser, amounts_of_maps

EXTRA = "pip install 'urbanprint[scenes]'"

SURE = 0.5
"""A query of Mask2Former less sure than this is no segment: the default of the library."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Checkpoint:
    network: Any
    processor: Any
    classes: tuple[str, ...]
    size: int
    device: str

    def _forward(self, pixels: np.ndarray) -> Any:
        views = normalise(
            to_device(pixels, self.device),
            mean=tuple(self.processor.image_mean),
            std=tuple(self.processor.image_std),
        )
        with torch.inference_mode(), mixed_precision(self.device):
            return self.network(pixel_values=views)


class SemanticCheckpoint(_Checkpoint):
    """SegFormer: the class of each pixel, at the resolution of the network's own output (a quarter of the side)."""

    counts_by: CountsBy = "components"

    def parse(self, pixels: np.ndarray) -> Amounts:
        """What pictures, uint8 (n, size, size, 3), hold."""
        confidence, labels = self._forward(pixels).logits.float().softmax(dim=1).max(dim=1)
        return amounts_of_maps(labels.cpu().numpy(), confidence.cpu().numpy(), classes=self.classes)


class PanopticCheckpoint(_Checkpoint):
    """Mask2Former: segments, each with a class and a confidence; stuff is one segment a class and has no count."""

    counts_by: CountsBy = "segments"

    @cached_property
    def _stuff(self) -> set[int]:
        return {i for i, name in enumerate(self.classes) if not is_thing(name, classes=self.classes)}

    def parse(self, pixels: np.ndarray) -> Amounts:
        """What pictures, uint8 (n, size, size, 3), hold; pixels of no segment are of no class."""
        outputs = self._forward(pixels)
        for name in ("class_queries_logits", "masks_queries_logits"):
            outputs[name] = outputs[name].float()
        parsed = self.processor.post_process_panoptic_segmentation(
            outputs, threshold=SURE, label_ids_to_fuse=self._stuff
        )
        shape = (len(pixels), len(self.classes))
        fraction, count, sure = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        segments = np.zeros(shape)
        for row, picture in enumerate(parsed):
            of_segment = picture["segmentation"].cpu().numpy().astype(int)
            # A fused segment is listed once for each query that went into it; its pixels count once.
            label_of = {segment["id"]: segment["label_id"] for segment in picture["segments_info"]}
            for number, label in label_of.items():
                fraction[row, label] += (of_segment == number).mean()
                count[row, label] += 1
            for segment in picture["segments_info"]:
                sure[row, segment["label_id"]] += segment["score"]
                segments[row, segment["label_id"]] += 1
        count[:, sorted(self._stuff)] = np.nan
        confidence = np.divide(sure, segments, out=np.full(shape, np.nan), where=segments > 0)
        return Amounts(fraction=fraction, count=count, confidence=confidence)


def load_checkpoint(checkpoint: str, *, size: int | None = None, device: str | None = None) -> Parser:
    """The parser in a checkpoint: a name such as "nvidia/segformer-b0-finetuned-cityscapes-1024-1024", or a folder.

    `size` is the side in pixels pictures are squashed to, by default the one the checkpoint was made for. Raises
    `InputError` where the library is missing or the checkpoint is of another kind, `MissingWeights` where it cannot be
    had or lacks weights: none are ever drawn at random.

    https://huggingface.co/docs/transformers/model_doc/mask2former and .../segformer
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise InputError(f"scene parsing by a checkpoint needs the library transformers: {EXTRA}.") from error
    kinds: dict[str, tuple[Any, type[SemanticCheckpoint | PanopticCheckpoint]]] = {
        "mask2former": (transformers.Mask2FormerForUniversalSegmentation, PanopticCheckpoint),
        "segformer": (transformers.SegformerForSemanticSegmentation, SemanticCheckpoint),
    }
    where = pick_device(device)
    folder = Path(checkpoint).expanduser()
    if checkpoint.startswith(("/", ".", "~")) and not folder.is_dir():
        raise MissingWeights(f"the checkpoint folder {checkpoint} does not exist: name a folder or a checkpoint.")
    source = str(folder) if folder.is_dir() else checkpoint
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        if config.model_type not in kinds:
            raise InputError(f"checkpoint {checkpoint} is a {config.model_type}: name a Mask2Former or a SegFormer.")
        processor = transformers.AutoImageProcessor.from_pretrained(source)
        architecture, parser = kinds[config.model_type]
        network, loading = architecture.from_pretrained(source, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingWeights(
            f"checkpoint {checkpoint} is neither a folder with config.json, preprocessor_config.json and weights "
            f"nor to be had by that name ({_first_line(error)}): check the name, or download it and name the folder."
        ) from error
    if absent := sorted(loading["missing_keys"]):
        raise MissingWeights(f"checkpoint {checkpoint} lacks {len(absent)} tensors, such as {absent[0]}: name another.")
    classes = tuple(class_name(config.id2label[index]) for index in range(len(config.id2label)))
    if classes[0] == "label_0":
        raise InputError(f"checkpoint {checkpoint} does not name its classes: add id2label to its config.json.")
    network = network.to(where).to(memory_format=torch.channels_last).eval()
    side = size or min(length for length in dict(processor.size).values() if length)
    return parser(network=network, processor=processor, classes=classes, size=side, device=where)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__

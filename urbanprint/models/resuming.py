"""A training that survives being killed: epochs one after the other, the best kept, a checkpoint to go on from.

What belongs here: what every training of a network does around its epochs. What an epoch does is for the training that
owns it; every random draw of it comes from (seed, epoch), so one that goes on from its checkpoint ends, on a CPU, with
the same weights.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from urbanprint.errors import InputError


class Epoch(Protocol):
    """What is known of every epoch; records are dataclasses that also hold `epoch`, `learning_rate` and `seconds`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def best(self) -> bool: ...

    @property
    def validation_loss(self) -> float: ...


class Settings(Protocol):
    """What the loop asks of a training's settings."""

    @property
    def epochs(self) -> int: ...

    @property
    def patience(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def checkpoint_seconds(self) -> float: ...


Record = TypeVar("Record", bound=Epoch)


class Resumable(Generic[Record]):
    """One training and its file `checkpoint`; `fingerprint` says which training the file is of.

    The file stays when training is done, so that asking for the same training again returns at once; one of another
    training is overwritten. Raises `InputError` for a damaged file.
    """

    def __init__(self, checkpoint: Path, fingerprint: str, record: Callable[..., Record]) -> None:
        self._checkpoint, self._fingerprint, self._record = checkpoint, fingerprint, record
        self._state = _read(checkpoint, fingerprint)
        self.history = [] if self._state is None else [record(**each) for each in self._state["history"]]

    @property
    def weights(self) -> str | None:
        """What to build the network with: "none" where the checkpoint has all of it, None for what is configured."""
        return None if self._state is None else "none"

    def finished(self, network: nn.Module, on_epoch: Callable[[Record], None] | None = None) -> bool:
        """Whether there is nothing left to do; the network then has the weights of the best epoch.

        `on_epoch` is told of the epochs the checkpoint holds.
        """
        for record in self.history:
            if on_epoch is not None:
                on_epoch(record)
        if self._state is None or not self._state["finished"]:
            return False
        network.load_state_dict(self._state["best"])
        return True

    def run(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        one_epoch: Callable[[int], Mapping[str, float]],
        *,
        config: Settings,
        on_epoch: Callable[[Record], None] | None = None,
    ) -> None:
        """Go on, or begin, until the epochs are over or `patience` of them were no better; keep the best weights.

        `one_epoch` trains and validates epoch n and returns what its record holds beside number, learning rate, seconds
        and `best`; the least `validation_loss` is the best, and every epoch is where it is NaN. Dropout may draw from
        the global generator, which is left as it was.
        """
        if self._state is not None:
            network.load_state_dict(self._state["network"])
            optimiser.load_state_dict(self._state["optimiser"])
        best = _copied(network) if self._state is None else self._state["best"]
        written = time.monotonic()
        while len(self.history) < config.epochs and _may_improve(self.history, patience=config.patience):
            number, started = len(self.history), time.monotonic()
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(epoch_seed(config.seed, number))
                measured = one_epoch(number)
            least = min((past.validation_loss for past in self.history), default=math.inf)
            improved = not measured["validation_loss"] >= least
            record = self._record(
                epoch=number,
                learning_rate=optimiser.param_groups[0]["lr"],
                seconds=time.monotonic() - started,
                best=improved,
                **measured,
            )
            self.history.append(record)
            best = _copied(network) if improved else best
            if time.monotonic() - written >= config.checkpoint_seconds:
                self._write(best, network=network.state_dict(), optimiser=optimiser.state_dict(), finished=False)
                written = time.monotonic()
            if on_epoch is not None:
                on_epoch(record)
        network.load_state_dict(best)
        self._write(best, finished=True)

    def _write(self, best: dict[str, Tensor], **state: Any) -> None:
        """Write the file; a reader sees the old one or the new one, never half of one."""
        records = [asdict(record) for record in self.history]
        beside = self._checkpoint.with_name(f".{self._checkpoint.name}.part")
        torch.save({"fingerprint": self._fingerprint, "history": records, "best": best, **state}, beside)
        beside.replace(self._checkpoint)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch of a training with `seed`."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _read(checkpoint: Path, fingerprint: str) -> dict[str, Any] | None:
    """The state to resume from; None where there is none, or it belongs to another training, which starts anew."""
    if not checkpoint.is_file():
        return None
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError, LookupError, ValueError) as error:
        raise InputError(f"checkpoint {checkpoint} is damaged ({type(error).__name__}): delete it.") from error
    return state if state["fingerprint"] == fingerprint else None


def _copied(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors by name, copied to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _may_improve(history: Sequence[Epoch], *, patience: int) -> bool:
    """Whether one of the last `patience` epochs was the best so far, or none has run."""
    return not history or any(past.best for past in history[-patience:])

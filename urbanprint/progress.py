"""Progress of long work on standard error: one bar a piece of work."""

from types import TracebackType
from typing import Any

from tqdm import tqdm


class Printed:
    """A progress callback (what, done, of) that draws a bar; a new `what` starts a new bar."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __call__(self, what: str, done: int, of: int) -> None:
        """Draw that `done` of `of` are done."""
        if self._bar is None or self._bar.desc.rstrip(": ") != what or self._bar.total != of:
            self.close()
            self._bar = tqdm(total=of, desc=what, unit="", mininterval=0.5, dynamic_ncols=True)
        self._bar.update(done - self._bar.n)
        if done == of:
            self.close()

    def close(self) -> None:
        """Finish the bar that is being drawn."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> "Printed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""Who is at work: a run is alive as long as it holds the lock on its own file.

The kernel frees the lock of a process that ends, SIGKILL included. So a claim on an image or a search is void from
that moment on, without time-outs, and nothing stays claimed by the dead.
"""

import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout


class Worker:
    """One run at work on a ledger while the context is open; `key` names it in claims."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.key = uuid.uuid4().hex
        self._path = _lock_file(folder, self.key)
        self._lock = FileLock(self._path, thread_local=False)

    def __enter__(self) -> Self:
        self._lock.acquire(blocking=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Removed while still held: a lock file that is not there means a worker that is not there.
        self._path.unlink(missing_ok=True)
        self._lock.release()


def is_alive(folder: Path, key: str) -> bool:
    """Whether the worker `key` still holds its lock; the file of a dead one is removed."""
    path = _lock_file(folder, key)
    if not path.exists():
        return False
    try:
        # Another run that asks at the same moment makes a dead worker look alive: it asks again a moment later.
        with FileLock(path, thread_local=False).acquire(blocking=False):
            path.unlink(missing_ok=True)
    except Timeout:
        return True
    return False


def _lock_file(folder: Path, key: str) -> Path:
    return folder / f"{key}.lock"

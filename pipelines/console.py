"""What a run prints on a terminal: a line a step, warnings, and no traceback for a user's mistake."""

import logging
import sys

import dagster as dg

_MARKS = {
    dg.DagsterEventType.STEP_SUCCESS: "done",
    dg.DagsterEventType.STEP_FAILURE: "FAILED",
    dg.DagsterEventType.STEP_SKIPPED: "skipped",
    dg.DagsterEventType.STEP_UP_FOR_RETRY: "to be tried again",
}


class _Lines(logging.Handler):
    """Prints the end of each step and what assets log as warnings; the full log is in the web UI."""

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is None:
            # Dagster's own notes on steps it leaves out are errors; what an asset wants to be read is a warning.
            if record.levelno == logging.WARNING:
                print(f"  {meta.get('orig_message', record.getMessage())}", file=sys.stderr)
            return
        step = event.step_key or ""
        mark = _MARKS.get(event.event_type)
        if mark and not step.endswith("_schema"):
            seconds = f"{event.step_success_data.duration_ms / 1000:6.1f} s" if mark == "done" else ""
            print(f"  {step:<28} {mark} {seconds}".rstrip(), file=sys.stderr)


@dg.logger
def terminal(_context: dg.InitLoggerContext) -> logging.Logger:
    """Return a logger that prints what a person at a terminal wants to see."""
    logger = logging.Logger("urbanprint.terminal", level=logging.DEBUG)  # Dagster logs step events at DEBUG
    logger.addHandler(_Lines())
    return logger

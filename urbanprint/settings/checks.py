"""How a record refuses a value: which key, what was expected, what was found. Who reads the file names the table."""


class RejectedValue(Exception):
    """A value a record refuses: (key, what was expected, what was found)."""


def require(held: bool, key: str, expected: str, found: object) -> None:
    """Raise `RejectedValue` unless the condition held."""
    if not held:
        raise RejectedValue(key, expected, found)

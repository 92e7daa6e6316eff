"""Every error this project raises on purpose: a user can read each as one sentence that says what to do.

An error names the file, column, row, key or id, says what was expected, and what to do about it. The command line
prints the sentence without a traceback. Anything that is not an `UrbanprintError` is a bug.
"""


class UrbanprintError(Exception):
    """Base of all errors meant for users."""


class CatalogueError(UrbanprintError):
    """A mistake in the city catalogue; the message names the table and the key."""


class InputError(UrbanprintError):
    """A file or table from outside is not what was expected; the message names file, column, row or id."""


class DownloadError(UrbanprintError):
    """A file could not be fetched completely or its bytes are not the expected ones."""


class SourceError(UrbanprintError):
    """An imagery provider refused, failed for good, or answered something that is not its protocol."""


class BudgetSpent(UrbanprintError):
    """The budget of paid requests is spent; the message says how many there were and what to do to go on."""


class MissingSecret(UrbanprintError):
    """An access token or key is needed and not set; the message names the environment variable."""


class MissingWeights(UrbanprintError):
    """Model weights are neither on this machine nor to be had; the message says where to put them."""


class MissingImages(UrbanprintError):
    """Too few images for the step asked for; the message says how many there are and what was needed."""


class LeakingSplit(UrbanprintError):
    """A split lets training see what it is tested on; the message names the offending units."""

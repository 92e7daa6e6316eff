"""Which parser a country asks for, and whether it can be had: known before the first image is fetched.

Imports nothing heavy, so that asking is cheap.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from urbanprint.errors import InputError
from urbanprint.settings import Country, Scenes
from urbanprint.sources.providers import terms_of

if TYPE_CHECKING:
    from urbanprint.scenes.parsing import Parser

COMPACT = "compact"
"""The name of the parser that is part of the package."""


def load_parser(scenes: Scenes) -> "Parser":
    """The parser of a country. Raises `InputError` and `MissingWeights` as `load_checkpoint` does."""
    from urbanprint.scenes.checkpoints import load_checkpoint
    from urbanprint.scenes.compact import load_compact

    return load_compact() if scenes.parser == COMPACT else load_checkpoint(scenes.parser)


def require_pixels(country: Country) -> None:
    """Raise `InputError` where the images of a country could be fetched but not be looked at afterwards."""
    if not terms_of(country.imagery).may_store:
        raise InputError(
            f"The terms of {country.imagery.provider} do not allow keeping pixels, which every learner of {country.key}"
            " looks at: name another imagery source."
        )
    parses = country.scenes.detections is None and country.scenes.parser != COMPACT
    if parses and find_spec("transformers") is None:
        raise InputError(
            f"{country.key} is to be parsed by {country.scenes.parser}, which needs the library transformers:"
            " pip install 'urbanprint[scenes]', or name published detections."
        )

"""The partitions of the graph: a city or a country each, a world each, and a grid level of a world each.

Read once when the code location loads: they are its structure. A mistake in the catalogue is therefore one
sentence at load time.
"""

import dagster as dg

from urbanprint.catalogue import read_catalogue

_CATALOGUE = read_catalogue()

CITIES = dg.StaticPartitionsDefinition(list(_CATALOGUE.places))
WORLDS = dg.StaticPartitionsDefinition(list(_CATALOGUE.worlds))
WORLD_LEVELS = dg.StaticPartitionsDefinition(
    [partition for world in _CATALOGUE.worlds.values() for partition in world.levels]
)
"""`planet-L1`, `planet-L3` and so on: one dimension, as several are not well supported everywhere."""

TO_LEVELS = dg.StaticPartitionMapping({world.key: list(world.levels) for world in _CATALOGUE.worlds.values()})
"""From a world to its levels: a level is made from its world."""
FROM_LEVELS = dg.StaticPartitionMapping(
    {level: world.key for world in _CATALOGUE.worlds.values() for level in world.levels}
)
"""From the levels to their world: it is judged when all of them are made."""

"""The partitions of the graph: a city or a country each, from the catalogue.

Read once when the code location loads: they are its structure. A mistake in the catalogue is therefore one
sentence at load time.
"""

import dagster as dg

from urbanprint.catalogue import read_catalogue

CITIES = dg.StaticPartitionsDefinition(list(read_catalogue().places))

"""The partitions of the graph: one city each, from the catalogue.

Read once when the code location loads: the cities are its structure. A mistake in the catalogue is therefore one
sentence at load time.
"""

import dagster as dg

from urbanprint.catalogue import read_catalogue

CITIES = dg.StaticPartitionsDefinition(list(read_catalogue().cities))

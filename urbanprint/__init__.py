"""How people live in a city, from published statistics and open imagery.

The library: pure Python, no orchestrator, no experiment tracker, usable in a notebook. Import the module you need
(`urbanprint.areas`, `urbanprint.evaluation.splits`, ...); importing the package itself loads nothing heavy.
"""

__version__ = "0.1.0"

"""Makes the top-level package `tools` importable, and the emulators of object stores usable."""

import sys
from pathlib import Path

from tests.stores.conftest import azurite_url, moto_url

__all__ = ["azurite_url", "moto_url"]

sys.path.insert(0, str(Path(__file__).parents[3]))

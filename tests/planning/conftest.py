"""The same sample project and components as the tests of the declaration."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("project_conftest", Path(__file__).parent.parent / "project/conftest.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
_components, write, sample = _module._components, _module.write, _module.sample

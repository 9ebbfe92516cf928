"""The functions of a project: found by name, and sent to other processes."""

import os
import pickle

import pytest

from lodestream.engines.embedded.python_step import Functions
from lodestream.errors import ConfigError


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "functions" / "shop" / "clean.py"
    path.parent.mkdir(parents=True)
    path.write_text("import threading\nlock = threading.Lock()\nnumber = 1\n\ndef f(rows):\n    return number\n")
    return Functions(str(tmp_path))


def test_a_file_is_loaded_once(functions):
    assert functions("shop.clean:f") is functions("shop.clean:f")


@pytest.mark.parametrize(
    ("name", "said"), [("shop.clear:f", "no such functions file"), ("shop.clean:number", "no such")]
)
def test_what_is_not_there(functions, name, said):
    with pytest.raises(ConfigError, match=said):
        functions(name)


def test_another_process_loads_a_file_again_when_it_has_changed(functions, tmp_path):
    functions("shop.clean:f")  # holds a lock, which cannot be sent
    first, again = (pickle.loads(pickle.dumps(functions)) for _ in range(2))
    assert first is again
    assert first("shop.clean:f")(None) == 1
    path = tmp_path / "functions" / "shop" / "clean.py"
    path.write_text("def f(rows):\n    return 2\n")
    os.utime(path, ns=(1, 1))
    changed = pickle.loads(pickle.dumps(functions))
    assert changed("shop.clean:f")(None) == 2

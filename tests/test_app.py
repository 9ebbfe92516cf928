"""References in settings are resolved when a component is made, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lodestream.app import resolved
from lodestream.errors import ConfigError
from tests.engines.lakes import Lab


def test_references_become_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOLDER", "events")
    (tmp_path / "secret").write_text("s3cret\n")
    given = {"path": "${env:FOLDER}/a", "keys": ["${file:" + str(tmp_path / "secret") + "}"], "rows": 3}
    assert resolved(given) == {"path": "events/a", "keys": ["s3cret"], "rows": 3}


@pytest.mark.parametrize("text", ["${env:NO_SUCH_VARIABLE}", "${file:/no/such/file}"])
def test_a_missing_reference_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"NO_SUCH_VARIABLE|/no/such/file"):
        resolved({"path": text})


def test_a_source_gets_the_value_and_the_lake_keeps_the_reference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FOLDER", "events")
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", "source: {files: {path: '${env:FOLDER}', settle: 0 seconds}}\ncolumns: {id: string}\n")
    lab.events([{"id": "a"}])
    lab.run()
    assert lab.rows("bronze.e", "id") == [{"id": "a"}]
    assert "${env:FOLDER}" in lab.delta("bronze.e").snapshot.metadata.configuration["lodestream.definition"]

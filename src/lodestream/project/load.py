"""Reads a project folder: `lodestream.yaml`, `policies.yaml` and `tables/<layer>/<name>.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path as FilePath
from types import MappingProxyType

from lodestream.model.diagnostic import Place
from lodestream.model.policy import Policies
from lodestream.model.project import Path, Project
from lodestream.model.table import LAYERS, Table, TableName
from lodestream.project.components import connected
from lodestream.project.config import read_config
from lodestream.project.mistakes import Mistakes, ProjectError, nearest
from lodestream.project.nodes import from_yaml
from lodestream.project.policies import POLICY_FILE, read_policies
from lodestream.project.rules import check_project
from lodestream.project.tables import TableReading, read_table
from lodestream.project.values import NAME

CONFIG_FILE = "lodestream.yaml"


def load_project(root: str, environment: str | None = None) -> Project:
    """The project declared in a folder; with `environment`, its lake is that environment's.

    Raises:
        ProjectError: all mistakes that can be seen without knowing columns. To have those of planning in the same
            report, use `read_project` and hand its project to `compile_project`.
    """
    project = read_project(root, environment)
    if project.mistakes:
        raise ProjectError(project.mistakes)
    return project


def read_project(root: str, environment: str | None = None) -> Project:
    """The project declared in a folder as far as it can be read; `mistakes` says what is wrong with it.

    Raises:
        ProjectError: there is no `lodestream.yaml`.
    """
    folder = FilePath(root).absolute()
    mistakes = Mistakes()
    config = folder / CONFIG_FILE
    if not config.is_file():
        mistakes.add(Place(CONFIG_FILE, 1), "D115", "no project here", folder=folder)
        mistakes.raise_any()
    node = from_yaml(config.read_bytes(), CONFIG_FILE, mistakes)
    base = read_config(node, folder, mistakes)
    if environment is not None:
        base = _in_environment(base, environment, mistakes)
    base = _with_policies(base, folder, mistakes)
    readings: dict[TableName, TableReading] = {}
    for file in _table_files(folder, mistakes):
        relative = file.relative_to(folder).as_posix()
        name = _name_of(file, folder, mistakes)
        if name is None:
            continue
        node = from_yaml(file.read_bytes(), relative, mistakes)
        if node is None:
            place = Place(relative, 1)
            readings[name] = TableReading(Table(name=name, declared_at=place), {(): place}, frozenset("*"))
        else:
            readings[name] = read_table(name, node, mistakes)
    return assemble(base, readings.values(), mistakes)


def reread_policies(project: Project) -> Project:
    """The project with its `policies.yaml` as it is now; mistakes of that file come with it and no others.

    A project that was never in files keeps the policies that it has.
    """
    folder = FilePath(project.root)
    if not (folder / POLICY_FILE).is_file() and not project.policy_locations:
        return replace(project, mistakes=())
    mistakes = Mistakes()
    empty = replace(project, policies=Policies(), policy_locations=MappingProxyType({}))
    return replace(_with_policies(empty, folder, mistakes), mistakes=tuple(mistakes.found))


def assemble(base: Project, readings: Iterable[TableReading], mistakes: Mistakes) -> Project:
    """A project of tables, checked against each other; it carries the mistakes."""
    tables: dict[TableName, Table] = {}
    locations: dict[tuple[TableName, Path], Place] = {}
    unsure: dict[TableName, frozenset[str]] = {}
    for reading in sorted(readings, key=lambda one: one.table.name):
        name = reading.table.name
        tables[name] = connected(reading.table, base.connections)
        locations |= {(name, path): place for path, place in reading.locations.items()}
        unsure[name] = reading.unsure
    project = replace(base, tables=MappingProxyType(tables), locations=MappingProxyType(locations), unsure=unsure)
    for name in check_project(project, mistakes):
        unsure[name] = unsure[name] | {"*"}
    return replace(project, unsure=MappingProxyType(unsure), mistakes=tuple(mistakes.found))


def _with_policies(base: Project, folder: FilePath, mistakes: Mistakes) -> Project:
    """The project with what `policies.yaml` declares, if there is one."""
    file = folder / POLICY_FILE
    if not file.is_file():
        if (other := folder / "policies.yml").is_file():
            mistakes.add(
                Place(other.name, 1), "D112", "the policies' file ends in .yaml", nearest=POLICY_FILE, fix="rename it"
            )
        return base
    node = from_yaml(file.read_bytes(), POLICY_FILE, mistakes)
    if node is None or node.value is None:
        return base
    policies, locations = read_policies(node, mistakes)
    return replace(base, policies=policies, policy_locations=MappingProxyType(locations))


def _in_environment(base: Project, environment: str, mistakes: Mistakes) -> Project:
    if environment in base.environments:
        return replace(base, lake=base.lake_of(environment), store=base.environments[environment].store)
    near, fix = nearest(environment, base.environments), f"declared: {', '.join(base.environments) or 'none'}"
    mistakes.add(Place(CONFIG_FILE, 1), "D116", "no such environment", environment=environment, nearest=near, fix=fix)
    return base


def _table_files(folder: FilePath, mistakes: Mistakes) -> list[FilePath]:
    root = folder / "tables"
    if not root.is_dir():
        mistakes.add(
            Place(CONFIG_FILE, 1), "D112", "no tables", fix="make a folder tables/bronze with one file per table"
        )
        return []
    found = []
    for file in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
        if file.is_dir() or hidden or file.suffix not in (".yaml", ".yml"):
            continue
        found.append(file)
    return found


def _name_of(file: FilePath, folder: FilePath, mistakes: Mistakes) -> TableName | None:
    """The table that a file declares, by its place."""
    parts = file.relative_to(folder / "tables").parts
    place = Place(file.relative_to(folder).as_posix(), 1)
    if file.suffix != ".yaml":
        renamed = file.relative_to(folder).with_suffix(".yaml").as_posix()
        mistakes.add(place, "D112", "table files end in .yaml", nearest=renamed, fix="rename the file")
        return None
    if len(parts) != 2 or parts[0] not in LAYERS:
        layer = nearest(parts[0], LAYERS) if len(parts) == 2 else None
        moved = f"tables/{layer}/{parts[1]}" if layer else None
        mistakes.add(place, "D112", "no such layer", nearest=moved)
        return None
    if not NAME.fullmatch(file.stem):
        near = file.stem.lower().replace("-", "_").replace(" ", "_").strip("_")
        good = near if NAME.fullmatch(near) else None
        mistakes.add(place, "D110", "not a table name", table=file.stem, nearest=good, fix="rename the file")
        return None
    if file.stem.endswith("__quarantine"):
        mistakes.add(place, "D111", "this name is taken by a quarantine", table=file.stem, fix="rename the file")
        return None
    return TableName(parts[0], file.stem)

"""A project as a bundle for Databricks: the files, and what a person has to know of them.

The bundle is made from the declarations alone, so the same project gives the same bytes.
"""

from __future__ import annotations

import inspect
import io
import os
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML

from lodestream.deploy import maintenance
from lodestream.deploy.jobs import STREAM, batch_job, rewritten, split, stream_job, zorder
from lodestream.deploy.portable import differences, refusals
from lodestream.deploy.spot import SpotShare, first_on_demand, spot_shares
from lodestream.model.diagnostic import Diagnostic, Place
from lodestream.model.project import Project
from lodestream.model.table import LAYERS
from lodestream.planning.compile import Plans
from lodestream.project.deploying import DatabricksSettings, TargetSettings, databricks
from lodestream.project.load import CONFIG_FILE
from lodestream.project.mistakes import Mistakes
from lodestream.project.policies import POLICY_FILE
from lodestream.version import VERSION

NEVER_DEPLOYED = "never deployed: no workspace has seen it; it was checked against our own description of its keys only"
MAIN = "databricks.yml"

_FOLDERS = {"tables": (".yaml",), "schemas": (), "functions": (".py",)}
"""What of a project's folders goes along; no suffix means every file."""

_SPARK = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # Spark's own default, INT96, has no time zone: other readers of the lake take it for another type
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}

_TARGETS = {"dev": "development", "prod": "production"}
_CREDENTIALS = ("account_key", "sas_token", "client_id")
_HOME = "/tmp/lodestream"
_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_NAME = re.compile(r"[^A-Za-z0-9_]+")
_URL = re.compile(r"abfss://")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle before it is written.

    Attributes:
        name: of the bundle.
        files: content by path relative to the bundle's folder.
        jobs: names of the jobs, the stream first.
        shares: spot machines by size of a cluster.
        notes: what a person has to see to.
        secrets: names of the secrets that the scope must hold.
        scope: of the secrets.
    """

    name: str
    files: Mapping[str, bytes]
    jobs: tuple[str, ...]
    shares: tuple[SpotShare, ...]
    notes: tuple[Diagnostic, ...]
    secrets: tuple[str, ...]
    scope: str


def make_bundle(project: Project, plans: Plans) -> Bundle:
    """The bundle of a project.

    Args:
        project: its declarations, without mistakes.
        plans: its tables, compiled for Spark.

    Raises:
        ProjectError: a table cannot run there, or a setting names what is not there.
    """
    settings = databricks(project.deploy)
    mistakes, notes = Mistakes(), Mistakes()
    refusals(project, plans, mistakes)
    differences(project, notes)
    stream, batches = split(project, settings, mistakes)
    ordered = zorder(project, plans.flows, settings, mistakes)
    mistakes.raise_any()
    copied = _copied(FilePath(project.root))
    referred = {match.groups() for text in _texts(_looked_up(project)) for match in _REFERENCE.finditer(text)}
    secrets = sorted(name for kind, name in referred if kind == "env")
    _files_of_this_machine(copied, {name for kind, name in referred if kind == "file"}, notes)
    name = settings.name or _NAME.sub("_", project.name)
    scope = settings.secret_scope or name
    jobs = {STREAM: stream_job(project, stream)} if stream else {}
    for batch in batches:
        if (job := batch_job(project, batch, plans.flows, settings, ordered)) is not None:
            jobs[batch.name] = job
    head = _header(project)
    files = {MAIN: head + _yaml(_main(project, settings, name, [f"{scope}/{one}" for one in secrets], notes))}
    for key, job in jobs.items():
        files[f"resources/{key}.yml"] = head + _yaml({"resources": {"jobs": {key: job}}})
    files["resources/schemas.yml"] = head + _yaml({"resources": _unity(project)})
    files["resources/compute.yml"] = head + _yaml({"resources": _compute(project, settings)})
    files["maintenance.py"] = inspect.getsource(maintenance)
    for one, plan in plans.flows.items():
        if rewritten(plan.table):
            fix = "leave it, or use emit: final"
            notes.add(project.place(one, "emit"), "N106", "open windows change: not optimized", table=one, fix=fix)
    written = {path: text.encode() for path, text in files.items()}
    written |= {f"project/{path}": data for path, data in copied.items()}
    shares = spot_shares(settings.workers_min, settings.workers_max, settings.spot_ratio)
    found = sorted(notes.found, key=lambda one: (one.file, one.line))
    return Bundle(name, dict(sorted(written.items())), tuple(jobs), tuple(shares), tuple(found), tuple(secrets), scope)


def _header(project: Project) -> str:
    return (
        f"# Written by `lodestream deploy databricks` {VERSION} from the project {project.name}.\n"
        "# Change the project and write it again; a file that was edited is not overwritten.\n"
        f"# {NEVER_DEPLOYED[0].upper()}{NEVER_DEPLOYED[1:]}.\n"
    )


def _yaml(value: Mapping[str, Any]) -> str:
    """YAML 1.2 with the keys in the order that they have."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.width = 4096
    out = io.StringIO()
    writer.dump(value, out)
    return out.getvalue()


def _main(
    project: Project, settings: DatabricksSettings, name: str, secrets: list[str], notes: Mistakes
) -> dict[str, Any]:
    lake: dict[str, Any] = {"description": "URL of the lake, abfss://container@account.dfs.core.windows.net/folder"}
    targets = {}
    for key, mode in _TARGETS.items():
        chosen: TargetSettings = getattr(settings.targets, key)
        variables = {
            "catalog": chosen.catalog or _NAME.sub("_", project.name) + ("_dev" if key == "dev" else ""),
            "environment": _environment(project, key),
            "pause_status": "PAUSED" if key == "dev" else "UNPAUSED",
        }
        if (url := _lake(project, key, chosen)) is not None:
            variables["lake"] = url
        else:
            fix = f'deploy with --var="lake=abfss://…", or set deploy.databricks.targets.{key}.lake'
            notes.add(Place(CONFIG_FILE, 1), "N106", f"no URL of a lake for {key}", fix=fix)
        if not any(name in _store(project, key) for name in _CREDENTIALS):
            fix = (
                "put tenant_id, client_id and client_secret under lake:, each as ${env:NAME}; Unity Catalog lends none"
            )
            notes.add(Place(CONFIG_FILE, 1), "N106", f"no credentials for the lake of {key}", fix=fix)
        targets[key] = _target(key, mode, chosen) | {"variables": variables}
    return {
        "bundle": {"name": name},
        "include": ["resources/*.yml"],
        "variables": {
            "catalog": {"description": "Catalog of Unity Catalog; it must be there."},
            "lake": lake,
            "environment": {"description": "Which of the project's environments the jobs run in; empty for none."},
            "pause_status": {"description": "PAUSED or UNPAUSED: whether jobs start by themselves."},
            "cluster": {
                "description": "The cluster of every job; it ends with its run, so it has no auto-stop.",
                "type": "complex",
                "default": _cluster(project, settings, secrets),
            },
        },
        "targets": targets,
    }


def _target(key: str, mode: str, chosen: TargetSettings) -> dict[str, Any]:
    target: dict[str, Any] = {"mode": mode} | ({"default": True} if key == "dev" else {})
    workspace = {}
    if chosen.host is not None and chosen.host.startswith("https://"):
        workspace["host"] = chosen.host
    if key == "prod":  # one copy, whoever deploys it
        workspace["root_path"] = "/Workspace/Shared/.bundle/${bundle.name}/${bundle.target}"
    target |= {"workspace": workspace} if workspace else {}
    return target | ({"run_as": {"service_principal_name": chosen.run_as}} if chosen.run_as else {})


def _lake(project: Project, target: str, chosen: TargetSettings) -> str | None:
    environment = project.environments.get(target)
    for url in (chosen.lake, environment.lake if environment else None, project.lake):
        if url is not None and _URL.match(url):
            return url
    return None


def _environment(project: Project, target: str) -> str:
    """The environment that a target runs in: that of its name, if its lake is in a store; empty for none."""
    found = project.environments.get(target)
    return target if found is not None and (found.store or _URL.match(found.lake)) else ""


def _store(project: Project, target: str) -> Mapping[str, Any]:
    """How the lake of a target is reached."""
    name = _environment(project, target)
    return project.environments[name].store if name else project.store


def _cluster(project: Project, settings: DatabricksSettings, secrets: list[str]) -> dict[str, Any]:
    on_demand = first_on_demand(settings.workers_max, settings.spot_ratio)
    azure: dict[str, Any] = {"availability": "ON_DEMAND_AZURE"}
    if on_demand is not None:
        azure = {"availability": "SPOT_WITH_FALLBACK_AZURE", "first_on_demand": on_demand}
    cluster: dict[str, Any] = {
        "spark_version": settings.runtime,
        "node_type_id": settings.node_type,
        "driver_node_type_id": settings.driver_node_type or settings.node_type,
        "autoscale": {"min_workers": settings.workers_min, "max_workers": settings.workers_max},
        "azure_attributes": azure,
        "runtime_engine": "PHOTON" if settings.photon else "STANDARD",
        "data_security_mode": "SINGLE_USER",
        "spark_conf": dict(_SPARK),
    }
    variables = {one.rpartition("/")[2]: f"{{{{secrets/{one}}}}}" for one in secrets}
    cluster["spark_env_vars"] = {"LODESTREAM_HOME": _HOME} | variables
    return cluster | {"custom_tags": {"lodestream": project.name}}


def _looked_up(project: Project) -> list[object]:
    """The settings that a run resolves: of the lake and of what it reads with, not of servers and sinks."""
    found: list[object] = [project.registries, project.catalog, *(_store(project, target) for target in _TARGETS)]
    for table in project.tables.values():
        found += [one.settings for one in (table.source, table.format) if one is not None]
    return found


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _files_of_this_machine(copied: Mapping[str, bytes], names: Set[str], notes: Mistakes) -> None:
    for path, data in copied.items():
        for i, line in enumerate(data.decode("utf-8", "replace").splitlines() if path.endswith(".yaml") else (), 1):
            for kind, name in _REFERENCE.findall(line):
                if kind == "file" and name in names:
                    fix = "read it from the environment, ${env:NAME}: its value comes from the secret of that name"
                    notes.add(Place(path, i), "N106", f"reads a file that clusters do not have: {name}", fix=fix)


def _unity(project: Project) -> dict[str, Any]:
    """A schema for each layer, and one with the volume in which streams keep how far they are."""
    comments: dict[str, str] = {layer: f"The {layer} tables of {project.name}." for layer in LAYERS}
    comments["lodestream"] = f"What runs {project.name}, no tables."
    schemas = {
        name: {"catalog_name": "${var.catalog}", "name": name, "comment": text} for name, text in comments.items()
    }
    volume = {
        "catalog_name": "${var.catalog}", "schema_name": "${resources.schemas.lodestream.name}", "name": "checkpoints",
        "volume_type": "MANAGED", "comment": "How far each stream is. Without it no table goes on: keep it.",
    }  # fmt: skip
    return {"schemas": schemas, "volumes": {"checkpoints": volume}}


def _compute(project: Project, settings: DatabricksSettings) -> dict[str, Any]:
    """What people ask with; it stops by itself."""
    warehouse = {
        "name": project.name,
        "cluster_size": settings.warehouse_size,
        "warehouse_type": "PRO",
        "min_num_clusters": 1,
        "max_num_clusters": 1,
        "auto_stop_mins": settings.auto_stop_minutes,
        "enable_photon": settings.photon,
        "spot_instance_policy": "COST_OPTIMIZED" if settings.spot_ratio else "RELIABILITY_OPTIMIZED",
    }
    found: dict[str, Any] = {"sql_warehouses": {"lodestream": warehouse}}
    if settings.shared_cluster:
        cluster = {"cluster_name": project.name} | _cluster(project, settings, [])
        cluster["data_security_mode"] = "USER_ISOLATION"
        found["clusters"] = {"shared": cluster | {"autotermination_minutes": settings.auto_stop_minutes}}
    return found


def _copied(root: FilePath) -> dict[str, bytes]:
    """The declarations, which go along as they are; data does not."""
    found = {name: (root / name).read_bytes() for name in (CONFIG_FILE, POLICY_FILE) if (root / name).is_file()}
    for folder, suffixes in _FOLDERS.items():
        for at, folders, names in os.walk(root / folder):
            folders[:] = [one for one in folders if not one.startswith((".", "__"))]
            for name in names:
                path = FilePath(at, name)
                if not name.startswith(".") and (not suffixes or path.suffix in suffixes):
                    found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found

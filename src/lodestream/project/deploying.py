"""What `deploy:` in lodestream.yaml may say: the clusters, schedules and names of a Databricks bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from lodestream.model.diagnostic import Place
from lodestream.model.project import Path
from lodestream.ports.settings import Settings
from lodestream.project.components import check_settings
from lodestream.project.fields import Fields
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import Node
from lodestream.project.quartz import check_quartz
from lodestream.project.values import parse_duration

_MINUTE, _DAY = 60_000_000, 86_400_000_000
_HOST = "${env:DATABRICKS_HOST}"

WarehouseSize = Literal[
    "2X-Small", "X-Small", "Small", "Medium", "Large", "X-Large", "2X-Large", "3X-Large", "4X-Large"
]


class SchedulesSettings(Settings):
    """When the batch jobs start, as Quartz schedules in UTC."""

    hourly: str = "0 5 * * * ?"
    """Refreshes the tables of the hourly job."""
    daily: str = "0 30 2 * * ?"
    """Refreshes the daily tables, registers all in Unity Catalog, optimizes them."""
    weekly: str = "0 30 4 ? * SUN"
    """Refreshes the weekly tables, vacuums all."""

    @field_validator("hourly", "daily", "weekly")
    @classmethod
    def _quartz(cls, text: str) -> str:
        try:
            return check_quartz(text)
        except ValueError as error:
            raise PydanticCustomError("D501", "{said}", {"said": str(error)}) from None


class TargetSettings(Settings):
    """What differs in one target."""

    host: str | None = None
    """Workspace, `https://…`; without, the Databricks CLI takes `DATABRICKS_HOST` or its profile."""
    catalog: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Catalog of Unity Catalog; without, the project's name, in `dev` with `_dev` after it."""
    lake: str | None = Field(default=None, pattern=r"^abfss://[^@/`'\s]+@[^/`'\s]+(/[^`'\s]*)?$")
    """URL of the lake, `abfss://…`; without, that of the environment of this name, or of the project, or asked for."""
    run_as: str | None = None
    """Application id of the service principal that the jobs run as; without, whoever deploys."""

    @field_validator("host")
    @classmethod
    def _host(cls, text: str | None) -> str | None:
        if text is not None and "${" not in text and not re.fullmatch(r"https://[A-Za-z0-9.-]+/?", text):
            raise PydanticCustomError("D503", "not the address of a workspace")
        return text


class TargetsSettings(Settings):
    """The two targets of the bundle."""

    dev: TargetSettings = TargetSettings()
    """For trying: nothing runs by itself, and the CLI puts the deployer's name before every resource's."""
    prod: TargetSettings = TargetSettings()
    """The one that runs by itself."""


class DatabricksSettings(Settings):
    """A bundle for Azure Databricks, `lodestream deploy databricks`."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name of the bundle; without, the project's."""
    targets: TargetsSettings = TargetsSettings()
    """Workspaces, catalogs and lakes."""
    runtime: str = Field(default="17.3.x-scala2.13", pattern=r"^\d+\.\d+\.x-scala\d\.\d+$")
    """Databricks Runtime; 17.3 LTS has Spark 4.0."""
    photon: bool = True
    """Whether clusters and warehouse run Photon."""
    node_type: str = "Standard_E8ds_v5"
    """Azure machine of the workers."""
    driver_node_type: str | None = None
    """Azure machine of the driver; without, that of the workers."""
    workers_min: int = Field(default=2, ge=1)
    """Workers of a cluster at least."""
    workers_max: int = Field(default=50, ge=1)
    """Workers of a cluster at most."""
    spot_ratio: float = Field(default=0.7, ge=0, le=1)
    """Share of spot machines that a cluster has at its largest. Azure knows no share: smaller clusters have less."""
    auto_stop: str = "10 minutes"
    """Idle time after which the SQL warehouse and the shared cluster stop. Job clusters end with their run."""
    warehouse_size: WarehouseSize = "Small"
    """Size of the SQL warehouse."""
    shared_cluster: bool = False
    """Whether there is an all-purpose cluster for people, too."""
    secret_scope: str | None = None
    """Scope of the secrets that become the variables of `${env:NAME}` in declarations; without, the bundle's name."""
    queries: Literal["hourly", "stream"] = "hourly"
    """Which job refreshes `sql:` tables without a schedule: the hourly one, or the stream whenever inputs change."""
    schedules: SchedulesSettings = SchedulesSettings()
    """When the batch jobs start."""
    zorder: dict[str, list[str]] = Field(default_factory=dict)
    """Columns to order a table's files by; without, event time and keys, `[]` for none."""
    vacuum_after: str = "7 days"
    """Age from which files that no version needs any more are deleted; 7 days at least."""

    @field_validator("workers_max")
    @classmethod
    def _most(cls, most: int, info: ValidationInfo) -> int:
        if most < (least := info.data.get("workers_min", 1)):
            raise PydanticCustomError("D502", "workers_max is less than workers_min", {"least": least})
        return most

    @field_validator("auto_stop")
    @classmethod
    def _stop(cls, text: str) -> str:
        micros = parse_duration(text)
        if micros % _MINUTE or not 10 * _MINUTE <= micros <= 10_000 * _MINUTE:
            raise ValueError("auto-stop counts whole minutes, from 10 to 10000")
        return text

    @field_validator("vacuum_after")
    @classmethod
    def _age(cls, text: str) -> str:
        if parse_duration(text) < 7 * _DAY:
            raise ValueError("files younger than 7 days may still be read or written")
        return text

    @property
    def auto_stop_minutes(self) -> int:
        """`auto_stop` in minutes."""
        return parse_duration(self.auto_stop) // _MINUTE

    @property
    def vacuum_after_hours(self) -> int:
        """`vacuum_after` in hours, rounded up."""
        return -(-parse_duration(self.vacuum_after) // (60 * _MINUTE))


def read_deploy(node: Node | None, mistakes: Mistakes) -> tuple[dict[str, Any], dict[Path, Place]]:
    """What `deploy:` says, checked, and where each value stands."""
    if node is None:
        return {}, {}
    fields = Fields(node, ("databricks",), mistakes, "deploy")
    block = fields.nodes.get("databricks")
    if block is None or block.value is None:
        return {}, {}
    plain = block.plain()
    if not isinstance(plain, dict):
        Fields(block, (), mistakes, "databricks")
        return {}, {}
    check_settings(DatabricksSettings, "databricks", plain, block, block.place, mistakes)
    _refuse_references(block, mistakes)
    return {"databricks": plain}, block.places()


def _refuse_references(node: Node, mistakes: Mistakes) -> None:
    """A bundle is written once for whoever deploys it, so nothing of its own can be looked up."""
    if isinstance(node.value, str) and "${" in node.value and node.value != _HOST:
        fix = "write the value; only host: may be ${env:DATABRICKS_HOST}, which the CLI reads"
        mistakes.add(node.place, "D203", "a bundle is written with values, not references", value=node.value, fix=fix)
    inner = node.value if isinstance(node.value, list) else node.value.values() if isinstance(node.value, dict) else ()
    for one in inner:
        _refuse_references(one, mistakes)


def databricks(deploy: Mapping[str, Any]) -> DatabricksSettings:
    """The settings of the bundle. Raises pydantic.ValidationError for what is not possible."""
    return DatabricksSettings(**deploy.get("databricks", {}))

"""The keys of a Databricks bundle that we write, and what each may be.

Written from the public descriptions of the bundle configuration and the Jobs, Clusters and SQL Warehouses APIs. It
knows only what we use; a key that is not here may be good all the same, but nobody has looked at it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lodestream.ports.settings import Settings
from lodestream.project.deploying import WarehouseSize
from lodestream.project.quartz import check_quartz


class Part(Settings):
    """A mapping of a bundle: nothing is converted, since YAML says what a value is."""

    model_config = ConfigDict(strict=True)


class Autoscale(Part):
    """Bounds of a cluster's workers."""

    min_workers: int = Field(ge=0)
    max_workers: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Autoscale:
        if self.max_workers < self.min_workers:
            raise PydanticCustomError("D502", "max_workers is less than min_workers")
        return self


class AzureAttributes(Part):
    """On-demand and spot machines."""

    availability: Literal["ON_DEMAND_AZURE", "SPOT_AZURE", "SPOT_WITH_FALLBACK_AZURE"]
    first_on_demand: int | None = Field(default=None, ge=1)


class NewCluster(Part):
    """A job cluster; it ends with its run."""

    spark_version: str
    node_type_id: str
    driver_node_type_id: str | None = None
    autoscale: Autoscale
    azure_attributes: AzureAttributes
    runtime_engine: Literal["PHOTON", "STANDARD"]
    data_security_mode: Literal["SINGLE_USER", "USER_ISOLATION"]
    spark_conf: dict[str, str] | None = None
    spark_env_vars: dict[str, str] | None = None
    custom_tags: dict[str, str] | None = None
    autotermination_minutes: Any = None

    @field_validator("autotermination_minutes")
    @classmethod
    def _auto_stop(cls, _: object) -> Any:
        raise PydanticCustomError("D504", "no auto-stop on job clusters")


class Cluster(NewCluster):
    """An all-purpose cluster, which people share."""

    cluster_name: str
    autotermination_minutes: int = Field(ge=10, le=10_000)

    @field_validator("autotermination_minutes")
    @classmethod
    def _auto_stop(cls, minutes: object) -> Any:
        return minutes


class PypiPackage(Part):
    """A package of a Python index, with its version."""

    package: str = Field(pattern=r"^[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9.]+$")


class Library(Part):
    """What is installed on the cluster: a wheel or a package."""

    whl: str | None = None
    pypi: PypiPackage | None = None

    @model_validator(mode="after")
    def _one(self) -> Library:
        if (self.whl is None) == (self.pypi is None):
            raise PydanticCustomError("D105", "a library is one of whl and pypi")
        return self


class PythonWheelTask(Part):
    """An entry point of an installed package."""

    package_name: str
    entry_point: str
    parameters: list[str] | None = None


class SparkPythonTask(Part):
    """A Python file."""

    python_file: str
    parameters: list[str] | None = None


class Dependency(Part):
    """A task that comes first."""

    task_key: str


class Task(Part):
    """One step of a job."""

    task_key: str = Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")
    description: str | None = None
    job_cluster_key: str
    depends_on: list[Dependency] | None = None
    run_if: Literal["ALL_SUCCESS", "ALL_DONE"] | None = None
    libraries: list[Library] | None = None
    max_retries: int | None = Field(default=None, ge=-1)
    min_retry_interval_millis: int | None = Field(default=None, ge=0)
    python_wheel_task: PythonWheelTask | None = None
    spark_python_task: SparkPythonTask | None = None

    @model_validator(mode="after")
    def _one(self) -> Task:
        if (self.python_wheel_task is None) == (self.spark_python_task is None):
            raise PydanticCustomError("D105", "a task is one of python_wheel_task and spark_python_task")
        return self


PauseStatus = Literal["PAUSED", "UNPAUSED"]


class Schedule(Part):
    """When a job starts."""

    quartz_cron_expression: str
    timezone_id: str
    pause_status: PauseStatus | None = None

    @field_validator("quartz_cron_expression")
    @classmethod
    def _quartz(cls, text: str) -> str:
        try:
            return text if text.startswith("${") else check_quartz(text)
        except ValueError as error:
            raise PydanticCustomError("D501", "{said}", {"said": str(error)}) from None


class Continuous(Part):
    """A job that always runs."""

    pause_status: PauseStatus | None = None


class Queue(Part):
    """Whether runs wait for each other."""

    enabled: bool


class JobCluster(Part):
    """A cluster that the tasks of a job share."""

    job_cluster_key: str
    new_cluster: NewCluster


class Job(Part):
    """A job."""

    name: str
    description: str | None = None
    tags: dict[str, str] | None = None
    continuous: Continuous | None = None
    schedule: Schedule | None = None
    max_concurrent_runs: int | None = Field(default=None, ge=0, le=1000)
    timeout_seconds: int | None = Field(default=None, ge=0)
    queue: Queue | None = None
    job_clusters: list[JobCluster] | None = None
    tasks: list[Task] = Field(min_length=1)


class SqlWarehouse(Part):
    """A SQL warehouse."""

    name: str
    cluster_size: WarehouseSize
    warehouse_type: Literal["PRO", "CLASSIC"]
    min_num_clusters: int = Field(ge=1)
    max_num_clusters: int = Field(ge=1)
    auto_stop_mins: int = Field(ge=10)
    enable_photon: bool
    spot_instance_policy: Literal["COST_OPTIMIZED", "RELIABILITY_OPTIMIZED"]


class UnitySchema(Part):
    """A schema of Unity Catalog."""

    catalog_name: str
    name: str
    comment: str | None = None


class Volume(Part):
    """A volume of Unity Catalog: files that outlive clusters."""

    catalog_name: str
    schema_name: str
    name: str
    volume_type: Literal["MANAGED"]
    comment: str | None = None


class Resources(Part):
    """What the bundle makes in a workspace."""

    jobs: dict[str, Job] | None = None
    schemas: dict[str, UnitySchema] | None = None
    volumes: dict[str, Volume] | None = None
    sql_warehouses: dict[str, SqlWarehouse] | None = None
    clusters: dict[str, Cluster] | None = None


class Name(Part):
    """The bundle's name."""

    name: str


class Variable(Part):
    """A value that targets may set."""

    description: str | None = None
    type: Literal["complex"] | None = None
    default: Any = None


class Workspace(Part):
    """Where a target is."""

    host: str | None = None
    root_path: str | None = None


class RunAs(Part):
    """Who the jobs run as."""

    service_principal_name: str


class Target(Part):
    """One place to deploy to."""

    mode: Literal["development", "production"]
    default: bool | None = None
    workspace: Workspace | None = None
    run_as: RunAs | None = None
    variables: dict[str, str] | None = None


class BundleFile(Part):
    """A file of a bundle; `bundle` and `targets` are in databricks.yml."""

    bundle: Name | None = None
    include: list[str] | None = None
    variables: dict[str, Variable] | None = None
    targets: dict[str, Target] | None = None
    resources: Resources | None = None

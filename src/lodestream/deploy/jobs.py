"""Which tables each job of a bundle fills, and the jobs themselves as Databricks wants them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lodestream.lake.layout import quarantine_name
from lodestream.model.project import Project
from lodestream.model.steps import FlowPlan
from lodestream.model.table import LAYERS, Table, TableName
from lodestream.project.deploying import DatabricksSettings
from lodestream.project.mistakes import Mistakes
from lodestream.project.quartz import from_schedule
from lodestream.version import VERSION

STREAM = "stream"
CLUSTER = "lodestream"
WHEEL = f"wheels/lodestream-{VERSION}-py3-none-any.whl"
"""Where the bundle expects the package; whoever deploys puts it there."""

PACKAGES = {
    "stores": ("obstore==0.12.1",),
    "kafka": ("confluent-kafka==2.16.1", "httpx==0.28.1"),
    "avro": ("fastavro==1.13.1",),
    "protobuf": ("protobuf==7.36.2", "grpcio-tools==1.85.1", "httpx==0.28.1"),
    "catalog": ("psycopg[binary]==3.3.9",),
}
"""What parts of the package need beside it, which a wheel alone does not bring."""
CHECKPOINTS = "/Volumes/${var.catalog}/${resources.schemas.lodestream.name}/${resources.volumes.checkpoints.name}"

_BATCH = {"@hourly": "hourly", "@daily": "daily", "@weekly": "weekly"}
_TIMEOUTS_S = {"hourly": 3_600, "daily": 7_200, "weekly": 14_400}
_ZORDER_MAX = 3
"""Each further column orders files less well by all of them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A job with a schedule: when it starts, and the tables it refreshes."""

    name: str
    quartz: str
    tables: tuple[TableName, ...]


def split(project: Project, settings: DatabricksSettings, mistakes: Mistakes) -> tuple[list[TableName], list[Batch]]:
    """The tables of the job that always runs, and the jobs with a schedule.

    A table with `every …` stays in the stream, which keeps the time itself; one with another cron schedule than
    hourly, daily and weekly gets a job of its own, together with those of the same schedule.
    """
    stream: list[TableName] = []
    named: dict[str, list[TableName]] = {name: [] for name in _BATCH.values()}
    others: dict[str, list[TableName]] = {}
    for name, table in project.tables.items():
        schedule = table.schedule
        if schedule is None and table.sql is not None and settings.queries == "hourly":
            named["hourly"].append(name)
        elif schedule in _BATCH:
            named[_BATCH[schedule]].append(name)
        elif schedule is None or schedule.startswith("every "):
            stream.append(name)
        else:
            try:
                quartz = from_schedule(schedule)
            except ValueError as error:
                mistakes.add(project.place(name, "schedule"), "D505", str(error), table=name, schedule=schedule)
                continue
            others.setdefault(str(quartz), []).append(name)
    when = settings.schedules
    batches = [Batch(name, getattr(when, name), tuple(tables)) for name, tables in named.items()]
    batches += [Batch(_slug(quartz), quartz, tuple(tables)) for quartz, tables in sorted(others.items())]
    return stream, batches


def _slug(quartz: str) -> str:
    words = quartz.replace("*", "each").replace("?", "any")
    return "at_" + re.sub(r"[^a-z0-9]+", "_", words.lower().replace("/", "_by_").replace("-", "_to_"))


def zorder(
    project: Project, flows: Mapping[TableName, FlowPlan], settings: DatabricksSettings, mistakes: Mistakes
) -> dict[TableName, tuple[str, ...]]:
    """The columns that order each table's files: those that settings name, else event time and keys."""
    places = project.deploy_locations
    chosen: dict[TableName, tuple[str, ...]] = {}
    for text, columns in settings.zorder.items():
        place = places.get(("zorder", text), places.get((), None))
        known = {str(name): name for name in project.tables}
        if text not in known:
            assert place is not None
            mistakes.add(place, "D201", "no such table", table=text)
            continue
        plan = flows.get(known[text])
        for i, column in enumerate(columns):
            if plan is not None and (column not in plan.schema or column in plan.partition_columns):
                what = "a partition column orders nothing" if column in plan.schema else "no such column"
                at = places.get(("zorder", text, i), place)
                assert at is not None
                mistakes.add(at, "D203", what, table=text, column=column)
        chosen[known[text]] = tuple(columns)
    return {name: chosen.get(name, _keys(plan)) for name, plan in flows.items()}


def _keys(plan: FlowPlan) -> tuple[str, ...]:
    table = plan.table
    if table.window is not None:
        keys = ["window_start", *(named.name for named in table.group_by)]
    else:
        keys = [table.event_time.column] if table.event_time is not None else []
        keys += table.dedup.keys if table.dedup is not None else ()
    fitting = [key for key in dict.fromkeys(keys) if key in plan.schema and key not in plan.partition_columns]
    return tuple(fitting[:_ZORDER_MAX])


def rewritten(table: Table) -> bool:
    """Whether a table's files are replaced as it runs: what else would rewrite them, would be in the way."""
    return table.changes is not None or (table.window is not None and table.emit == "updates")


def stream_job(project: Project, tables: Sequence[TableName]) -> dict[str, Any]:
    """The job that always runs; Databricks starts it again when it fails."""
    return {
        "name": f"{project.name}: {STREAM}",
        "description": f"Lodestream {project.name}: fills {len(tables)} tables as rows come.",
        "tags": _tags(project),
        "continuous": {"pause_status": "${var.pause_status}"},
        "max_concurrent_runs": 1,
        "job_clusters": _clusters(),
        "tasks": [_run(project, STREAM, tables, until_idle=False)],
    }


def batch_job(
    project: Project, batch: Batch, flows: Mapping[TableName, FlowPlan], settings: DatabricksSettings,
    ordered: Mapping[TableName, tuple[str, ...]],
) -> dict[str, Any] | None:  # fmt: skip
    """A job with a schedule; None when it has nothing to do."""
    tasks = [_run(project, "refresh", batch.tables, until_idle=True)] if batch.tables else []
    if batch.name == "daily":
        tasks += [_maintain("register", [str(name) for name in flows], settings, tasks)]
        tasks += [_maintain("optimize", _optimized(flows, ordered), settings, tasks)]
    elif batch.name == "weekly":
        tasks += [_maintain("vacuum", [*map(str, flows), *_quarantines(flows)], settings, tasks)]
    if not tasks:
        return None
    return {
        "name": f"{project.name}: {batch.name}",
        "description": f"Lodestream {project.name}: {', then '.join(task['task_key'] for task in tasks)}.",
        "tags": _tags(project),
        "schedule": {
            "quartz_cron_expression": batch.quartz, "timezone_id": "UTC", "pause_status": "${var.pause_status}",
        },
        "max_concurrent_runs": 1,
        "timeout_seconds": _TIMEOUTS_S.get(batch.name, _TIMEOUTS_S["daily"]),
        "queue": {"enabled": True},
        "job_clusters": _clusters(),
        "tasks": tasks,
    }  # fmt: skip


def _optimized(flows: Mapping[TableName, FlowPlan], ordered: Mapping[TableName, tuple[str, ...]]) -> list[str]:
    texts = []
    for name, plan in flows.items():
        if not rewritten(plan.table):
            texts.append(f"{name}:{','.join(ordered[name])}" if ordered[name] else str(name))
    return [*texts, *_quarantines(flows)]


def _quarantines(flows: Mapping[TableName, FlowPlan]) -> list[str]:
    return [str(quarantine_name(name)) for name, plan in flows.items() if plan.table.sql is None]


def _tags(project: Project) -> dict[str, str]:
    return {"lodestream": project.name}


def _clusters() -> list[dict[str, Any]]:
    return [{"job_cluster_key": CLUSTER, "new_cluster": "${var.cluster}"}]


def packages(project: Project) -> list[str]:
    """What is installed beside the wheel, for what the project reads."""
    extras = ["stores"]
    if project.registries or any(table.source and table.source.name == "kafka" for table in project.tables.values()):
        extras.append("kafka")
    formats = {table.format.name for table in project.tables.values() if table.format is not None}
    extras += [name for name in ("avro", "protobuf") if name in formats]
    extras += ["catalog"] if project.catalog.get("url") else []
    return list(dict.fromkeys(package for extra in extras for package in PACKAGES[extra]))


def _run(project: Project, key: str, tables: Sequence[TableName], *, until_idle: bool) -> dict[str, Any]:
    """`lodestream run --engine spark` over some tables, as an entry point of the wheel."""
    parameters = ["run", "--engine", "spark", "--project", "${workspace.file_path}/project", "--lake", "${var.lake}"]
    parameters += ["--env", "${var.environment}", "--checkpoints", CHECKPOINTS, "--no-sinks"]
    parameters += ["--until-idle"] if until_idle else []
    for name in tables:
        parameters += ["--table", str(name)]
    task: dict[str, Any] = {
        "task_key": key,
        "job_cluster_key": CLUSTER,
        "libraries": [{"whl": f"../{WHEEL}"}, *({"pypi": {"package": one}} for one in packages(project))],
        "python_wheel_task": {"package_name": "lodestream", "entry_point": "lodestream", "parameters": parameters},
    }
    return task | ({"max_retries": 2, "min_retry_interval_millis": 60_000} if until_idle else {})


def _maintain(
    action: str, tables: Sequence[str], settings: DatabricksSettings, before: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    parameters = [action, "--catalog", "${var.catalog}", "--lake", "${var.lake}"]
    for layer in LAYERS:
        parameters += ["--schema", f"{layer}=${{resources.schemas.{layer}.name}}"]
    parameters += ["--hours", str(settings.vacuum_after_hours)] if action == "vacuum" else []
    task: dict[str, Any] = {"task_key": action, "job_cluster_key": CLUSTER}
    if before:
        task |= {"depends_on": [{"task_key": before[-1]["task_key"]}], "run_if": "ALL_DONE"}
    return task | {"spark_python_task": {"python_file": "../maintenance.py", "parameters": [*parameters, *tables]}}

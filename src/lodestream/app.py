"""Which parts make this system? Settings in, running system out; the only reader of the environment and the clock."""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from lodestream.catalog import audit_table, usage
from lodestream.catalog.anchors import Anchors
from lodestream.catalog.audit import AuditLog
from lodestream.catalog.catalog import Catalog
from lodestream.catalog.changes import Changes
from lodestream.catalog.declared import declare, differences
from lodestream.catalog.entries import POLICY_KINDS
from lodestream.catalog.follow import Follower
from lodestream.catalog.store import open_store
from lodestream.catalog.things import Known
from lodestream.drivers.registry import registries
from lodestream.engines.embedded.frames import describe
from lodestream.engines.embedded.surroundings import Notice, untold
from lodestream.errors import ConfigError, ConflictError
from lodestream.lake.disk import Disk, LocalDisk, random_id
from lodestream.lake.layout import catalog_file, component_cache, keys_path, table_path
from lodestream.lake.opening import open_lake
from lodestream.lake.table import DeltaTable
from lodestream.model.access import Principal
from lodestream.model.project import Project
from lodestream.model.steps import FlowPlan
from lodestream.model.table import Table, TableName
from lodestream.model.types import Schema
from lodestream.planning.compile import Plans, compile_project, stored_schemas
from lodestream.planning.diff import Change, Deployed, diff
from lodestream.planning.on_spark import refuse_on_spark
from lodestream.planning.policies import check_policies
from lodestream.ports.plugins import make_source
from lodestream.ports.registry import SchemaRegistry
from lodestream.ports.source import Reading
from lodestream.project.load import read_project, reread_policies
from lodestream.project.mistakes import Mistakes, ProjectError
from lodestream.project.policies import POLICY_FILE
from lodestream.project.serving import ServingSettings, serving
from lodestream.project.values import parse_duration
from lodestream.runtime.apply import TRIES, accepted, apply_changes, check_lake
from lodestream.runtime.deployed import deployed
from lodestream.runtime.machine import memory_bytes
from lodestream.runtime.pipeline import Pipeline
from lodestream.security.identity import Identity, open_identity
from lodestream.security.limits import Limits
from lodestream.security.networks import is_local
from lodestream.version import VERSION

if TYPE_CHECKING:
    from socket import socket

    from starlette.applications import Starlette

    from lodestream.apis.gate import Gate
    from lodestream.apis.postgres.server import Place, PostgresServer
    from lodestream.apis.routing import Part
    from lodestream.model.batch import Mend
    from lodestream.operations.live import Live
    from lodestream.query.service import QueryService
    from lodestream.runtime.on_spark import SparkPipeline
    from lodestream.runtime.replaying import Replayed

_POLL_US = 100_000
_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")


def now_us() -> int:
    """The time of day in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


@dataclass
class App:
    """A project and its lake, ready to be planned, run and asked.

    Attributes:
        project: the declarations.
        lake: root of the lake: a folder, or a URL.
        disk: seam for every effect.
        handover: whether flows of one process hand rows over in memory.
        environment: the one that was chosen; None for none, which is development.
        lenient: whether a damaged table is passed over, as servers do: the others are still there to be asked.
        engine: the one that the plans are for; a table for the other one is refused.
    """

    project: Project
    lake: str
    disk: Disk = field(default_factory=LocalDisk)
    handover: bool = True
    environment: str | None = None
    lenient: bool = False
    engine: Literal["embedded", "spark"] = "embedded"

    @cached_property
    def deployed(self) -> Mapping[TableName, Deployed]:
        """The declared tables that stand in the lake already, with the definition that made them.

        Raises:
            CorruptionError: one is damaged, unless this app is lenient; then it is left out.
        """
        return deployed(self.disk, self.lake, lenient=self.lenient)

    @cached_property
    def plans(self) -> Plans:
        """The compiled flows. Raises ProjectError with every mistake at once."""
        made = self.compiled_for(self.engine)
        if self.engine == "spark":
            refuse_on_spark(self.project, made.flows)
        return made

    def compiled_for(self, engine: Literal["embedded", "spark"]) -> Plans:
        """The flows, compiled for an engine. Raises ProjectError with every mistake at once."""
        existing = {name: table.schema for name, table in self.deployed.items()}
        return compile_project(self.project, existing, self._sample, engine=engine, describe=describe)

    @property
    def flows(self) -> Mapping[TableName, FlowPlan]:
        """The compiled flows, inputs first."""
        return self.plans.flows

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the query workers, write out the audit log and let go of the catalog; twice is harmless."""
        for name in ("query", "catalog", "audit"):
            if (made := self.__dict__.pop(name, None)) is not None:
                made.close()

    @property
    def home(self) -> str:
        """The folder of what only this machine needs of the lake: catalog, keys, locks; of a local lake its root."""
        return self.disk.beside(self.lake)

    def changes(self) -> list[Change]:
        """What `run` would change in the lake before it starts."""
        return diff(self.plans, self.deployed)

    def apply(self, accept: str | None = None) -> list[Change]:
        """Bring the lake's tables in line with the declarations; `accept` is the hash of an accepted plan.

        Raises:
            ConfigError: the lake is not to be written; or a table must be rebuilt, and that plan was not accepted.
            ConflictError: others keep on changing the same tables.
        """
        check_lake(self.disk, self.lake)
        for left in reversed(range(TRIES)):
            changes, seen = accepted(self.changes(), accept), self.deployed
            declare(self.catalog, self.project.policies, self.flows, door="run")
            try:
                apply_changes(changes, self.flows, seen, lake=self.lake, disk=self.disk, clock_us=now_us())
                break
            except ConflictError:  # a process that starts beside us has been first
                self.__dict__.pop("plans", None)
                if not left:
                    raise
            finally:
                self.__dict__.pop("deployed", None)
        return changes

    def pipeline(self, notice: Notice = untold) -> Pipeline:
        """The runnable flows; call `apply` first. `notice` hears what a person should know that is no error."""
        batch = self.project.batch
        return Pipeline(
            self.project.root, self.flows, lake=self.lake, disk=self.disk, clock=now_us, handover=self.handover,
            limit=batch.limit, poll_s=(batch.interval_us or _POLL_US) / 1e6, code=VERSION, resolve=resolved,
            registry=self.registry, notice=notice, state_bytes_max=self.project.state_bytes_max or memory_bytes() // 4,
        )  # fmt: skip

    def on_spark(
        self, master: str | None = None, *, session: Any = None, checkpoints: str | None = None,
        conf: Mapping[str, str] | None = None, notice: Notice = untold,
    ) -> SparkPipeline:  # fmt: skip
        """The flows on a Spark `master` (or `sc://` server), or in a `session` with Delta; set `engine` first."""
        from lodestream.runtime.on_spark import on_spark

        places = checkpoints, master, session, conf or {}
        return on_spark(self.pipeline(notice), resolved(self.project.registries), *places)

    def resolve(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settings with values in the place of their references."""
        return dict(resolved(settings))

    def registry(self, name: str) -> SchemaRegistry:
        """A schema registry by the name it has under `registries:`, or by URL; `default` needs no declaration."""
        return self._registries(name)

    @cached_property
    def _registries(self) -> Callable[[str], SchemaRegistry]:
        return registries(resolved(self.project.registries), component_cache(self.home))

    @cached_property
    def query(self) -> QueryService:
        """The one read path."""
        from lodestream.query.keyed import KeyedReads
        from lodestream.query.service import Budget, PoolSettings, QueryService

        bounds = self._serving({"query": self.project.server.get("query", {})}).query
        wait_s, time_s = parse_duration(bounds.queue_time) / 1e6, parse_duration(bounds.time) / 1e6
        return QueryService(
            self.disk, self.lake, authority=self.catalog, catalog=self.project.name, threads=bounds.threads,
            budget=Budget(time_s, bounds.memory_bytes),
            pool=PoolSettings(bounds.workers, bounds.per_principal, bounds.queue_max, wait_s),
            keyed=KeyedReads(os.path.join(component_cache(self.home), "keyed")),
        )  # fmt: skip

    @property
    def keys_path(self) -> str:
        """The file of the lake's API keys."""
        return keys_path(self.home)

    @cached_property
    def live(self) -> Live:
        """How every table of the lake stands, from its commits; `start` it to follow them, `close` it in the end."""
        from lodestream.operations.live import Live

        return Live(self.disk, self.lake, self.flows, now_us)

    @cached_property
    def catalog(self) -> Catalog:
        """Users, grants and policies of the lake, and the record of what was asked."""
        store = resolved(self.project.catalog.get("url")) or catalog_file(self.home)
        made = Catalog(open_store(store), now_us, self.audit)
        weakref.finalize(made, made.database.close)
        return made

    @cached_property
    def audit(self) -> AuditLog:
        """What was asked and changed, and by whom; beside the catalog, over a connection of its own."""
        store = resolved(self.project.catalog.get("url")) or catalog_file(self.home)
        anchors = Anchors(os.path.dirname(self.keys_path))
        tables = (*audit_table.tables(store), *usage.TABLES)
        return AuditLog(open_store(store, tables), anchors, now_us, open_store(store))

    @cached_property
    def known(self) -> Known:
        """What comes from what, who reads it, and everything that can be searched."""
        return Known(self.flows, self.project.root, self.catalog, self.audit)

    def governing(self, by: Principal, door: str) -> Changes:
        """Changes to users, grants, policies and descriptions in somebody's name."""

        def columns(name: TableName) -> Schema | None:
            table = DeltaTable.open(self.disk, table_path(self.lake, name))
            return None if table is None else table.snapshot.metadata.schema

        return Changes(self.catalog, by, door, columns, lambda: self.deployed)

    def acting(self, name: str, by: Principal) -> Principal:
        """A local user as whom the holder of the storage looks; the record names both."""
        found = self.catalog.principal(name) or Principal(name)
        return replace(found, via=f"{by.via}:{by.name}")

    def policy_changes(self) -> list[str]:
        """What `run` and every server would change in the catalog before they start, a line each."""
        if not self.project.catalog and not os.path.exists(catalog_file(self.home)):
            return differences((), self.project.policies)  # looking makes nothing
        return differences(self.catalog.entries(*POLICY_KINDS), self.project.policies)

    def has_account(self, name: str) -> bool:
        """Whether there is a user or service account of that name, declared or made at run time."""
        if any(user.name == name for user in self.project.policies.users):
            return True
        if not self.project.catalog and not os.path.exists(catalog_file(self.home)):
            return False  # looking makes nothing
        return name in self.catalog.state.users

    def follow_policies(self, door: str, tell: Callable[[str], None]) -> Follower:
        """Takes `policies.yaml` over when started, and again whenever it has changed, until it is closed.

        Args:
            door: of the server that follows, for the record.
            tell: hears of changes and of mistakes; after a mistake the last good policies hold.
        """

        def again() -> list[str]:
            project = reread_policies(self.project)
            mistakes = Mistakes(project.mistakes)
            self.__dict__.pop("deployed", None)  # tables may have been made since
            existing = {name: table.schema for name, table in self.deployed.items()}
            check_policies(project, stored_schemas(project, self.flows, existing), mistakes)
            mistakes.raise_any()
            return declare(self.catalog, project.policies, self.flows, door=door)

        return Follower(os.path.join(self.project.root, POLICY_FILE), again, tell)

    def serving(self, **changes: Any) -> ServingSettings:
        """The settings of those who serve; `changes` are put in place of what is declared."""
        return self._serving(self.project.server, **changes)

    def _serving(self, written: Mapping[str, Any], **changes: Any) -> ServingSettings:
        given = {key: value for key, value in changes.items() if value is not None}
        try:
            return serving(resolved(written) | given)
        except ValidationError as error:
            raise ConfigError("a setting under server: is not possible", reason=error.errors()[0]["msg"]) from error

    def http(self, settings: ServingSettings, token: str | None) -> Starlette:
        """The ASGI application of everything over HTTP, its streams opened; it closes them when it ends.

        Args:
            settings: of `serving`.
            token: accepted in place of any key; None when keys are needed.

        Raises:
            ConfigError: two tables share a stream.
            ConflictError: another process serves a stream.
        """
        from lodestream.apis.about import About, about_part
        from lodestream.apis.events import Streams
        from lodestream.apis.gate import at_the_gate
        from lodestream.apis.governing import Governing, governing_part
        from lodestream.apis.ingest.open import open_ingest
        from lodestream.apis.pages import console
        from lodestream.apis.rest.part import rest_part
        from lodestream.apis.routing import application
        from lodestream.apis.session import session_part
        from lodestream.apis.sharing.part import sharing_part
        from lodestream.apis.status import status_part
        from lodestream.apis.turned_away import TurnedAway
        from lodestream.project.queries import Queries

        gate = self.gate(settings, token)
        parts = [
            session_part(gate),
            open_ingest(self.flows, self.project.root, self.home, gate, now_us, resolved, self.registry),
            rest_part(self.query, settings.api, self.project.name, self.catalog, Queries(self.project.root).current),
            self._console(gate),
            sharing_part(self.query, gate, self.project.name, now_us),
            about_part(About(self.catalog, self.known, self.audit.records)),
            governing_part(Governing(self.catalog, lambda by: self.governing(by, "rest"))),
        ]
        return application(
            [*parts, status_part(parts, self.project.name, self.audit.failing)], gate, otherwise=console(),
            secure=settings.tls is not None, refused=at_the_gate(gate, TurnedAway(self.catalog.record)),
            streams=Streams(settings.api.streams_per_user_max, settings.api.streams_max),
        )  # fmt: skip

    def _console(self, gate: Gate) -> Part:
        from lodestream.apis.console.part import Console, console_part, following
        from lodestream.engines.embedded.history import batches
        from lodestream.project.dashboards import Dashboards

        about = Console(
            self.project.name, self.live, self.flows, self.query, lambda name: batches(self.disk, self.lake, name),
            Dashboards(self.project.root).current, self.replay, gate.current, now_us, random_id(),
        )  # fmt: skip
        return console_part(about, lambda: following(self.live.start, self.live.close))

    def replay(
        self, table: TableName, rows: Sequence[tuple[str, int]] | None, reason: str | None, *, accept_late: bool,
        mends: Mapping[tuple[str, int], Mend],
    ) -> Replayed:  # fmt: skip
        """Take rows that were set aside through their flow again, by the declarations as they are now.

        Args:
            table: whose quarantine.
            rows: source and position of each; None takes all of a reason.
            reason: only rows that were set aside for it.
            accept_late: whether late rows are taken too.
            mends: how some of the rows are changed first.

        Raises:
            ConfigError: no open row is meant, or changed declarations were not applied yet.
            ConflictError: another process was first again and again.
        """
        from lodestream.runtime.replaying import chosen, keys_of, standing, take_again

        now = open_project(self.project.root, lake=self.lake, environment=self.environment)
        if now.changes():
            raise ConfigError("declarations have changed; restart `lodestream run` to apply them first")
        entries = chosen(standing(self.disk, self.lake, table), reason)
        keys = keys_of(entries, set(rows) if rows is not None else None, accept_late=accept_late)
        if not keys:
            raise ConfigError("no open row is meant by this")
        return take_again(now.pipeline(), table, keys, accept_late=accept_late, mends=mends)

    def postgres(self, settings: ServingSettings, token: str | None, listener: socket, place: Place) -> PostgresServer:
        """The server of the PostgreSQL protocol on a bound socket; `place` says which of several processes it is.

        Raises:
            ConfigError: a certificate cannot be read.
        """
        from lodestream.apis.postgres.open import open_server

        declared = {str(name): plan.table.comment for name, plan in self.flows.items()}

        def comments() -> dict[str, str]:
            return declared | {one.name: str(one.body["text"]) for one in self.catalog.entries("comment")}

        return open_server(
            settings, self.project.root, self.identity(settings, token), self.query, self.project.name, listener, place,
            comments,
        )  # fmt: skip

    def identity(self, settings: ServingSettings, token: str | None = None) -> Identity:
        """What turns credentials into principals, for every door.

        Args:
            settings: of `serving`: issuers and certificates.
            token: the one for development.

        Raises:
            MissingDriverError: access tokens or certificates need a package.
            ConfigError: the token would be good for other machines.
        """
        if token is not None and not is_local(settings.host):
            raise ConfigError("a token for development is for this machine only", host=settings.host)
        return open_identity(
            settings.identity, self.keys_path, self.project.root, now_us, token=token,
            directory=self.catalog.principal,
        )  # fmt: skip

    def gate(self, settings: ServingSettings, token: str | None = None) -> Gate:
        """Who may come in over HTTP."""
        from lodestream.apis.gate import Gate

        limits = Limits(os.path.join(os.path.dirname(self.keys_path), "usage.json"))
        return Gate(settings, self.identity(settings, token), now_us, limits)

    def run(self, *, until_idle: bool = True, tables: Iterable[TableName] | None = None) -> None:
        """Apply harmless changes and run; what a script or notebook calls."""
        self.apply()
        self.pipeline().run(until_idle=until_idle, tables=tables)

    def _sample(self, table: Table) -> Schema | None:
        """Columns of a bronze table without `columns:`, from the source's first records; None when it has none yet."""
        assert table.source
        assert table.format
        reading = Reading(
            Schema(), keep_raw=False, drift=table.drift, root=self.project.root, registry=self.registry, lake=self.home
        )
        try:
            source = make_source(table.source, table.format, reading, resolved)
            found: Schema | None = source.sample() if hasattr(source, "sample") else None
            source.close()
        except (ConfigError, ValidationError):  # nothing to learn from, or noted where the settings were read
            return None
        return found


def resolved(value: Any) -> Any:
    """A setting with values in the place of its references: `${env:NAME}` and `${file:/run/secrets/x}`.

    References are resolved when a component is made, never before, so that no secret gets into a plan or a table.

    Raises:
        ConfigError: there is no such variable or file.
    """
    if isinstance(value, Mapping):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(item) for item in value]
    return _REFERENCE.sub(_referred, value) if isinstance(value, str) else value


def _referred(match: re.Match[str]) -> str:
    kind, name = match[1], match[2]
    if kind == "env":
        if name not in os.environ:
            raise ConfigError("environment variable is not set; set it, or write the value", variable=name)
        return os.environ[name]
    try:
        with open(name, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise ConfigError("file of a setting cannot be read", file=name, cause=error.strerror) from error


def open_project(root: str, *, lake: str | None = None, environment: str | None = None) -> App:
    """Load the project in folder `root`.

    Args:
        root: folder with `lodestream.yaml`.
        lake: folder or URL of a lake instead of the declared one.
        environment: name under `environments:`; default is `LODESTREAM_ENV`, else none.

    Raises:
        ProjectError: the folder cannot be read, or there is no such environment; other mistakes are for `App.plans`.
    """
    environment = environment or os.environ.get("LODESTREAM_ENV") or None
    project = read_project(root, environment)
    if astray := [mistake for mistake in project.mistakes if mistake.code == "D116"]:
        raise ProjectError(astray)  # at once: another lake than the one that was meant would be opened
    chosen = resolved(lake or os.environ.get("LODESTREAM_LAKE") or project.lake)
    return App(project, *open_lake(chosen, project.root, resolved(project.store), os.environ), environment=environment)

"""REST as a part of the HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from lodestream.apis.rest.changes import ChangesApi
from lodestream.apis.rest.cursors import Cursors
from lodestream.apis.rest.saved import SavedApi
from lodestream.apis.rest.sql import SqlApi
from lodestream.apis.rest.tables import TablesApi
from lodestream.apis.routing import Part
from lodestream.apis.secrets import secret_of
from lodestream.apis.threads import Threads
from lodestream.catalog.catalog import Catalog
from lodestream.lake.layout import cursors_path
from lodestream.model.query import SavedQuery
from lodestream.project.serving import ApiSettings
from lodestream.query.service import QueryService


def rest_part(
    service: QueryService, settings: ApiSettings, project: str, catalog: Catalog,
    declared: Callable[[], Mapping[str, SavedQuery]],
) -> Part:  # fmt: skip
    """Tables, their changes, SQL and saved queries.

    Args:
        service: the read path; closed with the server.
        settings: bounds.
        project: its name, which may stand before the layer.
        catalog: keeps queries that are saved at run time.
        declared: the queries that the project declares now.
    """
    threads = Threads()
    sql = SqlApi(service, threads, settings, project)
    cursors = Cursors(secret_of(cursors_path(service.disk.beside(service.lake))))
    tables = TablesApi(service, threads, settings, cursors, sql)
    saved = SavedApi(service, threads, sql, catalog, declared)
    changes = ChangesApi(service, threads)

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await asyncio.to_thread(service.pool.start)
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)
            changes.close()
            threads.close()

    return Part((*sql.endpoints(), *tables.endpoints(), *changes.endpoints(), *saved.endpoints()), running)

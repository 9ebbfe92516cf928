"""REST as a part of the HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from lodestream.apis.rest.asking import Threads
from lodestream.apis.rest.changes import ChangesApi
from lodestream.apis.rest.cursors import Cursors, secret_of
from lodestream.apis.rest.sql import SqlApi
from lodestream.apis.rest.tables import TablesApi
from lodestream.apis.routing import Part
from lodestream.lake.layout import cursors_path
from lodestream.project.serving import ApiSettings
from lodestream.query.service import QueryService


def rest_part(service: QueryService, settings: ApiSettings, catalog: str) -> Part:
    """Tables and SQL.

    Args:
        service: the read path; closed with the server.
        settings: bounds.
        catalog: name of the project, which may stand before the layer.
    """
    threads = Threads()
    sql = SqlApi(service, threads, settings, catalog)
    tables = TablesApi(service, threads, settings, Cursors(secret_of(cursors_path(service.lake))), sql)

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await asyncio.to_thread(service.pool.start)
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)
            threads.close()

    return Part((*sql.endpoints(), *tables.endpoints(), *ChangesApi(service, threads).endpoints()), running)

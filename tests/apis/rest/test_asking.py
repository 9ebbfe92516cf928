"""What becomes of work whose request is given up."""

import asyncio
import contextlib

from lodestream.apis.rest.asking import attended


def test_a_request_that_is_cancelled_in_its_first_moment_cancels_its_work():
    told = []

    async def main():
        asking = asyncio.create_task(attended(None, asyncio.Event().wait(), lambda: told.append("cancelled")))
        await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    asyncio.run(main())
    assert told == ["cancelled"]

"""One thread that computes, so that requests wait for their turn instead of using up the memory together."""

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

_MOST_WAITING = 8

P = ParamSpec("P")
Result = TypeVar("Result")


class Worker:
    """Runs work for requests one at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def run(self, request: Request, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Returns ``work(*args, **kwargs)``, computed when its turn has come.

        Raises:
            HTTPException: 503 if too many requests wait already, 499 if the browser has left before its turn came.
        """
        if self._waiting >= _MOST_WAITING:
            raise HTTPException(503, "the server is busy with other photos; try again in a moment")
        self._waiting += 1
        try:
            async with self._turn:
                if await request.is_disconnected():
                    raise HTTPException(499, "the browser has left")
                return await asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))
        finally:
            self._waiting -= 1

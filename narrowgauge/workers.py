"""Worker processes that end with the program, whatever ends it."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import FrameType
from typing import Any, ParamSpec, TypeVar

__all__ = ["end_workers", "worker_pool"]

P = ParamSpec("P")
T = TypeVar("T")

#: How long a worker may take to end itself, in seconds.
PATIENCE_S = 5.0

#: Exit code of a worker that was told to end, as shells count.
ENDED = 128 + signal.SIGTERM


@contextlib.contextmanager
def worker_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Pool of fresh processes; an error or an interruption ends them, and what they had started.

    Parameters
    ----------
    jobs : int
        Processes at a time.

    Yields
    ------
    ProcessPoolExecutor
    """
    # Forking would copy the locks of threads, such as those of NumPy's BLAS, as they are.
    context = multiprocessing.get_context("spawn")
    with _Pool(jobs, mp_context=context, initializer=_obey_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_workers()
            raise


def end_workers() -> None:
    """End all worker processes of this one: they tidy up, or are killed after a while."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(PATIENCE_S)
        if worker.is_alive():
            worker.kill()


class _Pool(ProcessPoolExecutor):
    """Pool whose workers end when they are told to in the middle of a job."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(_work, function, *args, **kwargs)


def _work(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except SystemExit:
        # The job has tidied up.  The pool would take this for a result and go on with the next job.
        os._exit(ENDED)


def _obey_parent() -> None:
    """Leave Ctrl-C to the parent, and make its SIGTERM an exception, so that blocks tidy up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(ENDED)

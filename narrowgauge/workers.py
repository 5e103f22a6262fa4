"""Worker processes that end with the program, whatever ends it, and leave nothing behind."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from narrowgauge.signals import ENDING, deferred

__all__ = ["worker_pool"]

P = ParamSpec("P")
T = TypeVar("T")

#: How long the workers may take to end themselves, in seconds.
PATIENCE_S = 5.0

#: How long after a destructor a worker is told again, in seconds.
RETRY_S = 0.02

#: Exit code of a worker that was told to end, as shells count.
ENDED = 128 + signal.SIGTERM


@contextlib.contextmanager
def worker_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Pool of fresh processes; an error or an interruption ends them, and what they had started.

    Temporary files of the workers are in a folder that is removed with the pool.

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
    with (
        tempfile.TemporaryDirectory(prefix="narrowgauge-", ignore_cleanup_errors=True) as scratch,
        _Pool(jobs, mp_context=context, initializer=_prepare, initargs=(scratch,)) as pool,
    ):
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _end_workers()
            raise


def _end_workers() -> None:
    """End all worker processes of this one: they tidy up, or are killed after a while."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    end = time.monotonic() + PATIENCE_S
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()))
        if worker.is_alive():
            worker.kill()
        # An exception between the start of a child process and its entry in the books of Python
        # leaves the child alone; it is still in the group of the worker.
        if worker.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)


class _Pool(ProcessPoolExecutor):
    """Pool whose workers end when they are told to in the middle of a job."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        # Workers are started here.  They must not be cut off from their parent before they have
        # read what to do, nor be reached by Ctrl-C before they are prepared: they inherit the mask.
        with deferred():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
            try:
                return super().submit(_work, function, *args, **kwargs)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Do one job; SIGTERM is an exception meanwhile, so that blocks tidy up."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        return function(*args, **kwargs)
    except SystemExit:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            # Nobody else is left to end what the job has started.
            os.killpg(0, signal.SIGKILL)
        # The pool would take this for a result and go on with the next job.
        os._exit(ENDED)
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare(scratch: str) -> None:
    """Leave Ctrl-C to the parent, and temporary files in its folder."""
    # A terminal sends Ctrl-C to the group of the parent alone.
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = scratch
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End this worker when its parent was killed and could not do so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _end(number: int, frame: FrameType | None) -> None:
    # The pool tells the other workers to end when one has ended.  Being told twice would cut off
    # the tidying up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # In a destructor an exception is printed and lost; then the worker is told once more.
    sys.unraisablehook = _end_later
    raise SystemExit(ENDED)


def _end_later(lost: "sys.UnraisableHookArgs") -> None:
    """Tell this worker to end, a moment after the destructor in which it would not."""
    if lost.exc_type is not SystemExit:
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGTERM, _end)
    threading.Timer(RETRY_S, os.kill, (os.getpid(), signal.SIGTERM)).start()

"""What a user sees when something goes wrong: one line for a mistake, a traceback for a bug.

A mistake is what the user, or the machine, can put right: a bad argument or file, a full disk, a
tool that is missing or was ended.  The project states each with a ``ValueError`` or ``TypeError``
whose message says ``FIELD must be RULE, not VALUE``, or with an error class of its own.
"""

import contextlib
import os
import re
import select
import signal
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TextIO

import click

from narrowgauge.signals import Terminated, raised

__all__ = ["BAD_INPUT", "CHECK_FAILED", "DONE", "explain", "run"]

DONE = 0
CHECK_FAILED = 1
BAD_INPUT = 2

#: Added to the number of the signal that ended a program, as shells do.
ENDED_BY_SIGNAL = 128

#: Packages whose complaints are about what they were given.
PACKAGES = ("golden", "hdl", "narrowgauge", "sim", "synth")


def run(work: Callable[[], int]) -> int:
    """Do the work of a command and turn its errors into one line and an exit code.

    Parameters
    ----------
    work : callable
        Returns its exit code.

    Returns
    -------
    int
        What ``work`` returned; 2 for a user's mistake; 128 and the number of the signal if the
        user interrupted, or if nobody reads the output any more.

    Raises
    ------
    Exception
        Whatever is no mistake of the user, and so a bug.
    """
    if sys.stdout is None:  # closed by whoever started the program
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # as long as the program
    try:
        with raised():
            return work()
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Terminated) else signal.SIGINT
        _complain("interrupted")
        return ENDED_BY_SIGNAL + number
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _is_read(sys.stdout):
            return ENDED_BY_SIGNAL + signal.SIGPIPE
        line = explain(error)
        if line is None:
            raise
        _complain(f"error: {line}")
        return BAD_INPUT


def explain(error: BaseException) -> str | None:
    """One line for a user's mistake.

    Parameters
    ----------
    error : exception
        As it was caught, with its traceback.

    Returns
    -------
    str or None
        What to tell the user; None for a bug.
    """
    match error:
        case click.UsageError():
            hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
            return _one_line(error.format_message().rstrip(".") + hint)
        case click.ClickException():
            return _one_line(error.format_message())
        case OSError() if error.strerror:
            names = [name for name in (error.filename, error.filename2) if name is not None]
            return _one_line(": ".join([error.strerror, *map(_quoted, names)]))
        case BrokenExecutor():
            return "worker processes must run to their end, but one was killed (out of memory?)"
        case MemoryError():
            return "memory must be enough for the job, but there was no more"
        case ValueError() | TypeError() if _is_own_complaint(error):
            return _one_line(str(error))
    return None


def _is_own_complaint(error: Exception) -> bool:
    """Whether this project raised the error, on purpose, about what it was given."""
    if _is_own_module(type(error).__module__):
        return True
    # A bug has the same type, but comes out of another package or has not the form of a rule.
    return " must " in str(error) and _was_raised_here(error)


def _was_raised_here(error: Exception) -> bool:
    """Whether the innermost frame of the traceback is in one of our packages."""
    if type(error.__cause__).__name__ == "_RemoteTraceback":
        # It happened in a worker process, from which only the text of the traceback came.
        files = re.findall(r'^  File "(.+)", line \d+', str(error.__cause__), re.M)
        root = Path(__file__).parents[1]
        return bool(files) and any(Path(files[-1]).is_relative_to(root / p) for p in PACKAGES)
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    return innermost is not None and _is_own_module(innermost.tb_frame.f_globals["__name__"])


def _is_own_module(name: str) -> bool:
    return name.split(".")[0] in PACKAGES


def _quoted(name: str | bytes | int) -> str:
    """File name of an error, marked off from the text around it."""
    return repr(os.fsdecode(name)) if isinstance(name, str | bytes) else str(name)


def _one_line(text: str) -> str:
    """``text`` with line ends and other control characters, such as in file names, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"narrowgauge: {text}", file=sys.stderr, flush=True)


def _is_read(stream: TextIO) -> bool:
    """Whether ``stream`` is anything but a pipe whose other end is closed."""
    try:
        number = stream.fileno()
    except OSError:  # in memory
        return True
    poll = select.poll()
    poll.register(number, 0)
    return not any(event & select.POLLERR for _, event in poll.poll(0))

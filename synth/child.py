"""Python programs in child processes, bounded in time and memory, that leave no process behind."""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "MEMORY_VARIABLE",
    "Ended",
    "memory_limit_gib",
    "private_folder",
    "read_json",
    "run_child",
]

#: Environment variable with the most memory that a child may take, in GiB, and its default.
MEMORY_VARIABLE = "NARROWGAUGE_MEMORY_GIB"
MEMORY_GIB = 8.0

# A parent that is killed cannot clean up; Linux then ends the child too.
PROLOGUE = """\
import ctypes, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
"""

# Yosys grows with the design, and a machine without memory stands still.
BOUND = """\
import resource
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
if hard == resource.RLIM_INFINITY or hard > {limit}:
    resource.setrlimit(resource.RLIMIT_AS, ({limit}, hard))
"""
# What Python, C++ and programs in C say then.
NO_MEMORY = re.compile(
    r"MemoryError|bad_alloc|annot allocate memory|[Oo]ut of memory|failed to map segment"
)

LOG = "child.log"


# Yosys gives names of files to ABC without quotes.
PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


def memory_limit_gib() -> float:
    """Most memory that a child may take, in GiB, as `MEMORY_VARIABLE` says.

    Raises
    ------
    ValueError
        If that is not a positive number.
    """
    text = os.environ.get(MEMORY_VARIABLE, "")
    with contextlib.suppress(ValueError):
        if 0 < (limit := float(text or MEMORY_GIB)) < math.inf:
            return limit
    raise ValueError(f"{MEMORY_VARIABLE} must be a positive number of GiB, not {text!r}")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended.

    Parameters
    ----------
    status : int or None
        Exit status, negative for a signal; None if its time was over.
    log : str
        What it printed.
    """

    status: int | None
    log: str

    @property
    def out_of_memory(self) -> bool:
        """Whether it ended because it got no more memory."""
        return self.status != 0 and NO_MEMORY.search(self.log) is not None

    @property
    def signal_name(self) -> str | None:
        """Name of the signal that ended it."""
        if self.status is None or self.status >= 0:
            return None
        try:
            return signal.Signals(-self.status).name
        except ValueError:
            return f"signal {-self.status}"


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Temporary folder whose name any tool understands; removed afterwards.

    Raises
    ------
    ValueError
        If there is no place for one.
    """
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    place = next((p for p in places if PLAIN.fullmatch(p) and os.access(p, os.W_OK)), None)
    if place is None:
        raise ValueError(
            "TMPDIR must be a writable folder named with letters, digits and _./+- only, "
            f"not {places[0]!r}"
        )
    with tempfile.TemporaryDirectory(prefix="narrowgauge-", dir=place) as name:
        yield Path(name)


def run_child(
    program: str, folder: Path, *, seconds: float, memory_gib: float | None = None
) -> Ended:
    """Run a Python program in a child process in a session of its own.

    All that it started is ended with it, unless it ended well.

    Parameters
    ----------
    program : str
        Python source.
    folder : Path
        Its working folder, and that of its temporary files; what it prints goes to a file there.
    seconds : float
        Longest time that it may take.
    memory_gib : float, optional
        Largest address space of the child, and of each process that it starts, in GiB.

    Returns
    -------
    Ended
    """
    path = folder / LOG
    bound = "" if memory_gib is None else BOUND.format(limit=int(memory_gib * (1 << 30)))
    with path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROLOGUE + bound + program],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Temporary files go with the folder even if the child is killed.
            env=os.environ | {"TMPDIR": str(folder)},
            start_new_session=True,
        )
        status: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(max(seconds, 0.0))
        finally:
            if status != 0:
                # A child of the child, as ABC is one of Yosys, outlives it otherwise.
                _kill_group(process)
    return Ended(status=status, log=path.read_text(encoding="utf-8", errors="replace"))


def read_json(path: Path) -> Any:
    """Read a file of JSON that a child has written.

    Raises
    ------
    ValueError
        If the end is missing: Yosys does not notice that a disk is full.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise _cut_off(path) from error


def read_verilog(path: Path) -> str:
    """Read a file of Verilog that a child has written; errors are those of `read_json`."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.endswith("endmodule\n"):
        raise _cut_off(path)
    return text


def _cut_off(path: Path) -> ValueError:
    return ValueError(
        f"Yosys must write the whole of {path.name}, not a part: the disk with the folder for "
        f"temporary files ({path.parent.parent}) may be full"
    )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End ``process`` and all that it started, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

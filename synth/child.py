"""Python programs in child processes that are bounded in time and leave no process behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "private_folder", "run_child"]

# A parent that is killed cannot clean up; Linux then ends the child too.
PROLOGUE = """\
import ctypes, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
"""

LOG = "child.log"

# Yosys gives names of files to ABC without quotes.
PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


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


def run_child(program: str, folder: Path, *, seconds: float) -> Ended:
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

    Returns
    -------
    Ended
    """
    path = folder / LOG
    with path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROLOGUE + program],
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


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End ``process`` and all that it started, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

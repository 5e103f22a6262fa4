"""Results kept on disk under the hash of everything that they depend on.

An entry is one file: a line with the SHA-256 of the rest, and the rest.  It is written beside its
place and renamed, so that processes that share the folder, and processes that are killed, leave
whole entries or none; an entry that was damaged later counts as absent.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import platformdirs

__all__ = ["DEFAULT_BYTES", "FOLDER_VARIABLE", "Cache", "content_key"]

FOLDER_VARIABLE = "NARROWGAUGE_CACHE"
DEFAULT_BYTES = 1 << 30
# A sweep lists the whole folder; one write in so many bytes of the bound is enough.
SWEEPS_PER_BOUND = 16
# Files of writers that were killed.  No write takes this long.
ABANDONED_SECONDS = 3600.0


def content_key(*parts: str | bytes | float | None) -> str:
    """Hash of ``parts`` that keeps their order, kinds and borders.

    Parameters
    ----------
    *parts : str, bytes, int, float or None
        Everything that the cached result depends on.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(f"{type(part).__name__}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


class Cache:
    """Byte strings by key, in a folder of bounded size.

    A folder that cannot be read or written is no error: every look-up then misses.

    Parameters
    ----------
    folder : path, optional
        Where entries are kept.  Default: the environment variable ``NARROWGAUGE_CACHE``, else the
        user's cache folder of this system.
    max_bytes : int
        When the entries exceed this, those used longest ago are removed.

    Raises
    ------
    ValueError
        If ``folder`` exists and is not a directory, or ``max_bytes`` is not positive.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, max_bytes: int = DEFAULT_BYTES
    ) -> None:
        if folder is None:
            folder = os.environ.get(FOLDER_VARIABLE) or platformdirs.user_cache_dir("narrowgauge")
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"cache folder must be a directory, not the file {self.folder}")
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, not {max_bytes}")
        self.max_bytes = max_bytes
        self._unswept_bytes = 0

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def get(self, key: str) -> bytes | None:
        """Bytes stored under ``key``; None when absent or damaged."""
        path = self._path(key)
        try:
            checksum, _, data = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if checksum != hashlib.sha256(data).hexdigest().encode():
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of use decides what a sweep removes
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``; the last of several writers wins."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
                try:
                    file.write(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
                    file.close()
                    os.replace(file.name, path)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(file.name)
                    raise
        except OSError:
            return
        self._unswept_bytes += len(data)
        if self._unswept_bytes * SWEEPS_PER_BOUND > self.max_bytes:
            self.sweep()

    def compute(self, key: str, function: Callable[[], bytes]) -> bytes:
        """Bytes stored under ``key``, or those that ``function`` returns, which are then stored."""
        data = self.get(key)
        if data is None:
            data = function()
            self.put(key, data)
        return data

    def compute_json(self, key: str, function: Callable[[], object]) -> object:
        """Like `compute` for a value of JSON's types; returns the value as read back from JSON."""
        return json.loads(self.compute(key, lambda: json.dumps(function()).encode()))

    def sweep(self) -> None:
        """Remove the entries used longest ago until the rest fits, and files of killed writers."""
        self._unswept_bytes = 0
        # Another process that sweeps at this moment does the same work.
        lock = filelock.FileLock(self.folder / "sweep.lock", timeout=0)
        with contextlib.suppress(filelock.Timeout, OSError), lock:
            self._sweep()

    def _sweep(self) -> None:
        entries = []
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                if not path.name.startswith("."):
                    entries.append((status.st_mtime_ns, status.st_size, path))
                elif time.time() - status.st_mtime > ABANDONED_SECONDS:
                    path.unlink()
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size

"""Folders of results that appear whole or not at all.

A result is filled in a folder beside its place, on the same file system, and then renamed.  With it
goes a list of its files and their hashes (:data:`MANIFEST`, in the form that ``sha256sum -c``
reads), by which a later run knows what it may replace: an earlier result of the same command, to
which nobody added and in which nobody changed anything.  Of several runs with one place, each
replaces the result of the one before as a whole.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from narrowgauge.signals import deferred

__all__ = ["MANIFEST", "result_folder", "write_text"]

#: Lists the files of a result.
MANIFEST = ".narrowgauge"

#: Start of the name of a folder that is being filled.  One that is left over belongs to a run that
#: was killed, or to one that goes on, and is no result.
PARTIAL = ".narrowgauge-"

#: Errors of the medium; they do not name a file.
MEDIUM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def write_text(path: Path, text: str) -> None:
    """Write a text file, the same bytes on every system.

    Parameters
    ----------
    path : Path
        File to write.
    text : str
        Written as UTF-8; what is no character, as in a file name that is not UTF-8, is escaped.
    """
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


@contextlib.contextmanager
def result_folder(path: str | Path, command: str) -> Iterator[Path]:
    """Folder to fill in a ``with`` block; it gets its name when the block ends without an error.

    Everything that would prevent the result from being written is found before the block runs, as
    far as it can be.  After an error or an interruption all is as before.

    Parameters
    ----------
    path : str or Path
        Where the result belongs: nothing, an empty folder, or an earlier result of ``command``.
        Folders above it are made.  A folder that exists is kept, with its permissions, and its
        contents are exchanged; so it may be the working directory or a mount.
    command : str
        Which command writes.

    Yields
    ------
    Path
        Empty folder.

    Raises
    ------
    ValueError
        If ``path`` is something else, or cannot be written.
    """
    if not str(path):
        raise ValueError("output must be the name of a folder, not ''")
    # Through a symbolic link, so that the link stays.
    target = Path(os.path.realpath(path))
    missing = [folder for folder in (target, *target.parents) if not os.path.lexists(folder)]
    stage = None
    try:
        with _as_mistakes(path):
            with _locked(target):
                _earlier_entries(target, path, command)
            target.parent.mkdir(parents=True, exist_ok=True)
            stage = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent if missing else target))
            new = stage / "new"
            new.mkdir()
        with _as_mistakes(path, stage, target):
            yield new
            write_text(new / MANIFEST, _manifest(new, command))
            # Runs that began before there was a folder come one after the other too.
            with _locked(*([target.parent] if missing else []), target), deferred():
                if target.exists():
                    _exchange(_earlier_entries(target, path, command), stage, target)
                else:
                    new.rename(target)
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        # The nearest folder first; one that holds something by now stays.
        for folder in missing:
            if folder != target:
                with contextlib.suppress(OSError):
                    folder.rmdir()


@contextlib.contextmanager
def _locked(*folders: Path) -> Iterator[None]:
    """Keep other runs from exchanging what is in folders; one that is not there needs no lock.

    The folders themselves are locked, so that no file is left in them.  A file system without
    locks is no reason to lose a result.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            with contextlib.suppress(OSError):
                number = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, number)
                fcntl.flock(number, fcntl.LOCK_EX)
        yield


def _earlier_entries(target: Path, path: str | Path, command: str) -> list[Path]:
    """Entries of an earlier result, which may be replaced; refuses everything else."""
    try:
        target.lstat()
    except FileNotFoundError:
        return []
    if not target.is_dir():
        raise ValueError(f"output must be a folder, not the file {str(path)!r}")
    entries = [entry for entry in sorted(target.iterdir()) if not entry.name.startswith(PARTIAL)]
    if not entries:
        return []
    rule = f"output must be new, empty or an earlier result of narrowgauge {command}"
    known = _read_manifest(target / MANIFEST, command)
    if known is None:
        raise ValueError(f"{rule}, not {str(path)!r} with {entries[0].name!r} in it")
    for name in _file_names(entries):
        relative = name.relative_to(target).as_posix()
        if relative != MANIFEST and relative not in known:
            raise ValueError(f"{rule} alone, not {str(path)!r} with {relative!r} added")
        if relative != MANIFEST and known[relative] != _hash(name):
            raise ValueError(f"{rule} as it was, not {str(path)!r} with {relative!r} changed")
    return entries


def _exchange(old_entries: Sequence[Path], stage: Path, target: Path) -> None:
    """Put what is in ``stage / "new"`` in the place of ``old_entries``; undo all if that fails."""
    old = stage / "old"
    old.mkdir()
    moves = [(entry, old / entry.name) for entry in old_entries]
    moves += [(entry, target / entry.name) for entry in sorted((stage / "new").iterdir())]
    done: list[tuple[Path, Path]] = []
    try:
        for source, place in moves:
            source.rename(place)
            done.append((source, place))
    except OSError:
        for source, place in reversed(done):
            place.rename(source)
        raise


def _manifest(folder: Path, command: str) -> str:
    """List of the files of a result."""
    lines = [
        f"{_hash(name)}  {name.relative_to(folder).as_posix()}"
        for name in sorted(_file_names([folder]))
    ]
    return "\n".join([_heading(command), *lines, ""])


def _read_manifest(path: Path, command: str) -> dict[str, str] | None:
    """Hashes by file name; None unless ``command`` wrote the list."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    matches = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines[1:]]
    if lines[:1] != [_heading(command)]:
        return None
    return {match[2]: match[1] for match in matches if match}


def _heading(command: str) -> str:
    return f"# Files of a result of narrowgauge {command}."


def _file_names(entries: Sequence[Path]) -> Iterator[Path]:
    """All files in ``entries`` and the folders below."""
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from _file_names(sorted(entry.iterdir()))
        else:
            yield entry


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def _as_mistakes(path: str | Path, *folders: Path) -> Iterator[None]:
    """Say of an error of the file system in which output it happened.

    Errors with files outside of ``folders``, if any are given, are none of the output's.  One that
    was explained already named a folder that the user has never seen.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        ours = not folders or cause.errno in MEDIUM_ERRORS
        if isinstance(cause.filename, str | os.PathLike):
            ours = ours or any(Path(cause.filename).is_relative_to(one) for one in folders)
        if not ours:
            raise
        raise ValueError(
            f"output must be writable, not {str(path)!r} ({cause.strerror})"
        ) from cause

"""Results appear whole or not at all, and nothing of the user's is lost."""

import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from narrowgauge.output import MANIFEST, result_folder, write_text

NAMES = ["out", "two words", 'it\'s "quoted"', "line\nend", "-o", "größe"]


def write_result(path, files, command="compare"):
    with result_folder(path, command) as folder:
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_text(folder / name, text)


def fail_after_writing(path, error):
    with result_folder(path, "compare") as folder:
        (folder / "a.txt").write_text("unfinished")
        raise error


def contents(folder):
    """Text of all files below ``folder``, but for lists of files."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


@pytest.mark.parametrize("name", NAMES)
def test_new_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_result(name, {"a.txt": "one\n", "sub/b.txt": "two\n"})
    assert contents(tmp_path / name) == {"a.txt": "one\n", "sub/b.txt": "two\n"}
    # Nothing is left beside it.
    assert os.listdir(tmp_path) == [name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o777 & ~umask


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum")
def test_manifest_is_for_sha256sum(tmp_path):
    write_result(tmp_path / "out", {"a.txt": "one\n", "sub/b.txt": "two\n"})
    command = ["sha256sum", "--strict", "-c", MANIFEST]
    checked = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True)
    assert checked.stdout.splitlines() == ["a.txt: OK", "sub/b.txt: OK"]
    assert checked.returncode == 0


def test_appears_at_the_end(tmp_path):
    target = tmp_path / "out"
    with result_folder(target, "compare") as folder:
        (folder / "a.txt").write_text("one")
        assert not target.exists()
        # Renaming works within a file system only, which a folder beside the target is on.
        assert folder.is_relative_to(tmp_path)
    assert (target / "a.txt").read_text() == "one"
    # A folder that is there may be a mount, and so the only place on its file system.
    with result_folder(target, "compare") as folder:
        assert folder.is_relative_to(target)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_error_leaves_nothing(tmp_path, error):
    with pytest.raises(error):
        fail_after_writing(tmp_path / "deep" / "er" / "out", error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_error_keeps_earlier_result(tmp_path, error):
    write_result(tmp_path / "out", {"a.txt": "one"})
    before = contents(tmp_path)
    with pytest.raises(error):
        fail_after_writing(tmp_path / "out", error)
    assert contents(tmp_path) == before
    assert set(os.listdir(tmp_path / "out")) == {"a.txt", MANIFEST}


def test_folders_above_are_made(tmp_path):
    write_result(tmp_path / "deep" / "er" / "out", {"a.txt": "one"})
    assert contents(tmp_path) == {"deep/er/out/a.txt": "one"}


def test_empty_folder_is_filled(tmp_path):
    """The folder itself stays, as it must if it is a mount or somebody's working directory."""
    target = tmp_path / "out"
    target.mkdir(mode=0o750)
    before = target.stat()
    write_result(target, {"a.txt": "one"})
    assert contents(target) == {"a.txt": "one"}
    assert (target.stat().st_ino, target.stat().st_mode) == (before.st_ino, before.st_mode)


def test_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_result(".", {"a.txt": "one"})
    write_result(".", {"a.txt": "two"})
    assert sorted(os.listdir(".")) == sorted(["a.txt", MANIFEST])
    assert Path("a.txt").read_text() == "two"


@pytest.mark.parametrize("is_there", [True, False])
def test_symbolic_link(tmp_path, is_there):
    real, link = tmp_path / "real", tmp_path / "link"
    if is_there:
        real.mkdir()
    link.symlink_to(real)
    write_result(link, {"a.txt": "one"})
    assert link.is_symlink()
    assert contents(real) == {"a.txt": "one"}


def test_earlier_result_is_replaced(tmp_path):
    write_result(tmp_path / "out", {"a.txt": "one", "old.txt": "old", "sub/b.txt": "two"})
    write_result(tmp_path / "out", {"a.txt": "new", "c.txt": "three"})
    assert contents(tmp_path / "out") == {"a.txt": "new", "c.txt": "three"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert set(os.listdir(tmp_path / "out")) == {"a.txt", "c.txt", MANIFEST}


def test_deleted_file_is_no_obstacle(tmp_path):
    write_result(tmp_path / "out", {"a.txt": "one", "b.txt": "two"})
    (tmp_path / "out" / "b.txt").unlink()
    write_result(tmp_path / "out", {"a.txt": "new"})
    assert contents(tmp_path / "out") == {"a.txt": "new"}


def test_left_over_partial_folder_is_no_obstacle(tmp_path):
    """A run that was killed cannot tidy up; what it left must not lock everyone out."""
    (tmp_path / "out" / ".narrowgauge-x1" / "new").mkdir(parents=True)
    write_result(tmp_path / "out", {"a.txt": "one"})
    assert (tmp_path / "out" / "a.txt").read_text() == "one"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda out: (out / MANIFEST).unlink(),
            r"earlier result .* compare, not '.*' with 'a.txt'",
        ),
        (lambda out: (out / MANIFEST).write_text("mine"), r"earlier result .* compare, not '.*'"),
        (lambda out: (out / "notes.md").write_text("x"), r"alone, not '.*' with 'notes.md' added"),
        (lambda out: (out / "sub/x").write_text("x"), r"alone, not '.*' with 'sub/x' added"),
        (lambda out: (out / "a.txt").write_text("x"), r"as it was, not '.*' with 'a.txt' changed"),
    ],
)
def test_foreign_files_are_never_touched(tmp_path, change, message):
    out = tmp_path / "out"
    write_result(out, {"a.txt": "one", "sub/b.txt": "two"})
    change(out)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        write_result(out, {"a.txt": "new"})
    assert contents(tmp_path) == before


def test_refused_before_the_work(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with (
        pytest.raises(ValueError, match=r"not '.*' with 'mine.txt' in it"),
        result_folder(tmp_path, "compare"),
    ):
        pytest.fail("the work was begun")


def test_added_while_working(tmp_path):
    def add():
        with result_folder(tmp_path / "out", "compare"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(ValueError, match=r"with 'mine.txt' in it"):
        add()
    assert contents(tmp_path) == {"out/mine.txt": "mine"}


def test_result_of_another_command(tmp_path):
    write_result(tmp_path / "out", {"a.txt": "one"}, "generate")
    with pytest.raises(ValueError, match="an earlier result of narrowgauge compare, not"):
        write_result(tmp_path / "out", {"a.txt": "two"}, "compare")


def test_file_instead_of_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"output must be a folder, not the file '.*file'"):
        write_result(tmp_path / "file", {})
    with pytest.raises(ValueError, match=r"output must be writable, not '.*file/out' \("):
        write_result(tmp_path / "file" / "out", {})
    assert contents(tmp_path) == {"file": "mine"}


def test_no_name():
    with pytest.raises(ValueError, match="output must be the name of a folder, not ''"):
        write_result("", {})


def test_name_too_long(tmp_path):
    with pytest.raises(ValueError, match=r"output must be writable, not .*File name too long"):
        write_result(tmp_path / ("x" * 300), {})


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody can write")
def test_unwritable_folder():
    with pytest.raises(ValueError, match="output must be writable, not '/proc/out'"):
        write_result("/proc/out", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ValueError, match=r"output must be writable, .*Permission denied"):
            write_result(tmp_path / "out", {})
    finally:
        tmp_path.chmod(0o700)


def test_full_disk(tmp_path):
    """A limit on the size of files makes a write fail half-way, as a full disk does."""
    write_result(tmp_path / "out", {"a.txt": "one"})
    before = contents(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ValueError, match=r"writable, not '.*out' \(File too large\)"):
            write_result(tmp_path / "out", {"a.txt": "x" * 100_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == before
    assert set(os.listdir(tmp_path / "out")) == {"a.txt", MANIFEST}


def test_full_disk_that_was_explained_already(tmp_path):
    def write():
        with result_folder(tmp_path / "out", "generate") as folder:
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError as error:
                raise ValueError(f"folder must be writable, not {folder}") from error

    with pytest.raises(ValueError, match=r"output must be writable, not '.*out' \(No space left"):
        write()


def test_other_errors_are_not_the_outputs(tmp_path):
    missing = tmp_path / "missing.onnx"
    with pytest.raises(FileNotFoundError), result_folder(tmp_path / "out", "compare"):
        missing.read_bytes()


#: Writes results one after the other, each of files that say which one they belong to.
WRITER = """
import sys
from narrowgauge.output import result_folder, write_text
for number in range(25):
    with result_folder("out", "compare") as folder:
        for name in range(12):
            write_text(folder / f"{name}.txt", f"{sys.argv[1]} {number}")
"""


@pytest.mark.parametrize("is_there", [True, False])
def test_two_runs_in_one_folder(tmp_path, is_there):
    """The result is that of one of them, and none is told of files that the other changed."""
    if is_there:
        write_result(tmp_path / "out", {"0.txt": "old"})
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    assert [run.communicate(timeout=60)[1] for run in runs] == ["", ""]
    assert [run.returncode for run in runs] == [0, 0]
    written = contents(tmp_path / "out")
    assert sorted(written) == sorted(f"{name}.txt" for name in range(12))
    assert len(set(written.values())) == 1
    assert set(written.values()) <= {"one 24", "two 24"}
    assert set(os.listdir(tmp_path / "out")) == {*written, MANIFEST}
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("failing", range(1, 6))
def test_failed_exchange_is_undone(tmp_path, monkeypatch, failing):
    write_result(tmp_path / "out", {"a.txt": "one", "b.txt": "two"})
    before = contents(tmp_path)
    rename, calls = Path.rename, []

    def fail(self, target):
        calls.append(self)
        if len(calls) == failing:
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ValueError, match=r"output must be writable, .*\(Permission denied\)"):
        write_result(tmp_path / "out", {"a.txt": "new", "c.txt": "three"})
    assert len(calls) >= failing
    assert contents(tmp_path) == before


def test_interruption_waits_for_the_exchange(tmp_path, monkeypatch):
    """Even if another thread receives the signal."""
    write_result(tmp_path / "out", {"a.txt": "one", "b.txt": "two"})
    rename = Path.rename
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()

    def interrupted(self, target):
        os.kill(os.getpid(), signal.SIGINT)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_result(tmp_path / "out", {"a.txt": "new", "c.txt": "three"})
    finally:
        end.set()
        thread.join()
    assert contents(tmp_path) == {"out/a.txt": "new", "out/c.txt": "three"}


def test_text_that_is_no_text(tmp_path):
    """File names of other encodings reach Python as lone surrogates."""
    write_text(tmp_path / "a.txt", "caf\udce9\n")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\\udce9\n"

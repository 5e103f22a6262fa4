"""The cache on disk: what is kept, what is thrown away, and who may share it."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from synth.cache import ABANDONED_SECONDS, FOLDER_VARIABLE, Cache, content_key

KEYS = [content_key("entry", index) for index in range(6)]


def entry(folder, key):
    """The one file of a key."""
    (path,) = folder.glob(f"*/{key}")
    return path


def test_key_keeps_order_kinds_and_borders():
    parts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("c", "ab"),
        (b"ab", b"c"),
        (b"a", b"bc"),
        (b"1",),
        (1,),
        ("1",),
        (1.0,),
        (True,),
        (None,),
        ("None",),
        (),
    ]
    keys = [content_key(*each) for each in parts]
    assert len(set(keys)) == len(parts)
    assert keys == [content_key(*each) for each in parts]
    assert all(len(key) == 64 for key in keys)


def test_get_returns_what_was_put(tmp_path):
    cache = Cache(tmp_path / "new" / "folder")
    assert cache.get(KEYS[0]) is None
    for data in (b"", b"\n", b"one\ntwo\n", bytes(range(256)) * 100):
        cache.put(KEYS[0], data)
        assert cache.get(KEYS[0]) == data
    assert Cache(tmp_path / "new" / "folder").get(KEYS[0]) == data
    assert cache.get(KEYS[1]) is None


def test_compute_runs_once(tmp_path):
    cache = Cache(tmp_path)
    results = iter([b"first", b"second"])
    assert cache.compute(KEYS[0], lambda: next(results)) == b"first"
    assert cache.compute(KEYS[0], lambda: next(results)) == b"first"
    assert cache.compute(KEYS[1], lambda: next(results)) == b"second"


def test_compute_json(tmp_path):
    cache = Cache(tmp_path)
    value = {"list": [1, 2.5, None, "text"], "empty": {}}
    assert cache.compute_json(KEYS[0], lambda: value) == value
    assert cache.compute_json(KEYS[0], lambda: "other") == value


def test_failure_stores_nothing(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(ZeroDivisionError):
        cache.compute(KEYS[0], lambda: b"" * (1 // 0))
    assert cache.get(KEYS[0]) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data[:70],
        lambda data: data.replace(b"payload", b"paylord"),
        lambda data: b"0" + data[1:],
        lambda data: data + b"more",
        lambda data: data.replace(b"\n", b"", 1),
    ],
)
def test_damaged_entry_is_recomputed(tmp_path, damage):
    cache = Cache(tmp_path)
    cache.put(KEYS[0], b"payload" * 10)
    path = entry(tmp_path, KEYS[0])
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    assert cache.compute(KEYS[0], lambda: b"again") == b"again"
    assert cache.get(KEYS[0]) == b"again"


def test_folder_from_argument_variable_and_system(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "variable"))
    assert Cache(tmp_path / "argument").folder == tmp_path / "argument"
    assert Cache().folder == tmp_path / "variable"
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: f"{tmp_path}/system/{name}")
    assert Cache().folder == tmp_path / "system" / "narrowgauge"


def test_folder_that_cannot_be_used_misses(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = Cache(blocked / "below")
    cache.put(KEYS[0], b"data")
    assert cache.get(KEYS[0]) is None
    assert cache.compute(KEYS[0], lambda: b"result") == b"result"
    cache.sweep()


def test_bad_arguments(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ValueError, match=r"cache folder must be a directory, not the file .*file"):
        Cache(path)
    with pytest.raises(ValueError, match="max_bytes must be positive, not 0"):
        Cache(tmp_path, max_bytes=0)


def test_sweep_removes_what_was_used_longest_ago(tmp_path):
    cache = Cache(tmp_path, max_bytes=1 << 30)
    for index, key in enumerate(KEYS):
        cache.put(key, bytes(1000))
        os.utime(entry(tmp_path, key), (index, index))
    assert cache.get(KEYS[0]) is not None  # now the one used last
    Cache(tmp_path, max_bytes=3300).sweep()  # room for three, with their checksums
    kept = [key for key in KEYS if cache.get(key) is not None]
    assert kept == [KEYS[0], KEYS[4], KEYS[5]]


def test_folder_stays_bounded(tmp_path):
    cache = Cache(tmp_path, max_bytes=20_000)
    for index in range(200):
        cache.put(content_key(index), bytes(500))
        total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert total < 25_000
    assert cache.get(content_key(199)) is not None


def test_sweep_removes_files_of_killed_writers(tmp_path):
    cache = Cache(tmp_path)
    cache.put(KEYS[0], b"data")
    old, new = (entry(tmp_path, KEYS[0]).parent / name for name in (".old", ".new"))
    for path in (old, new):
        path.write_bytes(b"half")
    past = time.time() - ABANDONED_SECONDS - 60
    os.utime(old, (past, past))
    cache.sweep()
    assert not old.exists()
    assert new.exists()
    assert cache.get(KEYS[0]) == b"data"


def hammer(folder, seed):
    """Write and read a few keys, with sweeps in between; return the number of bad results."""
    generator = random.Random(seed)
    cache = Cache(folder, max_bytes=3000)
    bad = 0
    for _ in range(150):
        index = generator.randrange(len(KEYS))
        expected = bytes([index]) * 400
        if generator.random() < 0.5:
            cache.put(KEYS[index], expected)
        else:
            bad += cache.get(KEYS[index]) not in (None, expected)
    return bad


def test_processes_share_a_folder(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(hammer, [(str(tmp_path), seed) for seed in range(4)]) == [0] * 4


def test_killed_writer_leaves_whole_entries(tmp_path):
    code = (
        "import sys; from synth.cache import Cache, content_key\n"
        "cache = Cache(sys.argv[1]); index = 0\n"
        "while True:\n"
        "    cache.put(content_key('entry', index % 6), bytes([index % 6]) * 3_000_000)\n"
        "    print(index, flush=True); index += 1\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    for _ in range(7):
        assert process.stdout.readline()
    time.sleep(0.005)  # somewhere within a write
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait()
    cache = Cache(tmp_path)
    for index, key in enumerate(KEYS):
        assert cache.get(key) == bytes([index]) * 3_000_000


def test_writer_killed_before_its_entry_has_its_name(tmp_path):
    """What it wrote is no entry, and goes when nobody can be writing it any more."""
    code = (
        "import os, signal, sys; from synth.cache import Cache\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"Cache(sys.argv[1]).put({KEYS[0]!r}, b'data')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    cache = Cache(tmp_path)
    assert cache.get(KEYS[0]) is None
    assert cache.compute(KEYS[0], lambda: b"again") == b"again"
    past = time.time() - ABANDONED_SECONDS - 60
    os.utime(left, (past, past))
    cache.sweep()
    assert not left.exists()
    assert cache.get(KEYS[0]) == b"again"

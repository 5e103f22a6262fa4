"""Pages of docs/ show what the golden models say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def check(folder):
    return subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check", "--folder", folder],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_tables_and_pictures_are_fresh():
    result = check(DOCS)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tapered.md", "-2.00", "-2.50"),
        ("dybit.md", "1.50", "1.25"),
        ("dybit.svg", r"<!-- data: \w", "<!-- data: g"),
    ],
)
def test_stale_pages_are_named(tmp_path, name, old, new):
    folder = tmp_path / "docs"
    shutil.copytree(DOCS, folder)
    text, count = re.subn(old, new, (folder / name).read_text(), count=1)
    assert count == 1
    (folder / name).write_text(text)
    result = check(folder)
    assert (result.returncode, result.stdout) == (
        1,
        f"{name} is stale: run python docs/generate.py\n",
    )
    assert (folder / name).read_text() == text


def test_links_lead_somewhere():
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (DOCS / target).exists(), f"{page.name}: {target}"
        for path in re.findall(
            r"`((?:golden|hdl|bench|sim|synth|docs)/\w+\.py)`", page.read_text()
        ):
            assert (DOCS.parent / path).exists(), f"{page.name}: {path}"

"""What figures depend on besides the tools that have versions: the code of this project."""

import functools
from pathlib import Path

from synth.cache import content_key

__all__ = ["code_digest"]


@functools.cache
def code_digest() -> str:
    """Hash of the whole project's code and data, so that no cached row outlives a change."""
    root = Path(__file__).parents[1]
    folders = ("golden", "hdl", "synth", "narrowgauge", "narrowgauge/networks")
    paths = [path for folder in folders for path in sorted((root / folder).glob("*.py"))]
    # Pools that a network was retrained with.
    paths += sorted((root / "narrowgauge/networks").glob("*.npz"))
    return content_key(*(path.read_bytes() for path in paths))

"""Builds and runs one bench in the current folder; :mod:`sim.runner` starts it as a process.

Everything is under fixed names in that folder: ``launch.json`` says what to do, ``design.v`` is the
design; ``built`` appears when it was compiled and ``results.xml`` when its tests have run.
"""

import json
import os
import re
import signal
import threading
from pathlib import Path

from cocotb_tools import config
from cocotb_tools.runner import get_runner


def end_with_parent() -> None:
    """End this process and all that it started as soon as standard input closes."""
    # Out of the way, or the simulator would read it.
    parent = os.dup(0)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)

    def watch() -> None:
        os.read(parent, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Do what ``launch.json`` says."""
    end_with_parent()
    folder = Path.cwd()
    launch = json.loads((folder / "launch.json").read_text(encoding="utf-8"))

    # cocotb puts these paths into options that are split at spaces.
    tools = folder / "cocotb"
    tools.symlink_to(config.libs_dir.parent)
    config.libs_dir = tools / "libs"
    config.share_dir = tools / "share"

    runner = get_runner(launch["simulator"])
    runner.build(
        sources=[folder / "design.v"],
        hdl_toplevel=launch["top"],
        build_args=launch["build_args"],
        build_dir=folder / "build",
        timescale=("1ns", "1ps"),
    )
    (folder / "built").touch()
    names = "|".join(map(re.escape, launch["tests"]))
    runner.test(
        hdl_toplevel=launch["top"],
        test_module=launch["bench"],
        test_filter=rf"^{re.escape(launch['bench'])}\.({names})$" if names else None,
        seed=launch["seed"],
        build_dir=folder / "build",
        test_dir=folder,
        results_xml=str(folder / "results.xml"),
    )


if __name__ == "__main__":
    main()

"""Smallest clock period of a mapped netlist by OpenSTA, to check `synth.timing` against."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["find", "number", "period_ns", "run", "without_wires"]

#: Clock period that slack is taken at, in ns.
PERIOD_NS = 100.0


def find() -> str | None:
    """Path of OpenSTA; None if it is not installed."""
    return shutil.which("sta")


def without_wires(liberty: str) -> str:
    """Take the wire loads out of a Liberty text: `synth.timing` adds none by itself."""
    return re.sub(r"default_wire_load\w* *:.*", "", liberty)


def run(folder: Path, commands: Iterable[str]) -> str:
    """Run commands in a folder and return what OpenSTA says.

    It exits with 0 whatever happens, so errors are looked for in its words.

    Raises
    ------
    RuntimeError
        If there is one.
    """
    (folder / "commands.tcl").write_text("\n".join(commands))
    done = subprocess.run(
        ["sta", "-no_splash", "-exit", "commands.tcl"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    words = done.stdout + done.stderr
    if done.returncode or "Error" in words:
        raise RuntimeError(f"OpenSTA: {words[-1000:]}")
    return words


def number(pattern: str, words: str) -> float:
    """Find a number in what OpenSTA said by a pattern; RuntimeError if it is not there."""
    found = re.search(pattern, words)
    if found is None:
        raise RuntimeError(f"OpenSTA said nothing like {pattern!r}: {words[-1000:]}")
    return float(found[1])


def period_ns(
    folder: Path,
    module: Mapping[str, Any],
    libraries: Sequence[str],
    *,
    input_slew_ns: float,
    clock_slew_ns: float,
    output_load_ff: float,
    clock: str = "clk",
) -> float:
    """Find the smallest clock period of a mapped module, by OpenSTA.

    Parameters
    ----------
    folder : Path
        Folder with the libraries; OpenSTA works there.
    module : mapping
        Module as Yosys' ``write_json`` gives it.
    libraries : sequence of str
        Names of Liberty files in the folder.
    input_slew_ns, clock_slew_ns, output_load_ff : float
        As in `synth.timing.analyse`.
    clock : str
        Port of the clock, if there is one.
    """
    text, ports = _verilog(module)
    (folder / "netlist.v").write_text(text)
    inputs = " ".join(
        name
        for port, names in ports.items()
        for name in names
        if module["ports"][port]["direction"] == "input" and port != clock
    )
    clocks = [f"create_clock -name clock -period {PERIOD_NS}"]
    if clock in ports:
        clocks[0] += f" [get_ports {ports[clock][0]}]"
        clocks.append(f"set_clock_transition {clock_slew_ns} [get_clocks clock]")
    words = run(
        folder,
        [
            *(f"read_liberty {name}" for name in libraries),
            "set_cmd_units -time ns -capacitance fF",
            "read_verilog netlist.v",
            "link_design top",
            *clocks,
            f"set inputs [get_ports {{{inputs}}}]",
            f"set_input_transition {input_slew_ns} $inputs",
            "set_input_delay 0 -clock clock $inputs",
            "set_output_delay 0 -clock clock [all_outputs]",
            f"set_load {output_load_ff} [all_outputs]",
            "report_checks -digits 6",
        ],
    )
    return PERIOD_NS - number(r"([-\d.]+)\s+slack", words)


def _verilog(module: Mapping[str, Any]) -> tuple[str, dict[str, list[str]]]:
    """Write a netlist as module ``top`` in the little Verilog that OpenSTA understands.

    It has one port per bit; their names come with it, by port.
    """
    names: dict[str, list[str]] = {}
    lines: list[str] = []
    for number, (port, entry) in enumerate(module["ports"].items()):
        # Names of ports may be none of Verilog's.
        names[port] = [f"p{number}_{index}_" for index in range(len(entry["bits"]))]
        for name, bit in zip(names[port], entry["bits"], strict=True):
            lines.append(f"{entry['direction']} {name};")
            ends = (_net(bit), name) if entry["direction"] == "input" else (name, _net(bit))
            lines.append(f"assign {ends[0]} = {ends[1]};")
    for index, cell in enumerate(module["cells"].values()):
        pins = ", ".join(f".{pin}({_net(bit)})" for pin, (bit,) in cell["connections"].items())
        lines.append(f"{cell['type']} u{index} ({pins});")
    ports = ", ".join(name for bits in names.values() for name in bits)
    return "\n".join([f"module top ({ports});", *lines, "endmodule", ""]), names


def _net(bit: int | str) -> str:
    return f"n{bit}" if isinstance(bit, int) else f"1'b{bit}"

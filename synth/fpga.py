"""Mapping of Verilog to the cells of FPGA families with Yosys, and what they take of a device.

Each module is mapped by itself, so that an array of any size costs its distinct units and a user
sees where the cells are, or all of them together.  Yosys runs in a child process, as in
`synth.yosys`, and results are cached by their content.
"""

import json
import re
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from synth.cache import Cache, content_key
from synth.child import private_folder
from synth.yosys import run_yosys, yosys_version

__all__ = [
    "FAMILIES",
    "Device",
    "Family",
    "FpgaMemory",
    "FpgaModule",
    "FpgaNetlist",
    "Resources",
    "find_device",
    "map_fpga",
]

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")

# What Yosys says when it chooses the cells of a memory.
CHOICE = re.compile(r"^(?:mapping memory (\S+) via (\S+)|using FF mapping for memory (\S+))$", re.M)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What cells take of a device, or what a device has.

    Parameters
    ----------
    luts : int
        Look-up tables, those of carry chains and LUT RAMs included.
    flip_flops : int
        Flip-flops outside of block RAMs and DSPs.
    carries : int
        Cells of carry chains.
    lut_rams : int
        Cells of memories and shift registers made of look-up tables.
    block_rams : int
        Smallest block RAMs of the family: 4 Kbit for iCE40, 18 Kbit for the others.
    dsps : int
        Multipliers, or DSP slices.
    """

    luts: int = 0
    flip_flops: int = 0
    carries: int = 0
    lut_rams: int = 0
    block_rams: int = 0
    dsps: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return self._combined(lambda name: getattr(self, name) + getattr(other, name))

    def __mul__(self, count: int) -> "Resources":
        return self._combined(lambda name: getattr(self, name) * count)

    def _combined(self, value: Any) -> "Resources":
        return Resources(**{each.name: value(each.name) for each in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device of a family.

    Parameters
    ----------
    title : str
        Its name in the catalogue of its maker.
    package : str
        Package in which it is placed and routed.
    capacity : Resources
        What it has; ``carries`` and ``lut_rams`` are 0, for they take look-up tables.
    map_options : str
        Options of the family's ``synth`` command for it.
    place_options : tuple of str
        Arguments of nextpnr for it.
    """

    title: str
    package: str
    capacity: Resources
    map_options: str = ""
    place_options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of FPGAs.

    Parameters
    ----------
    title : str
        For tables.
    command : str
        Yosys' command that maps to it.
    apart_option : str
        Option of the command to leave modules apart.
    cells : mapping of str to Resources
        What a cell takes, by its type.
    lut_ram_mark : str
        Part of the names of Yosys' memory cells that are made of look-up tables.
    devices : mapping of str to Device
        By the name that users give; the first is the default.
    block_ram_bits : int
        Bits of the smallest block RAM.
    """

    title: str
    command: str
    apart_option: str = ""
    cells: Mapping[str, Resources]
    lut_ram_mark: str
    devices: Mapping[str, Device]
    block_ram_bits: int


def _each(types: str, resources: Resources) -> dict[str, Resources]:
    return dict.fromkeys(types.split(), resources)


FLIP_FLOP = Resources(flip_flops=1)
LUT = Resources(luts=1)
CARRY = Resources(carries=1)
NOTHING = Resources()

FAMILIES: Mapping[str, Family] = {
    # Lattice FPGA-DS-02029 (LP/HX) and FPGA-DS-02008 (UltraPlus).
    "ice40": Family(
        title="Lattice iCE40",
        command="synth_ice40",
        apart_option="-noflatten",
        cells={
            "SB_LUT4": LUT,
            "SB_CARRY": CARRY,  # beside a look-up table
            **_each(
                " ".join(
                    f"SB_DFF{edge}{kind}"
                    for edge in ("", "N")
                    for kind in ("", "E", "R", "S", "SR", "SS", "ER", "ES", "ESR", "ESS")
                ),
                FLIP_FLOP,
            ),
            **_each(
                "SB_RAM40_4K SB_RAM40_4KNR SB_RAM40_4KNW SB_RAM40_4KNRNW", Resources(block_rams=1)
            ),
            "SB_MAC16": Resources(dsps=1),
        },
        lut_ram_mark="LUTRAM",  # has none
        devices={
            "hx8k": Device(
                title="iCE40HX8K",
                package="ct256",
                capacity=Resources(luts=7680, flip_flops=7680, block_rams=32),
                map_options="-device hx",
                place_options=("--hx8k", "--package", "ct256"),
            ),
            "up5k": Device(
                title="iCE40UP5K",
                package="sg48",
                capacity=Resources(luts=5280, flip_flops=5280, block_rams=30, dsps=8),
                map_options="-device u -dsp",
                place_options=("--up5k", "--package", "sg48"),
            ),
        },
        block_ram_bits=4096,
    ),
    # Lattice FPGA-DS-02012.
    "ecp5": Family(
        title="Lattice ECP5",
        command="synth_ecp5",
        apart_option="-noflatten",
        cells={
            "LUT4": LUT,
            "TRELLIS_FF": FLIP_FLOP,
            "CCU2C": Resources(luts=2, carries=1),
            # Two slices hold the bits; a third, whose tables cannot be used, writes.
            "TRELLIS_DPR16X4": Resources(luts=6, lut_rams=1),
            **_each("DP16KD PDPW16KD", Resources(block_rams=1)),
            "MULT18X18D": Resources(dsps=1),
            **_each("PFUMX L6MUX21", NOTHING),  # multiplexers behind look-up tables
        },
        lut_ram_mark="DPR16X4",
        devices={
            "25k": Device(
                title="LFE5U-25F",
                package="CABGA381",
                capacity=Resources(luts=24288, flip_flops=24288, block_rams=56, dsps=28),
                place_options=("--25k", "--package", "CABGA381", "--speed", "6"),
            ),
            "45k": Device(
                title="LFE5U-45F",
                package="CABGA554",
                capacity=Resources(luts=43848, flip_flops=43848, block_rams=108, dsps=72),
                place_options=("--45k", "--package", "CABGA554", "--speed", "6"),
            ),
            "85k": Device(
                title="LFE5U-85F",
                package="CABGA756",
                capacity=Resources(luts=83640, flip_flops=83640, block_rams=208, dsps=156),
                place_options=("--85k", "--package", "CABGA756", "--speed", "6"),
            ),
        },
        block_ram_bits=18432,
    ),
    # AMD DS180 (devices), UG474 (look-up tables of LUT RAMs), UG473, UG479.
    "xilinx": Family(
        title="AMD (Xilinx) 7 series",
        # Pads and clock buffers belong to the design around this one.
        command="synth_xilinx -family xc7 -noiopad -noclkbuf",
        cells={
            **_each("LUT1 LUT2 LUT3 LUT4 LUT5 LUT6 INV", LUT),
            **_each("FDRE FDRE_1 FDSE FDSE_1 FDCE FDCE_1 FDPE FDPE_1", FLIP_FLOP),
            "CARRY4": CARRY,  # beside four look-up tables
            **_each("RAM32X1S RAM64X1S SRL16E SRLC32E", Resources(luts=1, lut_rams=1)),
            **_each("RAM128X1S RAM32X1D RAM64X1D", Resources(luts=2, lut_rams=1)),
            **_each("RAM256X1S RAM128X1D RAM32M RAM64M", Resources(luts=4, lut_rams=1)),
            "RAMB18E1": Resources(block_rams=1),
            "RAMB36E1": Resources(block_rams=2),
            "DSP48E1": Resources(dsps=1),
            **_each("MUXF7 MUXF8 GND VCC", NOTHING),
        },
        lut_ram_mark="LUTRAM",
        devices={
            "a35t": Device(
                title="XC7A35T",
                package="",
                capacity=Resources(luts=20800, flip_flops=41600, block_rams=100, dsps=90),
            ),
            "a100t": Device(
                title="XC7A100T",
                package="",
                capacity=Resources(luts=63400, flip_flops=126800, block_rams=270, dsps=240),
            ),
            "a200t": Device(
                title="XC7A200T",
                package="",
                capacity=Resources(luts=134600, flip_flops=269200, block_rams=730, dsps=740),
            ),
        },
        block_ram_bits=18432,
    ),
}


@dataclass(frozen=True, kw_only=True)
class FpgaMemory:
    """A memory of the design.

    Parameters
    ----------
    name : str
        Module and name in it.
    bits : int
        Bits of one instance.
    kind : str
        What it became: ``"block RAM"``, ``"LUT RAM"``, ``"flip-flops"``, or ``"constants"`` in
        look-up tables if nothing writes it.
    instances : int
        How often the design has it.
    """

    name: str
    bits: int
    kind: str
    instances: int


@dataclass(frozen=True, kw_only=True)
class FpgaModule:
    """A module that was mapped by itself.

    Parameters
    ----------
    name : str
        Its name.
    instances : int
        How often the design has it.
    cells_by_type : dict of str to int
        Its own cells, without those of the modules in it.
    """

    name: str
    instances: int
    cells_by_type: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class FpgaNetlist:
    """A design mapped to a family.

    Parameters
    ----------
    top : str
        Top module.
    family, device : str
        Key of `FAMILIES`, and of its devices.
    flat : bool
        Whether all modules were mapped together.
    modules : tuple of FpgaModule
        The top module first.
    memories : tuple of FpgaMemory
        In the order of their names.
    netlist : dict
        Modules by name, as Yosys' ``write_json`` gives them.
    tool : str
        Name and version of the tool.
    """

    top: str
    family: str
    device: str
    flat: bool
    modules: tuple[FpgaModule, ...]
    memories: tuple[FpgaMemory, ...]
    netlist: dict[str, Any]
    tool: str

    @property
    def cells_by_type(self) -> dict[str, int]:
        """Cells of the whole design."""
        total: Counter[str] = Counter()
        for module in self.modules:
            for cell, count in module.cells_by_type.items():
                total[cell] += count * module.instances
        return dict(sorted(total.items()))

    @property
    def resources(self) -> Resources:
        """What the whole design takes."""
        return self.take(self.cells_by_type)

    @property
    def capacity(self) -> Resources:
        """What the device has."""
        return FAMILIES[self.family].devices[self.device].capacity

    @property
    def others(self) -> dict[str, int]:
        """Cells that are none of the kinds that are counted, such as those a source names."""
        known = FAMILIES[self.family].cells
        return {cell: count for cell, count in self.cells_by_type.items() if cell not in known}

    def take(self, cells_by_type: Mapping[str, int]) -> Resources:
        """Sum what some cells take; those of other types take nothing."""
        known = FAMILIES[self.family].cells
        counted = (known.get(cell, NOTHING) * count for cell, count in cells_by_type.items())
        return sum(counted, Resources())


def find_device(family: str, device: str | None = None) -> tuple[str, Device]:
    """Device of a family.

    Parameters
    ----------
    family : str
        Key of `FAMILIES`.
    device : str, optional
        One of its devices; the first by default.

    Returns
    -------
    name : str
        Its name.
    device : Device
        Facts of it.

    Raises
    ------
    ValueError
        If there is none.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    devices = FAMILIES[family].devices
    name = next(iter(devices)) if device is None else device
    if name not in devices:
        raise ValueError(f"device must be one of {', '.join(devices)} for {family}, not {name!r}")
    return name, devices[name]


def map_fpga(
    verilog: str | Mapping[str, str],
    top: str,
    family: str,
    *,
    device: str | None = None,
    flat: bool = False,
    images: Mapping[str, str] | None = None,
    timeout_s: float = 300.0,
    cache: Cache | None = None,
) -> FpgaNetlist:
    """Map a design to the cells of an FPGA family; one result per content, kept in the cache.

    Memories become block RAMs or LUT RAMs where the family has those that do exactly what the
    source says, also when a word is read and written at once.

    Parameters
    ----------
    verilog : str or mapping of str to str
        Verilog-2005 source, or several by name; the names appear in error messages only.
    top : str
        Module to map.
    family : str
        Key of `FAMILIES`.
    device : str, optional
        Device of the family; the first by default.  The device decides whether there are DSPs.
    flat : bool
        Map all modules together: constants and unused parts are optimised across their borders,
        and large arrays take long.
    images : mapping of str to str, optional
        Text of each memory image that the source reads, by file name.
    timeout_s : float
        Longest time that it may take, in seconds.
    cache : Cache, optional
        Default: `Cache` in its default folder.

    Returns
    -------
    FpgaNetlist

    Raises
    ------
    ValueError
        If ``top`` is no identifier, an image's name is no plain file name, family or device is
        unknown, or the time is not positive.
    YosysError
        If Yosys refuses the design (syntax, unknown module, latch, combinational loop, undriven
        net), crashes or takes too long.
    """
    sources = {top: verilog} if isinstance(verilog, str) else dict(verilog)
    files = dict(images or {})
    if not IDENTIFIER.fullmatch(top):
        raise ValueError(f"top must be a plain Verilog identifier, not {top!r}")
    for name in files:
        if not re.fullmatch(r"\w+\.hex", name, re.ASCII):
            raise ValueError(f"images must be plain file names that end in .hex, not {name!r}")
    device, facts = find_device(family, device)
    if not timeout_s > 0:
        raise ValueError(f"timeout_s must be positive, not {timeout_s}")
    key = content_key(
        Path(__file__).read_bytes(),
        yosys_version(),
        top,
        family,
        facts.map_options,
        int(flat),
        len(sources),
        *sources.values(),
        *(part for image in files.items() for part in image),
    )

    def run() -> bytes:
        with private_folder() as folder:
            result = _map(folder, sources, files, top, FAMILIES[family], facts, flat, timeout_s)
        return zlib.compress(json.dumps(result, separators=(",", ":")).encode(), 1)

    cache = Cache() if cache is None else cache
    result = json.loads(zlib.decompress(cache.compute(key, run)))
    return FpgaNetlist(
        top=top,
        family=family,
        device=device,
        flat=flat,
        modules=tuple(FpgaModule(**module) for module in result["modules"]),
        memories=tuple(FpgaMemory(**memory) for memory in result["memories"]),
        netlist=result["netlist"],
        tool=yosys_version(),
    )


def _map(
    folder: Path,
    sources: Mapping[str, str],
    images: Mapping[str, str],
    top: str,
    family: Family,
    device: Device,
    flat: bool,
    timeout_s: float,
) -> dict[str, Any]:
    """Map a design in a private folder; what `FpgaNetlist` takes, in JSON's types."""
    names = {}
    for index, (name, text) in enumerate(sources.items()):
        (folder / f"source{index}.v").write_text(text, encoding="utf-8")
        names[f"source{index}.v"] = re.sub(r"\s", " ", name)
    for name, text in images.items():
        (folder / name).write_text(text, encoding="utf-8")
    option = "" if flat else family.apart_option
    log = run_yosys(
        [
            *(f"read_verilog source{index}.v" for index in range(len(sources))),
            f"hierarchy -check -top {top}",
            "proc -latches error",
            *(["flatten"] if flat else []),
            # Before optimisation, which can hide a loop or an undriven net.
            "check -assert",
            "write_json before.json",
            " ".join((family.command, option, device.map_options, "-top", top)),
            "write_json after.json",
        ],
        folder,
        top=top,
        names=names,
        deadline=time.monotonic() + timeout_s,
        timeout_s=timeout_s,
    )
    modules = json.loads((folder / "after.json").read_text())["modules"]
    own = {
        name: module
        for name, module in modules.items()
        if not int(module["attributes"].get("blackbox", "0"), 2)
    }
    counts = _instances(own, top)
    before = json.loads((folder / "before.json").read_text())["modules"]
    return {
        "modules": [
            {
                "name": name,
                "instances": count,
                "cells_by_type": dict(sorted(_types(own[name], own, is_own=False).items())),
            }
            for name, count in counts.items()
        ],
        "memories": list(_memories(log, before, counts, family)),
        "netlist": {name: own[name] for name in counts},
    }


def _types(module: Mapping[str, Any], own: Mapping[str, Any], *, is_own: bool) -> Counter[str]:
    """Instances in a module of the design's modules, or of all else."""
    types = (cell["type"] for cell in module["cells"].values())
    return Counter(name for name in types if (name in own) == is_own and name != "$scopeinfo")


def _instances(own: Mapping[str, Any], top: str) -> dict[str, int]:
    """Instances of each module in the whole design, each module after those that hold it."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        for child in _types(own[name], own, is_own=True):
            if child not in order:
                visit(child)
        order[name] = None

    visit(top)
    counts = Counter({top: 1})
    for name in reversed(order):
        for child, count in _types(own[name], own, is_own=True).items():
            counts[child] += counts[name] * count
    return {name: counts[name] for name in reversed(order)}


def _memories(
    log: str, before: Mapping[str, Any], counts: Mapping[str, int], family: Family
) -> list[dict[str, Any]]:
    """Find in the log what became of each memory."""
    found = {}
    for module, content in before.items():
        written = {
            cell["parameters"]["MEMID"].lstrip("\\")
            for cell in content["cells"].values()
            if cell["type"].startswith("$memwr")
        }
        for name, memory in content.get("memories", {}).items():
            bits = memory["width"] * memory["size"]
            found[f"{module}.{name}"] = bits, name in written, counts.get(module, 0)
    memories = []
    for name, cell, plain in CHOICE.findall(log):
        label = (name or plain).replace("\\", "")
        if label not in found:
            continue
        bits, is_written, instances = found[label]
        if cell:
            kind = "LUT RAM" if family.lut_ram_mark in cell else "block RAM"
        else:
            kind = "flip-flops" if is_written else "constants"
        # Yosys makes memories of tables in the source, too.
        if kind != "constants" or "$" not in label:
            memories.append({"name": label, "bits": bits, "kind": kind, "instances": instances})
    return sorted(memories, key=lambda memory: str(memory["name"]))

"""Foreign Verilog and SystemVerilog, made plain and checked for what can be measured.

Yosys reads the sources with slang, a front end for SystemVerilog, or with its own one for
Verilog-2005.  It flattens them and writes them as plain Verilog, which `synth.yosys.map_netlist`
then maps like any design of ours.  In between stand the checks: one clock, no latch, no driver of
three states, no combinational loop, memories small enough to become flip-flops.

Names of the user never become part of a script: Yosys gets them as arguments, files as links with
names of ours.
"""

import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synth.child import (
    MEMORY_VARIABLE,
    memory_limit_gib,
    private_folder,
    read_json,
    read_verilog,
    run_child,
)

__all__ = [
    "MAX_MEMORY_BITS",
    "MAX_SOURCE_BYTES",
    "READERS",
    "RESET_NAME",
    "STANDARDS",
    "ForeignDesign",
    "ForeignError",
    "ForeignPort",
    "read_foreign",
]

#: Memories become flip-flops, and an ASIC flow would take macros for larger ones.
MAX_MEMORY_BITS = 1 << 16
#: All files together; the largest open designs have a few megabytes.
MAX_SOURCE_BYTES = 64 << 20
#: Language standards, as slang names them.
STANDARDS = ("1364-2005", "1800-2017", "1800-2023")

#: Front ends.
READERS = ("slang", "yosys")

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
#: A control port of registers is taken for a synchronous reset only if it is called so.
RESET_NAME = re.compile(r"rst|reset", re.IGNORECASE)

# Delays and assertions are common in sources, and nothing that synthesis makes; loops of initial
# blocks go through whole memories.
OPTIONS = (
    *("--error-limit", "16", "--unroll-limit", str(MAX_MEMORY_BITS)),
    *("--ignore-timing", "--ignore-assertions"),
)

# Commands come with their arguments apart, so that no name is taken for anything else.
CHILD = """\
import json, os
from pyosys import libyosys
design = libyosys.Design()
folder = os.getcwd()
for job in json.load(open("jobs.json")):
    os.chdir(job["cwd"] or folder)
    libyosys.Pass.call(design, job["words"])
"""

# Leaves nothing that a chip does not have: it does not start with values.  Contents of read-only
# memories are constants by then.
PLAIN = ("delete t:$print t:$check", "setattr -unset init w:*", "setundef -undriven -zero")
RISING = ("setparam -set CLK_POLARITY 1'1 r:CLK_POLARITY",)
# Takes apart cells that Verilog has no expression for.
EXPRESSIONS = ("bmuxmap", "demuxmap", "bwmuxmap")

# Cells of Yosys that hold a value while their enable is off.
LATCHES = ("$dlatch", "$adlatch", "$dlatchsr", "$sr", "$_DLATCH", "$_DLATCHSR", "$_SR_")
THREE_STATES = ("$tribuf", "$_TBUF_")
# Asynchronous controls of flip-flops and the parameters with their active levels.
ASYNCHRONOUS = (
    ("ARST", "ARST_POLARITY"),
    ("ALOAD", "ALOAD_POLARITY"),
    ("SET", "SET_POLARITY"),
    ("CLR", "CLR_POLARITY"),
)
SYNCHRONOUS = (("SRST", "SRST_POLARITY"),)

# How the escaped name of one backslash comes out of slang and Yosys: with nothing behind it.
EMPTY_NAME = "\\"

Module = Mapping[str, Any]
# A command: a text of ours, or words and the folder to run it in.
_Job = str | tuple[Sequence[str], str]


class ForeignError(ValueError):
    """The sources are wrong, or hold what cannot be measured; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class ForeignPort:
    """A port of the top module.

    Parameters
    ----------
    name : str
        Name in the source.
    direction : str
        ``"input"`` or ``"output"``.
    width : int
        Bits.
    """

    name: str
    direction: str
    width: int


@dataclass(frozen=True, kw_only=True)
class ForeignDesign:
    """A design as plain Verilog, and what was found out about it.

    Parameters
    ----------
    top : str
        Top module, the only one.
    verilog : str
        Verilog-2005.
    ports : tuple of ForeignPort
        In the order of the module.
    clock : str or None
        Port that clocks all flip-flops; None for a combinational design.
    falling_edge : bool
        Whether the source clocks with the falling edge; ``verilog`` has the rising one.
    resets : dict of str to int
        Ports that reset flip-flops, and their active levels.
    memory_bits : int
        Bits of memories that become flip-flops.
    notes : tuple of str
        What was changed or assumed, one sentence each.
    modules : dict of str to dict
        Modules of the design as the JSON of Yosys, before they are put into one another; empty if
        they were not asked for.
    """

    top: str
    verilog: str
    ports: tuple[ForeignPort, ...]
    clock: str | None
    falling_edge: bool
    resets: dict[str, int] = field(default_factory=dict)
    memory_bits: int = 0
    notes: tuple[str, ...] = ()
    modules: dict[str, Any] = field(default_factory=dict)


def read_foreign(
    files: Iterable[str | os.PathLike[str]],
    top: str,
    *,
    defines: Mapping[str, str] | None = None,
    includes: Iterable[str | os.PathLike[str]] = (),
    parameters: Mapping[str, str] | None = None,
    standard: str | None = None,
    reader: str = "slang",
    max_memory_bits: int = MAX_MEMORY_BITS,
    keep_memories: bool = False,
    hierarchy: bool = False,
    timeout_s: float = 300.0,
) -> ForeignDesign:
    """Read a design.

    Parameters
    ----------
    files : iterable of path
        Verilog and SystemVerilog sources; each is a compilation unit.
    top : str
        Top module.
    defines : mapping of str to str, optional
        Macros and their texts.
    includes : iterable of path
        Folders of included files, besides that of the file that includes.
    parameters : mapping of str to str, optional
        Parameters of the top module and their values, as expressions of Verilog.
    standard : str, optional
        One of `STANDARDS`, of slang; by default the one that slang takes.
    reader : str
        ``"slang"``, for SystemVerilog, or ``"yosys"``, for Verilog-2005 as our own designs are
        read: a source in which nothing has to be changed is then mapped as it is.
    max_memory_bits : int
        Most bits of all memories.
    keep_memories : bool
        Leave memories, of any size, as they are, for FPGA families; else they become flip-flops.
    hierarchy : bool
        Read the modules apart too, for `synth.hierarchy`.
    timeout_s : float
        Longest time that it may take, in seconds.

    Returns
    -------
    ForeignDesign

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If an argument is out of range.
    ForeignError
        If the sources are wrong, hold what cannot be measured, or take too long.
    """
    paths, folders = [*map(Path, files)], [*map(Path, includes)]
    macros, values = dict(defines or {}), dict(parameters or {})
    _require_words(top, macros, values)
    if standard is not None and standard not in STANDARDS:
        raise ValueError(f"standard must be one of {', '.join(STANDARDS)}, not {standard!r}")
    if reader not in READERS:
        raise ValueError(f"reader must be one of {', '.join(READERS)}, not {reader!r}")
    if standard is not None and reader != "slang":
        raise ValueError(f"standard must be left out for reader {reader}, not {standard!r}")
    if max_memory_bits < 0:
        raise ValueError(f"max_memory_bits must not be negative, not {max_memory_bits}")
    if not timeout_s > 0:
        raise ValueError(f"timeout_s must be positive, not {timeout_s}")
    _require_files(paths)
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"include must be a folder, not {str(folder)!r}")
    _require_parameters(values, paths)

    with private_folder() as private:
        flow = _Flow(private, top, timeout_s)
        words = [f"-D{name}={text}" for name, text in macros.items()]
        # Yosys' own reader looks for included files beside the link, not beside the file.
        beside = [path.parent for path in paths] if reader == "yosys" else []
        for index, folder in enumerate([*folders, *beside]):
            words += ["-I", flow.link(folder, f"include{index}")]
        words += [flow.link(path, f"source{index}.sv") for index, path in enumerate(paths)]
        if reader == "slang":
            flow.read_slang(words, values, standard)
        else:
            flow.read_verilog(words, values)
        raw, found = flow.inspect("raw.json"), flow.inspect("design.json")
        raw.require_live_clocks()
        found.require_measurable(None if keep_memories else max_memory_bits)
        is_as_it_is = reader == "yosys" and not (macros or values or folders)
        sources = [_text(path) for path in paths] if is_as_it_is else None
        notes = raw.notes(keep_memories=keep_memories)
        design = flow.plain(found, notes, sources, keep_memories=keep_memories)
        if not hierarchy:
            return design
        return replace(design, modules=flow.modules(is_falling=design.falling_edge))


def _require_words(top: str, macros: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Refuse names that are none of Verilog, and texts of several lines."""
    named: tuple[tuple[str, Iterable[str]], ...] = (
        ("top", [top]),
        ("define", macros),
        ("parameter", values),
    )
    for label, names in named:
        for name in names:
            if not IDENTIFIER.fullmatch(name):
                raise ValueError(f"{label} must be a plain Verilog identifier, not {name!r}")
    for label, texts in (("define", macros), ("parameter", values)):
        for name, text in texts.items():
            if not text.isprintable():
                raise ValueError(f"{label} {name} must be one line of text, not {text!r}")


def _require_files(paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError("files must be at least one, not none")
    total = 0
    for path in paths:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"files must be regular files, not {str(path)!r}")
        path.open("rb").close()
        total += status.st_size
    if total > MAX_SOURCE_BYTES:
        raise ValueError(
            f"files must hold at most {MAX_SOURCE_BYTES >> 20} MB, not {total / (1 << 20):.1f} MB"
        )


def _require_parameters(values: Mapping[str, str], paths: Sequence[Path]) -> None:
    """Refuse a parameter that no file has: slang would pass over it."""
    if not values:
        return
    texts = [_text(path) for path in paths]
    for name in values:
        word = re.compile(rf"(?<![A-Za-z0-9_$]){re.escape(name)}(?![A-Za-z0-9_$])")
        if not any(word.search(text) for text in texts):
            raise ValueError(f"parameter must be one of the design, not {name!r}")


def _text(path: Path) -> str:
    """Text of a file, whose comments may be in any encoding."""
    return path.read_text(encoding="utf-8", errors="replace")


class _Flow:
    """Yosys at work on one design in a private folder."""

    def __init__(self, folder: Path, top: str, timeout_s: float) -> None:
        self.folder = folder
        self.top = top
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.names: dict[str, str] = {}
        self.jobs: tuple[_Job, ...] = ()

    def link(self, target: Path, name: str) -> str:
        """Path of a link to a file or folder, without any special character in its name."""
        path = self.folder / name
        path.symlink_to(os.path.abspath(target))
        self.names[str(path)] = os.path.relpath(target)
        return str(path)

    def read_slang(
        self, words: Sequence[str], values: Mapping[str, str], standard: str | None
    ) -> None:
        """Read the sources with slang."""
        options = [*OPTIONS, *(("--std", standard) if standard else ()), "--top", self.top]
        for name, text in values.items():
            options += ["-G", f"{name}={text}"]
        # Files that the source names belong to the folder in which the user works.
        self._read((["read_slang", *options, *words], os.getcwd()), "hierarchy -check")

    def read_verilog(self, words: Sequence[str], values: Mapping[str, str]) -> None:
        """Read the sources with Yosys' own front end."""
        options = ["-check", "-top", self.top]
        for name, text in values.items():
            options += ["-chparam", name, text]
        self._read((["read_verilog", *words], os.getcwd()), (["hierarchy", *options], ""))

    def _read(self, *jobs: "_Job") -> None:
        """Read the sources and write the flat module, as it is and optimised for inspection."""
        self.jobs = jobs
        self._run(
            *jobs,
            "proc",
            "flatten",
            "tribuf",
            # Before optimisation, which can hide a loop.
            "tee -q -o check.txt check",
            "write_rtlil design.il",
            "opt_clean",
            "write_json raw.json",
            "opt_expr",
            "opt_clean",
            "opt_dff",
            "opt_clean",
            "write_json design.json",
        )

    def inspect(self, name: str) -> "_Inspection":
        """Look at what stands in the flat module of a file."""
        return _Inspection(
            read_json(self.folder / name)["modules"][self.top], self.findings(), self.names
        )

    def findings(self) -> list[str]:
        """Read what Yosys' check found, one text for each."""
        text = _text(self.folder / "check.txt")
        text = text.partition("Found and reported")[0]
        return [part.strip() for part in text.split("Warning: ")[1:]]

    def plain(
        self,
        found: "_Inspection",
        changes: Iterable[str],
        texts: Sequence[str] | None,
        *,
        keep_memories: bool,
    ) -> ForeignDesign:
        """Make plain Verilog of the design; ``texts`` if nothing in them has to be changed."""
        clock, is_falling = found.clock()
        notes = list(changes)
        if is_falling:
            notes.append(f"{clock} clocks with its falling edge; measured as the rising one")
        is_as_it_is = texts is not None and not notes
        return ForeignDesign(
            top=self.top,
            verilog=(
                "\n".join(texts or ())
                if is_as_it_is
                else self._plain(found, is_falling, keep_memories=keep_memories)
            ),
            ports=tuple(found.ports()),
            clock=clock,
            falling_edge=is_falling,
            resets=found.resets(clock),
            memory_bits=0 if keep_memories else found.memory_bits(written=True),
            notes=tuple(notes),
        )

    def modules(self, *, is_falling: bool) -> dict[str, Any]:
        """Read the sources again and leave the modules apart, but for those of interfaces."""
        jobs = [
            (["read_slang", "--best-effort-hierarchy", *job[0][1:]], job[1])
            if isinstance(job, tuple) and job[0][0] == "read_slang"
            else job
            for job in self.jobs
        ]
        try:
            self._run(
                *jobs,
                "proc",
                "memory -nomap",
                "memory_map",
                *PLAIN,
                *(RISING if is_falling else ()),
                *EXPRESSIONS,
                "opt_clean",
                "write_json modules.json",
            )
        except ForeignError as error:
            # It could be read flat, so that this is not for the user to put right.
            raise ForeignError(
                f"hierarchy must be left out for {self.top}, whose modules cannot be read apart: "
                f"{error}"
            ) from None
        modules: dict[str, Any] = read_json(self.folder / "modules.json")["modules"]
        return modules

    def _plain(self, found: "_Inspection", is_falling: bool, *, keep_memories: bool) -> str:
        rising = RISING if is_falling else ()
        # A name that is but the backslash of escaped names is none in the Verilog of Yosys.
        nameless = ["rename -hide w:*"] if found.has_empty_name else []
        # Bits of a word with one enable are known as such only then; block RAMs have one for each
        # byte.
        memories = (
            ["opt -full", "memory -nomap"] if keep_memories else ["memory -nomap", "memory_map"]
        )
        self._run(
            "read_rtlil design.il",
            *memories,
            *PLAIN,
            *rising,
            *nameless,
            *EXPRESSIONS,
            "opt_clean",
            "write_verilog -noattr design.v",
        )
        return read_verilog(self.folder / "design.v")

    def _run(self, *jobs: _Job) -> None:
        """Run commands in a child process."""
        pairs = [(job.split(), "") if isinstance(job, str) else job for job in jobs]
        listing = [{"words": list(words), "cwd": cwd} for words, cwd in pairs]
        (self.folder / "jobs.json").write_text(json.dumps(listing), encoding="utf-8")
        limit_gib = memory_limit_gib()
        ended = run_child(
            CHILD,
            self.folder,
            seconds=self.deadline - time.monotonic(),
            memory_gib=limit_gib,
        )
        if ended.status is None:
            raise ForeignError(f"Yosys took longer than {self.timeout_s:g} s to read {self.top}")
        if ended.out_of_memory:
            raise ForeignError(
                f"Yosys needs more than {limit_gib:g} GiB of memory to read {self.top}; "
                f"{MEMORY_VARIABLE} in the environment raises this limit"
            )
        if ended.signal_name is not None:
            raise ForeignError(f"Yosys was ended by {ended.signal_name} while it read {self.top}")
        if ended.status:
            raise ForeignError(_reason(_renamed(ended.log, self.names), self.top))


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """Text with the names of files that the user knows, which slang takes anyway."""
    # The longest first: include1 is the beginning of include10.
    for ours in sorted(names, key=len, reverse=True):
        text = text.replace(ours, names[ours])
    return text


def _reason(log: str, top: str) -> str:
    """One line that says why Yosys stopped: the first error of the source, else its own."""
    lines = [line.strip() for line in log.splitlines()]
    errors = [line for line in lines if re.search(r"(^|: )(ERROR|FATAL ERROR): ", line)]
    errors = [line for line in errors if "Design elaboration failed" not in line]
    if not errors or "Assert " in errors[0]:
        lines = errors or lines
        return f"Yosys could not read {top}: {' | '.join(filter(None, lines[-3:])) or 'no reason'}"
    if errors[0].endswith("is not a valid top-level module"):
        return f"top must be a module of the files whose parameters have values, not {top!r}"
    first = errors[0].replace("FATAL ERROR: ", "").replace("ERROR: ", "")
    # What slang advises is an option of its own.
    first = re.sub(r",? (\(?(set|ignore with|allow with) '|\[)--.*", "", first)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"source must be correct, not as here: {first}{more}"


class _Inspection:
    """What stands in the flat module."""

    def __init__(self, module: Module, findings: Sequence[str], names: Mapping[str, str]) -> None:
        self.module = module
        self.findings = [_renamed(finding, names) for finding in findings]
        self.file_names = names
        self.cells: Mapping[str, Mapping[str, Any]] = module["cells"]
        self.names: dict[int, str] = {}
        for name, entry in sorted(
            module["netnames"].items(), key=lambda pair: (pair[1]["hide_name"], len(pair[0]))
        ):
            for index, bit in enumerate(entry["bits"]):
                full = name if len(entry["bits"]) == 1 else f"{name}[{index}]"
                self.names.setdefault(bit, full)
        self.driven = {
            bit
            for cell in self.cells.values()
            for pin, bits in cell["connections"].items()
            if cell["port_directions"].get(pin) == "output"
            for bit in bits
        }

    def ports(self) -> Iterator[ForeignPort]:
        """Ports of the module."""
        for name, port in self.module["ports"].items():
            yield ForeignPort(name=name, direction=port["direction"], width=len(port["bits"]))

    def require_measurable(self, max_memory_bits: int | None) -> None:
        """Refuse what the gauge has no measure for; None allows memories of any size."""
        for port in self.ports():
            if port.direction not in ("input", "output"):
                raise ForeignError(f"port {port.name} must be an input or an output, not an inout")
        if EMPTY_NAME in self.module["ports"]:
            raise ForeignError(r"port must have a name, not the escaped one '\ '")
        if not any(port.direction == "output" for port in self.ports()):
            raise ForeignError("design must have an output, not none")
        for name, cell in self.cells.items():
            if not cell["type"].startswith("$"):
                raise ForeignError(
                    f"design must hold no black box, not {name} of type {cell['type']}"
                    f"{self._place(cell)}"
                )
            if cell["type"] in THREE_STATES:
                raise ForeignError(
                    "design must have no driver of three states, not that of "
                    f"{self._output(cell)}{self._place(cell)}"
                )
            if cell["type"].startswith(LATCHES) or _is_latch_write(cell):
                raise ForeignError(
                    f"design must have no latch, not {self._output(cell)}{self._place(cell)}"
                )
        for finding in self.findings:
            if "is used but has no driver" in finding:
                continue  # such bits are a note
            first, *rest = (line.strip() for line in finding.splitlines())
            if "logic loop" not in first:
                text = first.replace("\\", "").rstrip(":")
                raise ForeignError(f"design must have one driver for each net, not {text}")
            places = [re.fullmatch(r"(wire|cell) \\?(\S+).* source: (\S+)", line) for line in rest]
            # Cells have no names of the user, only places.
            found = [
                f"{place[2]} ({self._line(place[3])})"
                for place in places
                if place and place[1] == "wire"
            ]
            found = found or [self._line(place[3]) for place in places if place]
            found = list(dict.fromkeys(found))
            raise ForeignError(
                "design must have no combinational loop, or latch in always_comb, not one through "
                f"{', '.join(found[:4]) or 'nets without names'}"
            )
        bits = self.memory_bits()
        if max_memory_bits is not None and bits > max_memory_bits:
            raise ForeignError(
                f"memories must hold at most {max_memory_bits} bits to become flip-flops and "
                f"gates, not {bits} ({', '.join(list(self.module.get('memories', {}))[:4])})"
            )

    @property
    def has_empty_name(self) -> bool:
        """Whether a net has the name that is empty."""
        return EMPTY_NAME in self.module["netnames"]

    def memory_bits(self, *, written: bool = False) -> int:
        """Bits of all memories, or of those that are written."""
        used = {
            cell["parameters"]["MEMID"].lstrip("\\")
            for cell in self.cells.values()
            if cell["type"].startswith("$memwr")
        }
        return sum(
            memory["width"] * memory["size"]
            for name, memory in self.module.get("memories", {}).items()
            if not written or name in used
        )

    def require_live_clocks(self) -> None:
        """Refuse flip-flops that wait for a clock that never comes: optimisation removes them."""
        for (root, _), place in self._clocks().items():
            inputs = (port["bits"] for port in self.module["ports"].values())
            if root not in self.driven and not any(root in bits for bits in inputs):
                raise ForeignError(
                    f"clock must be an input port of one bit, not {self._name(root)}, which "
                    f"nothing drives{place}"
                )

    def _clocks(self) -> dict[tuple[int | str, bool], str]:
        """Nets that clock flip-flops, whether with the rising edge, and one such place.

        Optimisation has taken inverters into the flip-flops, on the way to resets too.
        """
        roots: dict[tuple[int | str, bool], str] = {}
        for cell in self.cells.values():
            parameters, pins = cell["parameters"], cell["connections"]
            is_memory = cell["type"].startswith("$mem")
            if "CLK" not in pins or (is_memory and not _number(parameters["CLK_ENABLE"])):
                continue
            is_rising = bool(_number(parameters["CLK_POLARITY"]))
            roots.setdefault((pins["CLK"][0], is_rising), self._place(cell))
        return roots

    def clock(self) -> tuple[str | None, bool]:
        """Port that clocks all flip-flops, and whether its falling edge does."""
        roots = self._clocks()
        names = sorted({self._name(root) for root, _ in roots})
        if len(names) > 1:
            shown = ", ".join(names[:4]) + (" and more" if len(names) > 4 else "")
            raise ForeignError(f"design must have one clock, not {len(names)}: {shown}")
        if len(roots) > 1:
            raise ForeignError(f"flip-flops must use one edge of {names[0]}, not both")
        for (root, is_rising), place in roots.items():
            port = self._port(root)
            if port is None:
                raise ForeignError(
                    f"clock must be an input port of one bit, not {self._name(root)}{place}"
                )
            return port, not is_rising
        return None, False

    def resets(self, clock: str | None) -> dict[str, int]:
        """Input ports that reset flip-flops, with their active levels."""
        levels: dict[str, set[int]] = {}
        for cell in self.cells.values():
            for pins, named in ((ASYNCHRONOUS, False), (SYNCHRONOUS, True)):
                for pin, parameter in pins:
                    for bit in cell["connections"].get(pin, ()):
                        if not cell["type"].startswith("$mem"):
                            port = self._port(bit)
                            level = int(bool(_number(cell["parameters"][parameter])))
                            if port is not None and (not named or RESET_NAME.search(port)):
                                levels.setdefault(port, set()).add(level)
        # What is a reset at both levels is none.
        return {
            port: level
            for port, (level, *others) in sorted(levels.items())
            if not others and port != clock
        }

    def notes(self, *, keep_memories: bool) -> Iterator[str]:
        """Say what becomes of values that the source leaves open or that chips do not have."""
        undriven = [
            finding.split()[1].partition(".")[2].lstrip("\\")
            for finding in self.findings
            if "is used but has no driver" in finding
        ]
        if undriven:
            names = ", ".join(undriven[:3]) + (" and more" if len(undriven) > 3 else "")
            yield f"{len(undriven)} undriven nets are taken as 0: {names}"
        started = [
            name for name, net in self.module["netnames"].items() if "init" in net["attributes"]
        ]
        if started:
            names = ", ".join(started[:3]) + (" and more" if len(started) > 3 else "")
            yield f"initial values of registers are not taken: {names}"
        bits = self.memory_bits(written=True)
        if bits and not keep_memories:
            yield f"memories of {bits} bits are flip-flops here, not macros"

    def _place(self, entry: Mapping[str, Any]) -> str:
        """`` (file:line)`` of a cell, as far as it is known."""
        source = entry.get("attributes", {}).get("src", "")
        return f" ({self._line(source)})" if source else ""

    def _line(self, source: str) -> str:
        """``file:line`` of the attribute ``file:line.column-line.column|...``."""
        match = re.match(r"(.*?:\d+)\.", source)
        return _renamed(match[1] if match else source, self.file_names)

    def _port(self, bit: int | str) -> str | None:
        """Input port of this one bit."""
        for name, port in self.module["ports"].items():
            if port["direction"] == "input" and port["bits"] == [bit]:
                return str(name)
        return None

    def _name(self, bit: int | str) -> str:
        return self.names[bit] if isinstance(bit, int) else f"1'b{bit}"

    def _output(self, cell: Mapping[str, Any]) -> str:
        """Name of what a cell drives; of a memory's port, the memory."""
        if "MEMID" in cell["parameters"]:
            return str(cell["parameters"]["MEMID"]).lstrip("\\")
        pin = "Q" if "Q" in cell["connections"] else "Y"
        return self._name(cell["connections"][pin][0])


def _is_latch_write(cell: Mapping[str, Any]) -> bool:
    """Whether a memory is written without a clock."""
    is_write = cell["type"].startswith("$memwr")
    return is_write and not _number(cell["parameters"]["CLK_ENABLE"])


def _number(bits: str) -> int:
    """Parameter of a cell, which JSON holds as text of bits."""
    return int(str(bits).strip() or "0", 2)

"""Mapping of Verilog to the cells of a library with Yosys and ABC.

Yosys runs in a child process of its own session, because it can abort, hang or print without end:
the caller gets a mapped netlist or one `YosysError` of one line, and no process is left behind.
No name of the user's files reaches a script; texts are written under fixed names into a private
folder that is removed afterwards.
"""

import functools
import importlib.metadata
import json
import re
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import synth.bitheap
import synth.cells
import synth.liberty_writer
import synth.library
import synth.timing
from synth.bitheap import Adder, find_adder, has_sums, replace_sums
from synth.cache import Cache, content_key
from synth.cells import Cell, CellLibrary
from synth.child import (
    MEMORY_VARIABLE,
    memory_limit_gib,
    private_folder,
    read_json,
    read_verilog,
    run_child,
)
from synth.library import smallest_cell
from synth.timing import analyse

__all__ = [
    "RECIPES",
    "Attempt",
    "MappedNetlist",
    "Recipe",
    "YosysError",
    "map_netlist",
    "run_yosys",
    "yosys_version",
]

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")

CHILD = """\
from pyosys import libyosys
design = libyosys.Design()
for line in open("script.ys", encoding="ascii"):
    libyosys.run_pass(line.strip(), design)
"""


class YosysError(ValueError):
    """Yosys refused the design, crashed, or ran out of time; the message is one line."""


# A rule for Yosys' carry units.  Of two rules, Yosys takes the one whose name is first in the
# alphabet: "serial" is this one, but "ripple" is Yosys' own (Brent, Kung), as "brent-kung" is.  The
# rule that is read in vain only changes the order in which ABC sees the gates, and so the area by
# up to 3 %, which published figures depend on.
SERIAL_CARRY = """\
(* techmap_celltype = "$lcu" *)
module {name}(P, G, CI, CO);
  parameter WIDTH = 2;
  (* force_downto *) input [WIDTH-1:0] P, G;
  input CI;
  (* force_downto *) output [WIDTH-1:0] CO;
  assign CO[0] = G[0] | P[0] & CI;
  genvar i;
  generate
    for (i = 1; i < WIDTH; i = i + 1) assign CO[i] = G[i] | P[i] & CO[i - 1];
  endgenerate
endmodule
"""
# Of the two, Yosys' clock gates only know a reset that waits for the enable.
ENABLES = """\
(* techmap_celltype = "$sdffe" *)
module _80_reset_enables(CLK, EN, SRST, D, Q);
  parameter WIDTH = 1, CLK_POLARITY = 1, EN_POLARITY = 1, SRST_POLARITY = 1;
  parameter [WIDTH-1:0] SRST_VALUE = 0;
  input CLK, EN, SRST;
  input [WIDTH-1:0] D;
  output [WIDTH-1:0] Q;
  wire resets = SRST == SRST_POLARITY;
  $sdffce #(
    .WIDTH(WIDTH), .CLK_POLARITY(CLK_POLARITY), .EN_POLARITY(1'b1),
    .SRST_POLARITY(1'b1), .SRST_VALUE(SRST_VALUE)
  ) _TECHMAP_REPLACE_ (
    .CLK(CLK), .EN(EN == EN_POLARITY | resets), .SRST(resets), .D(D), .Q(Q)
  );
endmodule
"""

HEAPS = ("chain", "rows", "fast-rows", "gates")
SUMS = (*HEAPS, "yosys", "booth", "carry-save", "separate")
# What Yosys' ``synth`` is asked for besides.
SYNTH_OPTIONS = {"booth": "-booth", "carry-save": "-arith_tree", "separate": "-noalumacc"}
CARRIES = {
    "serial": "techmap -map +/techmap.v -map serial.v",
    "ripple": "techmap -map +/techmap.v -map carry.v",
    "brent-kung": "techmap",
    "sklansky": "techmap -map +/techmap.v -map +/choices/sklansky.v",
    "han-carlson": "techmap -map +/techmap.v -map +/choices/han-carlson.v",
    "kogge-stone": "techmap -map +/techmap.v -map +/choices/kogge-stone.v",
}

# ABC commands.  All but one end with buffers for large loads and sizes that suit the delay target.
PREPARE = "strash; ifraig; scorr; dc2; strash"
COVER = "dch -f; amap -m; strash; dc2; dch -f; amap -m; strash; dc2; dch -f; amap -m; topo"
SIZES = "buffer -c; upsize -D {target}; dnsize -D {target}; stime -p"
MAPPERS = {
    # Covering for area alone; mapping again from the mapped netlist finds smaller ones.
    "area": f"{PREPARE}; {COVER}; {SIZES}",
    "unsized": f"{PREPARE}; {COVER}; stime -p",
    "delay": f"{PREPARE}; &get -n; &dch -f; &nf -D {{target}}; &put; {SIZES}",
    # Rewriting for area makes chains of prefix adders: these two leave them as they are, and the
    # last one even chooses no other structure while it covers.
    "speed": f"strash; &get -n; &dch -f; &nf -D {{target}}; &put; {SIZES}",
    "prefix": f"strash; ifraig; scorr; &get -n; &nf -D {{target}}; &put; {SIZES}",
}
# Without a clock, no path is too long.
NO_TARGET_PS = 1_000_000.0
# A netlist that misses the clock by less than this share is mapped again for a shorter delay,
# by so many times what it missed.
CLOSE = 0.15
EXTRA = 1.3
# A half adder that saves less than this share of its gates' area is not worth its fixed size.
LEAST_GAIN = 0.01

ABC_DELAY = re.compile(r"Delay = *([0-9.]+) ps")
SUM_PREFIX = "narrowgauge_sum_"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One way to synthesise a design.

    Parameters
    ----------
    sums : str
        How sums of products are made: ``"chain"``, ``"rows"`` and ``"fast-rows"`` of adder cells
        of the library, see `synth.bitheap.replace_sums`; ``"gates"`` as ``"fast-rows"``, but of
        gates; ``"yosys"`` by Yosys, of gates; ``"booth"`` with Booth's encoding,
        ``"carry-save"`` by Yosys' own trees of carry-save adders, and ``"separate"`` with each
        product and sum by itself, all three by Yosys, of gates.
    carry : str
        Carry of the adders of two operands, key of `CARRIES`.
    mapper : str
        Key of `MAPPERS`.

    Raises
    ------
    ValueError
        If one of them is unknown.
    """

    sums: str
    carry: str
    mapper: str

    def __post_init__(self) -> None:
        for field, value, known in (
            ("sums", self.sums, SUMS),
            ("carry", self.carry, CARRIES),
            ("mapper", self.mapper, MAPPERS),
        ):
            if value not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Ways to synthesise a design, the one that is likely to be smallest first.

    The first netlist that meets the clock is taken; one that misses it by little is first mapped
    again for a shorter delay.  If none meets it, the fastest is taken.

    Parameters
    ----------
    description : str
        One line for reports.
    attempts : tuple of Attempt
        What to try.
    """

    description: str
    attempts: tuple[Attempt, ...]


RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(
        description="heaps of full adders; the smallest netlist that meets the clock",
        attempts=(
            Attempt(sums="chain", carry="ripple", mapper="area"),
            Attempt(sums="rows", carry="ripple", mapper="area"),
            Attempt(sums="rows", carry="kogge-stone", mapper="area"),
            Attempt(sums="rows", carry="brent-kung", mapper="delay"),
            Attempt(sums="rows", carry="kogge-stone", mapper="delay"),
            Attempt(sums="fast-rows", carry="brent-kung", mapper="speed"),
            Attempt(sums="fast-rows", carry="kogge-stone", mapper="speed"),
            Attempt(sums="fast-rows", carry="kogge-stone", mapper="prefix"),
            # Adder cells come in one size, which ABC cannot change: gates are larger but faster.
            Attempt(sums="gates", carry="brent-kung", mapper="speed"),
            Attempt(sums="gates", carry="kogge-stone", mapper="speed"),
            Attempt(sums="gates", carry="kogge-stone", mapper="prefix"),
        ),
    ),
    "booth": Recipe(
        description="Booth multipliers of gates, mapped for delay",
        attempts=(Attempt(sums="booth", carry="brent-kung", mapper="delay"),),
    ),
    "plain": Recipe(
        description="Yosys' own arithmetic, mapped for delay",
        attempts=(Attempt(sums="yosys", carry="brent-kung", mapper="delay"),),
    ),
}


@dataclass(frozen=True, kw_only=True)
class MappedNetlist:
    """A design in terms of library cells.

    Parameters
    ----------
    top : str
        Name of the module.
    module : dict
        The module as Yosys' ``write_json`` gives it: ``ports``, ``cells``, ``netnames``.
    verilog : str
        The same netlist as Verilog.
    area_um2 : float
        Area of all library cells, in square micrometres; black boxes count as 0.
    cells_by_type : dict of str to int
        Instances of each cell and black box.
    recipe : str
        Name or description of the recipe.
    clock_ns : float or None
        Delay target, in nanoseconds.
    tool : str
        Name and version of the tool.
    """

    top: str
    module: dict[str, Any]
    verilog: str
    area_um2: float
    cells_by_type: dict[str, int]
    recipe: str
    clock_ns: float | None
    tool: str

    @property
    def cell_count(self) -> int:
        """Instances of all cells and black boxes."""
        return sum(self.cells_by_type.values())


def yosys_version() -> str:
    """Name and version of the synthesis tool, for reports."""
    return f"Yosys {importlib.metadata.version('pyosys')} (pyosys)"


def map_netlist(
    verilog: str | Mapping[str, str],
    top: str,
    library: CellLibrary,
    *,
    clock_ns: float | None = None,
    recipe: str | Recipe = "default",
    blackboxes: Mapping[str, str] | None = None,
    wire_cap_ff: float = 0.0,
    clock_gating: int | None = None,
    timeout_s: float = 300.0,
    cache: Cache | None = None,
) -> MappedNetlist:
    """Map a design to library cells; one result per content, kept in the cache.

    Parameters
    ----------
    verilog : str or mapping of str to str
        Verilog-2005 source, or several by name; the names appear in error messages only.
    top : str
        Module to map; what it instantiates is flattened into it.
    library : CellLibrary
        Cells to map to.
    clock_ns : float, optional
        Clock period that mapping aims at, in nanoseconds; without it, for area alone.
    recipe : str or Recipe
        Key of `RECIPES`, or a recipe.
    blackboxes : mapping of str to str, optional
        Verilog stub of each module whose instances are kept as they are, by module name.  Paths
        are not timed then, so the first attempt of the recipe is taken.
    wire_cap_ff : float
        Capacitance of the wire to every pin, in fF, when paths are compared with the clock.
    clock_gating : int, optional
        Fewest flip-flops with a common enable whose clock is gated with it; no clock is gated
        without it.
    timeout_s : float
        Longest time that all of it may take, in seconds.
    cache : Cache, optional
        Default: `Cache` in its default folder.

    Returns
    -------
    MappedNetlist

    Raises
    ------
    ValueError
        If ``top`` or the name of a black box is not an identifier, ``recipe`` is unknown, a time
        is not positive, ``wire_cap_ff`` is negative, ``clock_gating`` is less than 1, or the
        library lacks a buffer, an inverter or a clock gate that is asked for.
    YosysError
        If Yosys refuses the design (syntax, unknown module, latch, combinational loop, undriven
        net, register that the library does not have), crashes or takes too long.
    """
    sources = {top: verilog} if isinstance(verilog, str) else dict(verilog)
    stubs = dict(blackboxes or {})
    for field, name in [("top", top), *(("blackboxes", name) for name in stubs)]:
        if not IDENTIFIER.fullmatch(name):
            raise ValueError(f"{field} must be a plain Verilog identifier, not {name!r}")
    if isinstance(recipe, str) and recipe not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, not {recipe!r}")
    steps = RECIPES[recipe] if isinstance(recipe, str) else recipe
    if clock_ns is not None and not clock_ns > 0:
        raise ValueError(f"clock_ns must be positive, not {clock_ns}")
    if not wire_cap_ff >= 0:
        raise ValueError(f"wire_cap_ff must not be negative, not {wire_cap_ff}")
    if not timeout_s > 0:
        raise ValueError(f"timeout_s must be positive, not {timeout_s}")
    if clock_gating is not None and clock_gating < 1:
        raise ValueError(f"clock_gating must be at least 1, not {clock_gating}")

    key = content_key(
        _code_digest(),
        yosys_version(),
        library.digest,
        top,
        clock_ns,
        repr(steps),
        wire_cap_ff,
        clock_gating,
        len(stubs),
        *stubs.values(),
        *sources.values(),
    )

    def run() -> bytes:
        with private_folder() as folder:
            flow = _Flow(folder, top, library, sources, stubs, timeout_s, clock_gating)
            result = flow.run(steps, clock_ns, wire_cap_ff)
        # Netlists shrink to a tenth, and most of the time of a warm run is reading them.
        return zlib.compress(json.dumps(result, separators=(",", ":")).encode(), 1)

    cache = Cache() if cache is None else cache
    result = json.loads(zlib.decompress(cache.compute(key, run)))
    return MappedNetlist(
        top=top,
        recipe=recipe if isinstance(recipe, str) else recipe.description,
        clock_ns=clock_ns,
        tool=yosys_version(),
        **result,
    )


@functools.cache
def _code_digest() -> str:
    """Hash of the code that decides what a netlist becomes, so that no cached one outlives it."""
    modules = (
        synth.bitheap,
        synth.cells,
        synth.liberty_writer,
        synth.library,
        synth.timing,
    )
    paths = [__file__, *(str(module.__file__) for module in modules)]
    return content_key(*(Path(path).read_bytes() for path in paths))


class _Flow:
    """Attempts at one design in a private folder."""

    def __init__(
        self,
        folder: Path,
        top: str,
        library: CellLibrary,
        sources: Mapping[str, str],
        stubs: Mapping[str, str],
        timeout_s: float,
        clock_gating: int | None,
    ) -> None:
        self.folder = folder
        self.top = top
        self.library = library
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.names: dict[str, str] = {}
        self._write("cells.lib", library.liberty_text())
        for kind, texts in (("source", sources), ("blackbox", stubs)):
            for index, (name, text) in enumerate(texts.items()):
                self._write(f"{kind}{index}.v", text)
                self.names[f"{kind}{index}.v"] = re.sub(r"\s", " ", name)
        self.prologue = [
            "read_liberty -lib cells.lib",
            *(f"read_verilog -lib blackbox{index}.v" for index in range(len(stubs))),
        ]
        self.reads = [f"read_verilog source{index}.v" for index in range(len(sources))]
        self._write("serial.v", SERIAL_CARRY.format(name="_80_lcu_serial"))
        self._write("carry.v", SERIAL_CARRY.format(name="ripple_carry"))
        buffers, inverters = (_plain(library.of_kind(kind)) for kind in ("buffer", "inverter"))
        if not buffers or not inverters:
            raise ValueError(f"library {library.name} must hold a buffer and an inverter")
        fanout_of_4 = 4 * inverters[0].pins[inverters[0].inputs[0]].cap_ff
        self._write(
            "abc.constr", f"set_driving_cell {buffers[0].name}\nset_load {fanout_of_4:.4f}\n"
        )
        self.ties = " ".join(
            f"-{option} {cells[0].name} {cells[0].outputs[0]}"
            for option, kind in (("hicell", "tie1"), ("locell", "tie0"))
            if (cells := _plain(library.of_kind(kind)))
        )
        self.clock_gate = "" if clock_gating is None else _clock_gate(library, clock_gating)
        self._write("enables.v", ENABLES)
        adders = _plain(library.of_kind("multi-output"))
        self.full = find_adder(adders, 3, library.fo4_slew_ns)
        self.half = _half_adder(adders, library)

    def run(self, recipe: Recipe, clock_ns: float | None, wire_cap_ff: float) -> dict[str, Any]:
        """Go through a recipe and return what `MappedNetlist` takes."""
        tried: dict[Attempt, _Outcome] = {}
        for attempt in recipe.attempts:
            coarse = self._coarse(attempt.sums)
            if attempt.sums in HEAPS and not has_sums(coarse):
                attempt = replace(attempt, sums="yosys")
            if attempt.sums == "gates" and self.full is None:
                attempt = replace(attempt, sums="fast-rows")
            if attempt in tried:
                continue
            target = NO_TARGET_PS if clock_ns is None else 1000 * clock_ns
            tried[attempt] = outcome = self._attempt(attempt, target, wire_cap_ff)
            if clock_ns is None or outcome.delay_ns is None or outcome.delay_ns <= clock_ns:
                return outcome.result
            # ABC does not see full adders and registers, so its paths are shorter than the
            # whole ones: it is asked for what it sees, less what is too much.
            excess = outcome.delay_ns - clock_ns
            if outcome.abc_ps is not None and excess < CLOSE * clock_ns:
                target = outcome.abc_ps - 1000 * EXTRA * excess
                again = self._attempt(attempt, max(target, 1.0), wire_cap_ff)
                if again.delay_ns is not None and again.delay_ns <= clock_ns:
                    return again.result
                if again.delay_ns is not None and again.delay_ns < outcome.delay_ns:
                    tried[attempt] = again
        return min(tried.values(), key=lambda outcome: outcome.delay_ns or 0.0).result

    def _coarse(self, sums: str) -> dict[str, Any]:
        """Elaborate and optimise the design down to words, registers and sums."""
        option = SYNTH_OPTIONS.get(sums, "")
        name = f"coarse{option}.json"
        path = self.folder / name
        if not path.exists():
            self._run_yosys(
                [
                    *self.prologue,
                    *self.reads,
                    f"hierarchy -check -top {self.top}",
                    # Before optimisation, which can hide a loop or an undriven net.
                    "proc -latches error",
                    "flatten -noscopeinfo",
                    # No library of ours has drivers of three states; left alone, optimisation
                    # would take the third one for any value.
                    "tribuf",
                    "opt_clean",
                    "check -assert",
                    f"synth -flatten -top {self.top} -run begin:fine {option}",
                    "opt -fast -full",
                    "memory_map",
                    "opt -full",
                    "opt_clean",
                    f"select {self.top}",
                    f"write_json -selected {name}",
                ]
            )
        module: dict[str, Any] = read_json(path)["modules"][self.top]
        return module

    def _attempt(self, attempt: Attempt, target_ps: float, wire_cap_ff: float) -> "_Outcome":
        """Map the design once."""
        module = self._coarse(attempt.sums)
        sums = ""
        if attempt.sums in HEAPS:
            uses_cells = attempt.sums != "gates"
            sums = replace_sums(
                module,
                self.full if uses_cells else None,
                self.half if uses_cells else None,
                chain=attempt.sums == "chain",
                halve=attempt.sums in ("fast-rows", "gates"),
                prefix=SUM_PREFIX,
            )
        self._write("design.json", json.dumps({"modules": {self.top: module}}))
        self._write("sums.v", sums)
        self._write("abc.script", MAPPERS[attempt.mapper].format(target=f"{target_ps:.0f}"))
        log = self._run_yosys(
            [
                *self.prologue,
                "read_json design.json",
                "read_verilog sums.v",
                f"hierarchy -check -top {self.top}",
                "flatten -noscopeinfo",
                *([] if attempt.sums == "separate" else ["alumacc"]),
                "opt",
                *(["techmap -map enables.v"] if self.clock_gate else []),
                CARRIES[attempt.carry],
                "opt -fast",
                *([self.clock_gate] if self.clock_gate else []),
                "dfflibmap -liberty cells.lib",
                "abc -liberty cells.lib -constr abc.constr -script abc.script",
                "setundef -zero",
                *([f"hilomap {self.ties}"] if self.ties else []),
                "opt_clean",
                "check -assert -mapped",
                "tee -q -o stat.json stat -json -liberty cells.lib",
                f"select {self.top}",
                "write_json -selected netlist.json",
                "select -clear",
                # Names of what mapping took apart would stand in the Verilog without a driver.
                "opt_clean -purge",
                f"select {self.top}",
                "write_verilog -noattr -selected netlist.v",
            ]
        )
        statistics = read_json(self.folder / "stat.json")["design"]
        mapped = read_json(self.folder / "netlist.json")["modules"][self.top]
        result = {
            "module": {key: mapped[key] for key in ("ports", "cells", "netnames")},
            "verilog": read_verilog(self.folder / "netlist.v"),
            "area_um2": statistics.get("area", 0.0),
            "cells_by_type": statistics["num_cells_by_type"],
        }
        delays = ABC_DELAY.findall(log)
        return _Outcome(
            result=result,
            delay_ns=self._delay_ns(mapped, wire_cap_ff),
            abc_ps=float(delays[-1]) if delays else None,
        )

    def _delay_ns(self, module: Mapping[str, Any], wire_cap_ff: float) -> float | None:
        """Longest path; None where timing does not know the design, as with two clocks."""
        try:
            return analyse(module, self.library, wire_cap_ff=wire_cap_ff).critical_path_ns
        except ValueError:
            return None

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def _run_yosys(self, commands: Sequence[str]) -> str:
        """Run commands in a child process; return what it printed."""
        return run_yosys(
            commands,
            self.folder,
            top=self.top,
            names=self.names,
            deadline=self.deadline,
            timeout_s=self.timeout_s,
        )


def run_yosys(
    commands: Sequence[str],
    folder: Path,
    *,
    top: str,
    names: Mapping[str, str],
    deadline: float,
    timeout_s: float,
) -> str:
    """Run commands of Yosys that map a design in a child process.

    Parameters
    ----------
    commands : sequence of str
        Without any name of the user's.
    folder : Path
        Where it works.
    top : str
        What it maps, for messages.
    names : mapping of str to str
        What the user calls the files of the folder, for messages.
    deadline : float
        When it must have ended, on the clock of `time.monotonic`.
    timeout_s : float
        The time limit of all of the work, for messages, in seconds.

    Returns
    -------
    str
        What it printed.

    Raises
    ------
    YosysError
        If Yosys refuses the design, crashes or takes too long.
    """
    script = "".join(f"{command}\n" for command in commands)
    (folder / "script.ys").write_text(script, encoding="utf-8")
    limit_gib = memory_limit_gib()
    ended = run_child(CHILD, folder, seconds=deadline - time.monotonic(), memory_gib=limit_gib)
    if ended.status is None:
        raise YosysError(f"Yosys took longer than {timeout_s:g} s to map {top}")
    if ended.out_of_memory:
        raise YosysError(
            f"Yosys needs more than {limit_gib:g} GiB of memory to map {top}; {MEMORY_VARIABLE} in "
            "the environment raises this limit"
        )
    if ended.signal_name is not None:
        raise YosysError(f"Yosys was ended by {ended.signal_name} while it mapped {top}")
    if ended.status:
        raise YosysError(f"Yosys could not map {top}: {_reason(ended.log, names)}")
    return ended.log


def _plain(cells: Iterable[Cell]) -> list[Cell]:
    """Keep the cells that can be named in a script: a Liberty file may call them anything."""
    return [
        cell
        for cell in cells
        if all(IDENTIFIER.fullmatch(name) for name in (cell.name, *cell.pins))
    ]


def _clock_gate(library: CellLibrary, clock_gating: int) -> str:
    """Command that gates the clocks of flip-flops."""
    cells = _plain(library.clock_gates)
    if not cells or cells[0].clock_gate is None:
        raise ValueError(
            f"library {library.name} must hold a clock gate (latch_posedge) to gate clocks with"
        )
    gate = cells[0].clock_gate
    tests = "".join(f" -tie_lo {pin}" for pin in gate.tests)
    pins = f"{gate.enable}:{gate.clock}:{gate.output}"
    return f"clockgate -pos {cells[0].name} {pins}{tests} -min_net_size {clock_gating}"


def _half_adder(adders: Iterable[Cell], library: CellLibrary) -> Adder | None:
    """Find a half adder if it is smaller than its two gates, which mapping can size and merge."""
    adder = find_adder(adders, 2, library.fo4_slew_ns)
    gates = [smallest_cell(library, function) for function in ("A^B", "A&B")]
    if adder is None or None in gates:
        return adder
    area_um2 = sum(gate.area_um2 for gate in gates if gate is not None)
    is_smaller = library.cells[adder.cell].area_um2 < (1 - LEAST_GAIN) * area_um2
    return adder if is_smaller else None


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """Netlist of one attempt, its longest path, and what ABC took for it."""

    result: dict[str, Any]
    delay_ns: float | None
    abc_ps: float | None


def _reason(log: str, names: Mapping[str, str]) -> str:
    """One line that says why Yosys stopped, with the caller's names instead of file names."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if "ERROR:" in line]
    if not errors:
        return " | ".join(lines[-3:]) or "it printed nothing"
    reason = lines[errors[0]].replace("ERROR: ", "")
    if "'check -assert" in reason or "in 'check" in reason:
        # The findings stand above; the line itself gives only their number.
        begin = max(index for index, line in enumerate(lines[: errors[0]]) if "Checking" in line)
        findings = lines[begin + 1 : errors[0] - 1]
        reason = " ".join(line.removeprefix("Warning: ") for line in findings[:8])
    for file_name, name in names.items():
        reason = reason.replace(file_name, name)
    return reason

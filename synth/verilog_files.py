"""What a flow needs beside the Verilog: description, constraints, core file."""

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data

from synth.verilog_names import plain_name

__all__ = ["constraints", "core_file", "description", "ports_of"]


def ports_of(component: Any) -> dict[str, dict[str, Any]]:
    """Direction, width, sign and parts of each port of a component, by its name in Verilog.

    Ports without bits are in no Verilog, and so not here.
    """
    interface = component.metadata.as_json()["interface"]
    shapes = {
        "__".join(map(str, path)): member.shape
        for path, member, _ in component.signature.flatten(component)
    }
    return {
        plain_name(port["name"]): {
            "direction": "input" if port["dir"] == "in" else "output",
            "width": port["width"],
            "signed": port["signed"],
            **_parts(shapes[port["name"]]),
        }
        for port in _ports_in(interface)
        if port["width"]
    }


def _parts(shape: Any) -> dict[str, Any]:
    """Fields of a structure with their lowest bits, or the lanes of an array, lane 0 lowest."""
    match shape:
        case data.StructLayout():
            return {
                "fields": {
                    name: {
                        "offset": field.offset,
                        "width": field.width,
                        "signed": Shape.cast(field.shape).signed,
                        **_parts(field.shape),
                    }
                    for name, field in shape
                }
            }
        case data.ArrayLayout():
            lane = Shape.cast(shape.elem_shape)
            return {
                "lanes": shape.length,
                "lane": {
                    "width": lane.width,
                    "signed": lane.signed,
                    **_parts(shape.elem_shape),
                },
            }
    return {}


def _ports_in(member: Any) -> Iterator[dict[str, Any]]:
    """Ports below a part of a component's metadata, which may be lists of parts."""
    if isinstance(member, list):
        for element in member:
            yield from _ports_in(element)
    elif member.get("type") == "port":
        yield member
    else:
        for element in member["members"].values():
            yield from _ports_in(element)


def description(
    component: Any,
    *,
    name: str,
    purpose: str,
    spec: str,
    clocks: Sequence[str],
    resets: Sequence[str],
    instances: Mapping[str, int],
    files: Sequence[str],
    clock_ns: float,
    latency: int | None,
    throughput: str | None,
    tools: Mapping[str, str],
) -> str:
    """Describe a design as JSON.

    Parameters
    ----------
    component : Component
        Source of ports and parameters (its ``spec``, or that of its ``datapath``).
    name, purpose, spec : str
        Top module, what it is for, and the number format, empty if it has none.
    clocks, resets : sequence of str
        Ports that are in no signature.
    instances : mapping of str to int
        How often each module is there.
    files : sequence of str
        What was written, in the same folder.
    clock_ns : float
        Clock period of the constraints, in nanoseconds.
    latency : int or None
        Cycles from input to output; None if it depends on the data.
    throughput : str or None
        Results or inputs per cycle, in words.
    tools : mapping of str to str
        Versions by name.
    """
    parameters = getattr(component, "spec", None)
    if parameters is None:
        parameters = getattr(getattr(component, "datapath", None), "spec", None)
    controls = {
        port: {"direction": "input", "width": 1, "signed": False} for port in (*clocks, *resets)
    }
    content = {
        "schema": 1,
        "name": name,
        "description": purpose,
        "spec": spec or None,
        "parameters": dataclasses.asdict(parameters)
        if dataclasses.is_dataclass(parameters) and not isinstance(parameters, type)
        else None,
        "ports": controls | ports_of(component),
        "clocks": list(clocks),
        "resets": list(resets),
        "reset": "synchronous, active high" if resets else None,
        "clock_ns": clock_ns if clocks else None,
        "latency": latency,
        "throughput": throughput,
        "modules": dict(instances),
        "files": list(files),
        "tools": dict(tools),
    }
    return json.dumps(content, indent=2) + "\n"


def constraints(
    name: str,
    *,
    clocks: Sequence[str],
    inputs: Sequence[str],
    outputs: Sequence[str],
    clock_ns: float,
    input_delay_ns: float,
    output_delay_ns: float,
) -> str:
    """Write timing constraints in SDC; a design without clock gets one for its paths alone.

    Parameters
    ----------
    name : str
        Top module.
    clocks, inputs, outputs : sequence of str
        Its clocks, all other inputs, and its outputs.
    clock_ns : float
        Period of every clock, in nanoseconds.
    input_delay_ns, output_delay_ns : float
        Part of the period that is needed outside, before the inputs and after the outputs.
    """
    lines = [
        f"# Constraints of {name}; times in nanoseconds.",
        f"# Of each period, {input_delay_ns:g} ns belong to what drives the inputs,",
        f"# and {output_delay_ns:g} ns to what follows the outputs.",
    ]
    if not clocks:
        lines.append(
            "# There is no register: paths from input to output, in one period of a clock outside."
        )
    lines += [
        f"create_clock -name {clock} -period {clock_ns:g} [get_ports {clock}]" for clock in clocks
    ] or [f"create_clock -name outside -period {clock_ns:g}"]
    clock = clocks[0] if clocks else "outside"
    for kind, delay, ports in (
        ("input", input_delay_ns, inputs),
        ("output", output_delay_ns, outputs),
    ):
        listed = textwrap.wrap(" ".join(ports), 96, break_long_words=False)
        lines.append(f"set_{kind}_delay {delay:g} -clock {clock} [get_ports {{")
        lines += [f"  {line}" for line in listed]
        lines.append("}]")
    return "\n".join([*lines, ""])


def core_file(
    name: str,
    *,
    purpose: str,
    version: str,
    images: Sequence[str],
) -> str:
    """FuseSoC core file (CAPI2) with the Verilog, its memory images, constraints and waivers."""
    lines = [
        "CAPI=2:",
        f"name: narrowgauge:generated:{name}:{version}",
        f"description: {json.dumps(purpose)}",
        "filesets:",
        "  rtl:",
        "    files:",
        f"      - {name}.v: {{file_type: verilogSource-2005}}",
        *(f"      - {image}: {{file_type: user, copyto: {image}}}" for image in images),
        "  constraints:",
        "    files:",
        f"      - {name}.sdc: {{file_type: SDC}}",
        "  waivers:",
        "    files:",
        f"      - {name}.vlt: {{file_type: vlt}}",
        "targets:",
        "  default:",
        "    filesets: [rtl]",
        f"    toplevel: {name}",
        "  lint:",
        "    filesets: [waivers, rtl]",
        f"    toplevel: {name}",
        "    flow: lint",
        "    flow_options: {tool: verilator, verilator_options: [-Wall]}",
        "  synth:",
        "    filesets: [rtl, constraints]",
        f"    toplevel: {name}",
    ]
    return "\n".join([*lines, ""])

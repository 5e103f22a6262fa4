"""Look-up engine of weight pools: area and energy of its logic, against a fixed8 array.

Run as ``python bench/bench_weight_pool_engine.py``.  Units are mapped once each and simulated
together on layers of the embedded network as retrained with a pool; the codes that leave must be
those of the golden model.  Tables and accumulators are memories, which no flow would build of
gates: what is read and written of them stands beside.
"""

import argparse

from golden.formats import parse
from golden.inference import LayerStream, quantise
from golden.spec import Format
from narrowgauge.array_machine import ArrayMachine
from narrowgauge.catalogue import Options
from narrowgauge.machine import Machine, Settings
from narrowgauge.networks import digits, retrained_digits
from narrowgauge.onnx_reader import read
from narrowgauge.pool_machine import PIXELS, PoolMachine, draw_pixels
from synth.energy import unit_energy
from synth.units import MappedUnits

#: Units of logic by the role that the table below gives them.
ROLES = {
    "transposer": "transposer",
    "result": "shift-accumulators, bank",
    "lane": "gather, add",
    "finisher": "requantise",
    "control": "control",
}

IMAGES = slice(None, None, 17)


def streams_of(form: Format) -> list[LayerStream]:
    """Operands of all layers of the embedded network, retrained where the format asks for it."""
    embedded = digits()
    assert embedded.data.calibration is not None
    network, system = read(embedded.model_path), form.system()
    if form.stem == "weight_pool":
        retrained = retrained_digits(network, form)
        assert retrained is not None
        network, system = retrained
    quantised = quantise(network, system, embedded.data.calibration)
    return list(quantised.streams(embedded.data.images[IMAGES]))


def print_units(machine: Machine) -> None:
    """Area and path of every unit."""
    print(f"{'unit':28} {'count':>5} {'um2 each':>9} {'um2':>9} {'ns':>6} {'registers':>9}")
    for role, unit in machine.hardware.units.items():
        registers = sum(cell.ff is not None for cell in unit.netlist.instances)
        print(
            f"{ROLES[role]:28} {unit.count:5} {unit.mapped.area_um2:9.1f} "
            f"{unit.count * unit.mapped.area_um2:9.1f} {unit.timing.critical_path_ns:6.3f} "
            f"{registers:9}"
        )


def print_split(machine: PoolMachine, stream: LayerStream, seed: int) -> None:
    """Energy of every unit, and what its clock would be if registers that hold had none."""
    batch = draw_pixels(machine.hardware.spec, stream, PIXELS, seed)
    run = machine.hardware.run(batch)
    products = batch.results.size * stream.operands.activation_codes.shape[1]
    for role, unit in machine.hardware.units.items():
        alone = MappedUnits({role: unit}, (), clock_ns=machine.hardware.clock_ns)
        split, _ = unit_energy(alone, run, products)
        parts = "  ".join(f"{kind} {value:.4f}" for kind, value in split.items())
        print(f"    {ROLES[role]:26} {parts}")
        if role == "result":
            spec, bits = machine.hardware.spec, stream.operands.activation_spec.bits
            period = spec.cycles(bits, batch.indices.shape[1])
            held = spec.result_bits - 1, spec.result_bits
            share = (held[0] * (bits - 1) + held[1]) / (sum(held) * period)
            print(f"    {'':26} registers that load: {share:.2f} of all, on average")


def main(entries: int, layers: list[str], settings: Settings) -> None:
    """Print areas, then energies of each layer at 8 and 4 bits of activations."""
    fixed = parse("fixed8")
    baseline_streams = streams_of(fixed)
    array = ArrayMachine(fixed, baseline_streams, settings)
    area = array.hardware.area_um2 / array.products_per_cycle
    machine = None
    for act_bits in (8, 4):
        streams = streams_of(parse(f"weight_pool{entries}:act_bits={act_bits}"))
        if machine is None:  # M is a setting of the same hardware
            machine = PoolMachine(parse(f"weight_pool{entries}"), streams, settings)
            each = machine.hardware.area_um2 / machine.products_per_cycle
            print(
                f"engine of {entries} pool vectors and {settings.options.lanes} lanes, "
                f"{settings.library}, {settings.clock_ns:g} ns"
            )
            print_units(machine)
            print(
                f"logic {machine.hardware.area_um2:.0f} um2 for {machine.products_per_cycle} "
                f"products per cycle: {each:.1f} um2 each; fixed8 array {area:.1f} um2 each: "
                f"ratio {each / area:.3f}"
            )
            for memory in machine.memories:
                print(f"beside: {memory.name}, {memory.rows} rows of {memory.row_bits} bits")
            print(f"{'layer':8} {'M':>2} {'products/cycle':>14} {'pJ each':>8} {'fixed8':>7} ratio")
        for stream in streams:
            if stream.name not in layers:
                continue
            run = machine.run([stream])
            parts = [part for part in baseline_streams if part.name == stream.name]
            total, other = (sum(one.energy_pj.values()) for one in (run, array.run(parts)))
            print(
                f"{stream.name:8} {act_bits:2} {run.products / run.cycles:14.1f} {total:8.4f} "
                f"{other:7.4f} {total / other:.3f}"
            )
            accesses = ", ".join(f"{name} {rate:.4f}" for name, rate in run.accesses.items())
            print(f"    rows of memories per product: {accesses}")
            print_split(machine, stream, settings.seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=64, choices=(32, 64))
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--layers", nargs="+", default=["conv3", "conv5"])
    parser.add_argument("--clock-ns", type=float, default=2.0)
    parser.add_argument("--pipelined", action="store_true")
    parser.add_argument("--clock-gating", type=int, help="as of narrowgauge compare")
    arguments = parser.parse_args()
    main(
        arguments.entries,
        arguments.layers,
        Settings(
            clock_ns=arguments.clock_ns,
            clock_gating=arguments.clock_gating,
            options=Options(lanes=arguments.lanes, pipelined=arguments.pipelined),
        ),
    )

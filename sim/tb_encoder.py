"""cocotb bench of encoders, with registers inside or without: one rounding of an exact sum."""

import cocotb
import numpy as np

from sim.bins import ElementBins
from sim.drivers import apply, apply_clocked, check
from sim.layout import pack, unpack
from sim.parameters import load
from sim.system import edge_totals, encoded, tie_totals, unit_exp, wide_totals

PARAMETERS = load()

#: Sums of each kind under each setting.
COUNT = 100 if PARAMETERS.thorough else 30

LATENCY = PARAMETERS.attributes["latency"]

#: How many settings are few enough to try all of them anyway.
FEW = 64

SETTINGS = list(PARAMETERS.system.encoder_settings())

#: Every which setting is tried; has no factor in common with the number of values of any port.
STRIDE = 1 if PARAMETERS.exhaustive or len(SETTINGS) <= FEW else 13

BINS = ElementBins(PARAMETERS.coverage, PARAMETERS.system)
BINS.declare_results(has_ties=True)
BINS.declare_codes("result", {setting.result for setting in SETTINGS})


async def encode(dut, words, rng):
    """Words of codes for words of sums."""
    if not LATENCY:
        return await apply(dut.total, words, dut.code)
    return await apply_clocked(dut, words, (dut.total, dut.code), LATENCY, rng)


async def compare(dut, draw, begin):
    """Encode the sums that ``draw`` gives for settings from ``begin`` on; compare the codes."""
    ports = PARAMETERS.ports
    rng = PARAMETERS.rng(f"pauses {begin}")
    # Another choice of settings in each test.
    for setting in SETTINGS[begin % STRIDE :: STRIDE]:
        for port, value in setting.ports.items():
            getattr(dut, port).value = pack(ports[port], [value])[0]
        totals = draw(setting)
        expected = encoded(setting, totals)
        words = await encode(dut, pack(ports["total"], totals), rng)

        def describe(index, setting=setting, totals=totals):
            return f"code of sum {totals[index]} with {dict(setting.ports)}"

        code = {**ports["code"], "signed": False}
        check(expected.astype(np.int64), unpack(code, words), describe)
        exponent = setting.exponent - unit_exp(setting.result)
        BINS.count_results(setting.result, totals * setting.mult, exponent, expected)
        BINS.count_codes("result", setting.result, expected)


@cocotb.test()
async def ties(dut):
    """Encode sums half-way between two results, and their neighbours."""
    rng = PARAMETERS.rng("ties")
    mac = PARAMETERS.system.mac
    await compare(dut, lambda setting: tie_totals(mac, setting, COUNT, rng), 0)


@cocotb.test()
async def limits(dut):
    """Encode the limits of the sums, and everything next to a power of two."""
    totals = edge_totals(PARAMETERS.system.mac)
    await compare(dut, lambda setting: totals, 1)


@cocotb.test()
async def random_sums(dut):
    """Encode sums of all magnitudes."""
    rng = PARAMETERS.rng("random_sums")
    mac = PARAMETERS.system.mac
    await compare(dut, lambda setting: wide_totals(mac, COUNT, rng), 2)

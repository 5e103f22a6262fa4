"""cocotb bench of :class:`hdl.abfp_units.AbfpConverter`, the gain and the ADC."""

from dataclasses import replace

import cocotb
import numpy as np
from cocotb.triggers import Timer

from golden.abfp_tile import GAINS
from sim.drivers import check, read
from sim.parameters import load

PARAMETERS = load()
SPEC = PARAMETERS.system.mac

#: Sums that are few enough to be tried one by one, and how many of those that are not.
FEW_SUMS = 1 << 18
RANDOM_SUMS = 4000 if PARAMETERS.thorough else 500

#: Every so many sums are tried where that takes long.
STEP = 1 if PARAMETERS.thorough else 97


def near_ties(gain):
    """List sums at all ties, up to the first saturated code, and next to them, of both signs."""
    numerator, denominator = replace(SPEC, gain=gain).adc_ratio
    halves = (2 * np.arange(SPEC.adc_limit + 2) + 1) * denominator // (2 * numerator)
    totals = np.unique(np.concatenate([halves - 1, halves, halves + 1, [0, 1]]))
    limit = SPEC.largest_sum
    totals = np.append(totals[(totals >= 0) & (totals <= limit)], limit)
    return np.unique(np.concatenate([totals, -totals]))


def tie_masks(spec, totals):
    """Tell which sums are half-way between two codes, by where they are rounded to."""
    numerator, denominator = spec.adc_ratio
    doubled = np.abs(2 * totals.astype(np.int64) * numerator)
    rounded = np.abs(spec.unclamped(totals))
    ties = (doubled % denominator == 0) & (doubled // denominator % 2 == 1)
    inside = ties & (rounded <= spec.adc_limit)
    up = 2 * rounded * denominator > doubled
    return {"tie down": inside & ~up, "tie up": ties & up}


def reachable_ties():
    """List the kinds of ties that some sum is at, at some gain."""
    masks = [tie_masks(replace(SPEC, gain=gain), near_ties(gain)) for gain in GAINS]
    return [name for name in masks[0] if any(mask[name].any() for mask in masks)]


REACHABLE = reachable_ties()

COVER = PARAMETERS.coverage
COVER.declare("gain", GAINS)
COVER.declare(
    "conversion",
    ("zero", "positive", "negative", "saturates high", "saturates low", *REACHABLE),
)
if SPEC.noise_bits:
    COVER.declare("noise", ("least", "largest", "changes the code", "does not change the code"))


def _known(masks):
    """Leave out what no sum is at."""
    return {name: mask for name, mask in masks.items() if name in REACHABLE}


async def convert(dut, gain, totals, words=None):
    """Convert sums, with noise words if there are any, and compare codes and flags."""
    spec = replace(SPEC, gain=gain)
    dut.gain.value = gain.bit_length() - 1
    if SPEC.noise_bits:
        dut.noise_enable.value = int(words is not None)
    settled = Timer(1, "ns")
    codes, flags = [], []
    for index, total in enumerate(totals.tolist()):
        dut.total.value = total % (1 << SPEC.sum_bits)
        if words is not None:
            dut.noise.value = int(words[index])
        await settled
        codes.append(read(dut.code))
        flags.append(read(dut.saturated))
    expected = spec.convert(totals, words)
    unclamped = spec.unclamped(totals, words)

    def describe(index):
        noise = "no noise" if words is None else f"noise word {words[index]}"
        return f"sum {totals[index]} at gain {gain} with {noise}"

    check(expected % (1 << SPEC.adc_bits), np.array(codes), describe)
    check((np.abs(unclamped) > SPEC.adc_limit).astype(int), np.array(flags), describe)

    COVER.count("gain", [gain])
    COVER.mark(
        "conversion",
        {
            "zero": expected == 0,
            "positive": expected > 0,
            "negative": expected < 0,
            "saturates high": unclamped > SPEC.adc_limit,
            "saturates low": unclamped < -SPEC.adc_limit,
            **({} if words is not None else _known(tie_masks(spec, totals))),
        },
    )
    if words is not None:
        quiet = spec.convert(totals)
        COVER.mark(
            "noise",
            {
                "least": words == 0,
                "largest": words == (1 << SPEC.noise_bits) - 1,
                "changes the code": expected != quiet,
                "does not change the code": expected == quiet,
            },
        )


@cocotb.test()
async def every_sum(dut):
    """Convert every sum that does not saturate and some that do; random ones of a wide tile."""
    rng = PARAMETERS.rng("every_sum")
    limit = SPEC.largest_sum
    for gain in GAINS:
        if 2 * limit < FEW_SUMS:
            end = min(limit, replace(SPEC, gain=gain).first_saturated + 100)
            totals = np.arange(-end, end + 1, STEP)
        else:
            totals = rng.integers(-limit, limit + 1, RANDOM_SUMS)
            totals >>= rng.integers(0, 12, RANDOM_SUMS)
        await convert(dut, gain, totals)


@cocotb.test()
async def ties(dut):
    """Convert all sums half-way between two codes, and their neighbours, at all gains."""
    for gain in GAINS:
        await convert(dut, gain, near_ties(gain))


@cocotb.test()
async def noise(dut):
    """Add noise of all sizes, the limits most of all; a quiet ADC has no such port."""
    rng = PARAMETERS.rng("noise")
    if not SPEC.noise_bits:
        assert "noise" not in PARAMETERS.ports, "expected no port of noise"
        return
    largest = (1 << SPEC.noise_bits) - 1
    for gain in GAINS:
        totals = near_ties(gain)
        for words in (
            np.zeros(len(totals), int),
            np.full(len(totals), largest),
            rng.integers(0, largest + 1, len(totals)),
        ):
            await convert(dut, gain, totals, words)

"""Tables, bit-serial results and convolutions of weight pools; slow and obvious."""

from fractions import Fraction

import numpy as np


def nearest_even(x):
    low = x.__floor__()
    if x - low == Fraction(1, 2):
        return low + low % 2
    return low if x - low < Fraction(1, 2) else low + 1


def oracle_entry(weights, address, levels, reach):
    """One entry: the exact sum of the weights whose bit is set, rounded once."""
    total = sum((w for i, w in enumerate(weights) if address >> i & 1), Fraction(0))
    return min(max(nearest_even(total * levels / reach), -levels), levels)


def oracle_table(pool, levels, reach, layout):
    rows = [[Fraction(w) for w in row] for row in np.asarray(pool, float).tolist()]
    group = len(rows[0])
    ones = (1 << group) - 1
    table = []
    for address in range(1 << group):
        row = []
        for weights in rows:
            if layout == "nibble":
                low = oracle_entry(
                    weights[: group // 2], address % (1 << group // 2), levels, reach
                )
                high = oracle_entry(weights[group // 2 :], address >> group // 2, levels, reach)
                row.append(low + high)
            elif layout == "half" and address >> group - 1:
                row.append(
                    oracle_entry(weights, ones, levels, reach)
                    - oracle_entry(weights, ones - address, levels, reach)
                )
            else:
                row.append(oracle_entry(weights, address, levels, reach))
        table.append(row)
    return table


def oracle_result(table, entry, codes, act_bits, signed):
    """Most significant plane first, as the hardware does it."""
    words = [format(code & (1 << act_bits) - 1, f"0{act_bits}b") for code in codes]
    total = 0
    for plane in range(act_bits):
        address = sum(int(word[plane]) << i for i, word in enumerate(words))
        row = table[address][entry]
        total = 2 * total + (-row if signed and plane == 0 else row)
    return total


def oracle_convolve(spec, codes, indices, act_bits, signed, strides, pads, zero_point=0):
    """Output by output, tap by tap; taps outside the image are skipped."""
    height, width, blocks, outputs = indices.shape
    images, rows_in, columns_in, _ = codes.shape
    rows = (rows_in + pads[0] + pads[2] - height) // strides[0] + 1
    columns = (columns_in + pads[1] + pads[3] - width) // strides[1] + 1
    result = np.zeros((images, rows, columns, outputs), np.int64)
    table, group = spec.table.tolist(), spec.group
    cache = {}
    for i, r, c, ky, kx, b in np.ndindex(images, rows, columns, height, width, blocks):
        y, x = r * strides[0] + ky - pads[0], c * strides[1] + kx - pads[1]
        if not (0 <= y < rows_in and 0 <= x < columns_in):
            continue
        key = i, y, x, b
        if key not in cache:
            cells = codes[i, y, x, b * group : (b + 1) * group].tolist()
            cells += [zero_point] * (group - len(cells))
            cache[key] = np.array(
                [
                    oracle_result(table, entry, cells, act_bits, signed)
                    - zero_point * table[-1][entry]
                    for entry in range(spec.entries)
                ]
            )
        result[i, r, c] += cache[key][indices[ky, kx, b]]
    return result


def oracle_multiplier(real):
    """Mantissa and shift of the common requantiser, found without a logarithm."""
    exp = next(e for e in range(-60, 20) if Fraction(2) ** e > real)
    mult = nearest_even(real * (1 << 16) / Fraction(2) ** exp)
    if mult == 1 << 16:
        mult, exp = 1 << 15, exp + 1
    return mult, 16 - exp


def oracle_requantise(accumulator, real, low, high):
    mult, shift = oracle_multiplier(real)
    return min(max(nearest_even(Fraction(accumulator * mult, 1 << shift)), low), high)

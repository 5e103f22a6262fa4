"""ABFP and bfloat16 in exact rationals, number by number; slow and obvious."""

from fractions import Fraction

#: Every value of a finite bfloat16 that is not negative, by its bits: spec/abfp.md, section 6.
BFLOAT16_VALUES = [Fraction(0)] * 128 + [
    Fraction(128 + bits % 128) * Fraction(2) ** (bits // 128 - 127 - 7)
    for bits in range(128, 0x7F80)
]
BITS_OF = {value: bits for bits, value in enumerate(BFLOAT16_VALUES) if value}
LEAST = Fraction(2) ** -126
LARGEST_FLOAT32 = (2 - Fraction(2) ** -23) * Fraction(2) ** 127


def exponent_of(magnitude):
    """Floor of the base-2 logarithm of a positive rational."""
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    while magnitude >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while magnitude < Fraction(2) ** exponent:
        exponent -= 1
    return exponent


def to_precision(x, bits):
    """Nearest number of so many significant bits, ties to even, exponents without limit."""
    if x == 0:
        return Fraction(0)
    unit = Fraction(2) ** (exponent_of(abs(x)) - (bits - 1))
    return round(x / unit) * unit  # Python rounds ties to even


def in_range(x, largest):
    """Rules of range of section 6: flush below 2**-126, saturate above the largest."""
    if abs(x) < LEAST:
        return Fraction(0)
    return max(-largest, min(largest, x))


def bfloat16(x):
    """Nearest bfloat16 of a rational."""
    return in_range(to_precision(x, 8), BFLOAT16_VALUES[-1])


def bfloat16_bits(x):
    """Bits of the nearest bfloat16 of a rational."""
    value = bfloat16(x)
    return BITS_OF.get(abs(value), 0) | (0x8000 if value < 0 else 0)


def float32_sum(total, term):
    """One addition of the accumulator."""
    return in_range(to_precision(total + term, 24), LARGEST_FLOAT32)


def quantise(vector, bits, *, exp_only=False):
    """Scale and codes of one vector of bfloat16 values: Eq 1, section 9."""
    largest = max((abs(v) for v in vector), default=Fraction(0))
    if largest == 0:
        return Fraction(0), [0] * len(vector)
    limit = 2 ** (bits - 1) - 1
    if not exp_only:
        return largest, [round(limit * v / largest) for v in vector]
    scale = Fraction(2) ** (exponent_of(largest) + 1)
    codes = [round(v / scale * 2 ** (bits - 1)) for v in vector]
    return scale, [max(-limit, min(limit, code)) for code in codes]


def noise(word, bits):
    """Noise in steps of the ADC: section 3."""
    return Fraction(2 * word + 1 - 2**bits, 2 ** (bits + 1))


def unclamped(total, tile, u=0):
    """Rounded result of the ADC, for a spec of a tile: sections 2 and 9."""
    w, x, y = tile.weight_bits, tile.activation_bits, tile.adc_bits
    if tile.exp_only:
        step = Fraction(tile.tile * 2 ** (w - 1) * 2 ** (x - 1), tile.gain * 2 ** (y - 1))
    else:
        full = tile.tile * (2 ** (w - 1) - 1) * (2 ** (x - 1) - 1)
        step = Fraction(full, tile.gain * (2 ** (y - 1) - 1))
    return round(total / step + u)


def convert(total, tile, u=0):
    """ADC code of a dot product."""
    limit = 2 ** (tile.adc_bits - 1) - 1
    return max(-limit, min(limit, unclamped(total, tile, u)))


def partial(code, w_scale, x_scale, tile):
    """Rescaled ADC code: Eq 7."""
    divisor = 2 ** (tile.adc_bits - 1) - (0 if tile.exp_only else 1)
    return bfloat16(code * w_scale * x_scale * tile.tile / (divisor * tile.gain))


def accumulator(weights, inputs, tile, words=None):
    """Float32 sum over the tiles of two vectors of bfloat16 values.

    ``words`` are the noise words of the tiles; the second result counts saturated conversions.
    """
    total, saturated = Fraction(0), 0
    for index, start in enumerate(range(0, len(weights), tile.tile)):
        columns = slice(start, start + tile.tile)
        w_scale, w = quantise(weights[columns], tile.weight_bits, exp_only=tile.exp_only)
        x_scale, x = quantise(inputs[columns], tile.activation_bits, exp_only=tile.exp_only)
        product = sum(a * b for a, b in zip(w, x, strict=True))
        u = 0 if words is None else noise(words[index], tile.noise_bits)
        saturated += abs(unclamped(product, tile, u)) > 2 ** (tile.adc_bits - 1) - 1
        total = float32_sum(total, partial(convert(product, tile, u), w_scale, x_scale, tile))
    return total, saturated

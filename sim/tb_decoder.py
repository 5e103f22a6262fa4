"""cocotb bench of combinational decoders."""

import cocotb
import numpy as np

from sim.bins import ElementBins
from sim.drivers import apply, check
from sim.layout import pack, unpack
from sim.parameters import load
from sim.system import DecodedSystem

PARAMETERS = load()
SYSTEM: DecodedSystem = PARAMETERS.system
PORTS = PARAMETERS.ports
#: Ports that are set; decoders of activations and weights may differ.
INPUTS = {port for port, layout in PORTS.items() if layout["direction"] == "in"} - {"code"}
SETTINGS = [each for each in SYSTEM.decoder_settings() if set(each.ports) == INPUTS]

BINS = ElementBins(PARAMETERS.coverage, PARAMETERS.system)
BINS.declare_codes("code", [setting.spec for setting in SETTINGS])


@cocotb.test()
async def every_code(dut):
    """Decode all codes under all settings; no bit set means zero, and nothing else does."""
    codes = list(range(1 << PORTS["code"]["width"]))
    assert SETTINGS, f"a decoder with ports {INPUTS} must be known"
    for setting in SETTINGS:
        for port, value in setting.ports.items():
            getattr(dut, port).value = pack(PORTS[port], [value])[0]
        words = await apply(dut.code, codes, dut.operand)
        operands = SYSTEM.operand_values(unpack(PORTS["operand"], words))

        def describe(code, setting=setting):
            return f"operand of code {code:#x} with {dict(setting.ports)}"

        check(setting.operands, operands, describe)
        check(setting.operands == 0, np.array(words) == 0, lambda code: f"zero {describe(code)}")
        BINS.count_codes("code", setting.spec, codes)

"""cocotb bench of combinational decoders."""

import cocotb
import numpy as np

from sim.drivers import apply, check
from sim.layout import pack, unpack
from sim.parameters import load

PARAMETERS = load()


@cocotb.test()
async def every_code(dut):
    """Decode all codes under all settings; no bit set means zero, and nothing else does."""
    ports, system = PARAMETERS.ports, PARAMETERS.system
    codes = list(range(1 << ports["code"]["width"]))
    # Decoders of activations and weights may differ.
    inputs = {port for port, layout in ports.items() if layout["direction"] == "in"} - {"code"}
    settings = [each for each in system.decoder_settings() if set(each.ports) == inputs]
    assert settings, f"a decoder with ports {inputs} must be known"
    for setting in settings:
        for port, value in setting.ports.items():
            getattr(dut, port).value = pack(ports[port], [value])[0]
        words = await apply(dut.code, codes, dut.operand)
        operands = system.operand_values(unpack(ports["operand"], words))

        def describe(code, setting=setting):
            return f"operand of code {code:#x} with {dict(setting.ports)}"

        check(setting.operands, operands, describe)
        check(setting.operands == 0, np.array(words) == 0, lambda code: f"zero {describe(code)}")

"""What the array and the multiply-accumulate unit ask of a number system."""

from typing import Any, Protocol

from amaranth.lib import wiring

from golden.mac import MacSpec

__all__ = ["Datapath"]


class Datapath(Protocol):
    """Factory of the arithmetic units of one number system, all for one :class:`MacSpec`.

    Attributes
    ----------
    spec : MacSpec
        Widths.
    operand : ShapeLike
        Shape of a decoded operand.  All bits zero must mean the value zero.
    decoder_config, encoder_config : dict of str to ShapeLike
        Run-time settings, by the name of the port that the decoder or encoder has for them.
    """

    spec: MacSpec
    operand: Any
    decoder_config: dict[str, Any]
    encoder_config: dict[str, Any]

    def decoder(self) -> wiring.Component | None:
        """Combinational ``code`` -> ``operand``; None where the code is the operand."""

    def product(self) -> wiring.Component:
        """Combinational ``activation``, ``weight`` -> ``term``, and ``carry`` if it has that port.

        The product is ``term + carry``, so that a negation costs no adder of its own.
        """

    def encoder(self) -> wiring.Component:
        """Combinational ``accumulator`` -> ``code``, with the one rounding of a dot product."""

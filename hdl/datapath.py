"""What the array and the multiply-accumulate unit ask of a number system."""

from typing import Any, Protocol

from golden.mac import Operand

__all__ = ["Datapath"]


class Datapath(Protocol):
    """Factory of the arithmetic units of one number system.

    Attributes
    ----------
    encoder_config : dict of str to ShapeLike
        Run-time settings, by the name of the port that the encoder has for them.
    """

    encoder_config: dict[str, Any]

    @property
    def spec(self) -> Any:
        """Widths, a :class:`~golden.mac.MacSpec`."""

    def operand(self, role: Operand) -> Any:
        """Shape of a decoded operand; see MacSpec.zero_operands."""

    def decoder_config(self, role: Operand) -> dict[str, Any]:
        """Run-time settings by the name of the port that the decoder has for them."""

    def decoder(self, role: Operand) -> Any:
        """Make the combinational unit ``code`` -> ``operand``; None where they are the same."""

    @property
    def product_latency(self) -> int:
        """Registers that a product has inside in pipelined shells."""

    def product(self, *, latency: int = 0) -> Any:
        """Make the unit ``activation``, ``weight`` -> ``term`` (and ``carry``).

        The product is ``term + carry``, so that a negation costs no adder of its own;
        a unit without that port has no carry.  With a ``latency`` it has registers, which load
        when its port ``move`` says so and which reset clears.
        """

    def encoder_latency(self, *, pipelined: bool) -> int:
        """Count the registers that an encoder has inside in shells, pipelined or not."""

    def encoder(self, *, latency: int = 0) -> Any:
        """Make the unit ``total`` -> ``code``, with a dot product's one rounding.

        With a ``latency`` it has registers, which load when its port ``move`` says so.
        """

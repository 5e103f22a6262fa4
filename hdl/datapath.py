"""What the array and the multiply-accumulate unit ask of a number system."""

from typing import Any, Protocol

__all__ = ["Datapath"]


class Datapath(Protocol):
    """Factory of the arithmetic units of one number system.

    Attributes
    ----------
    operand : ShapeLike
        Shape of a decoded operand.  All bits zero must mean the value zero.
    decoder_config, encoder_config : dict of str to ShapeLike
        Run-time settings, by the name of the port that the decoder or encoder has for them.
    """

    operand: Any
    decoder_config: dict[str, Any]
    encoder_config: dict[str, Any]

    @property
    def spec(self) -> Any:
        """Widths, a :class:`~golden.mac.MacSpec`."""

    def decoder(self) -> Any:
        """Make the combinational unit ``code`` -> ``operand``; None where they are the same."""

    def product(self) -> Any:
        """Make the combinational unit ``activation``, ``weight`` -> ``term`` (and ``carry``).

        The product is ``term + carry``, so that a negation costs no adder of its own;
        a unit without that port has no carry.
        """

    def encoder(self) -> Any:
        """Make the combinational unit ``total`` -> ``code``, with a dot product's one rounding."""

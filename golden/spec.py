"""What every number system offers, whatever its codes look like.

A :class:`Spec` is one format with all its parameters: it codes a tensor and multiplies coded
tensors.  A :class:`Format` is a format with some parameters left to be fitted.  Generic code
(network inference, comparison, benches) uses nothing else, so it needs to know neither what a code
is nor whether elements share a scale or a table.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, get_args

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from golden.inference import NumberSystem

__all__ = [
    "INT64_RANGE",
    "Format",
    "Method",
    "Role",
    "Spec",
    "as_floats",
    "as_integers",
    "check_finite",
    "check_int",
    "checked_tensor",
    "instance_of",
    "largest_magnitude",
    "parse_bool",
    "parse_float",
    "parse_int",
]

#: What a tensor is in its layer.
Role = Literal["weights", "activations"]

#: How parameters are chosen: by a search for the least mean squared error, or by the closed form
#: of the paper.  The two are the same where a paper has no closed form.
Method = Literal["sweep", "paper"]

T = TypeVar("T")

#: Limits of an accumulator.
INT64_RANGE = (-(1 << 63), (1 << 63) - 1)


class Spec(ABC):
    """One number format with all its parameters, for one tensor.

    Subclasses are frozen dataclasses of the parameters.
    """

    #: Name of the number system.
    stem: ClassVar[str]

    @abstractmethod
    def encode(self, x: npt.ArrayLike) -> Any:
        """Codes of ``x``; where numbers share something, they do so along the last axis.

        Parameters
        ----------
        x : array_like of float16, float32 or float64
            Any shape.  Integers are refused, because they could be codes.

        Returns
        -------
        object
            Codes in the form of the number system.

        Raises
        ------
        TypeError
            If ``x`` is of another type.
        """

    @abstractmethod
    def decode(self, codes: Any) -> npt.NDArray[np.float32]:
        """Values of ``codes``, to the nearest float32, in the shape that was coded."""

    def quantise(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Values that ``x`` has after coding: ``decode(encode(x))``."""
        return self.decode(self.encode(x))

    @abstractmethod
    def code_table(self) -> dict[str, list[Any]]:
        """Columns of a table that explains the codes, one entry for each.

        Returns
        -------
        dict of str to list
            ``code``, ``binary``, ``hex``, ``value`` (exact) and the fields of the number system,
            all of one length.
        """

    @abstractmethod
    def storage_bits(self, shape: Sequence[int]) -> int:
        """Bits that a coded tensor of a shape takes, with all that its numbers share."""

    @abstractmethod
    def matmul(
        self, w_codes: Any, activations: "Spec", a_codes: Any, bias: npt.ArrayLike | None = None
    ) -> npt.NDArray[Any]:
        """Matrix product of coded weights, in this format, and coded activations.

        Parameters
        ----------
        w_codes : object
            Codes of weights [n, k].
        activations : Spec
            Format of the activations.
        a_codes : object
            Codes of activations [m, k].
        bias : array_like of float, [n], optional
            Added to every dot product, rounded as the hardware has it.

        Returns
        -------
        ndarray of float32 or float64, [m, n]
            In real units, before the rounding that stores a result.

        Raises
        ------
        TypeError, ValueError
            If the codes or the formats do not fit together.
        """


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """A number format whose parameters are given or left to be fitted.

    Subclasses add the field that ``size_field`` names, and one field per parameter, None where it
    is not given.
    """

    #: Name of the number system.
    stem: ClassVar[str]

    #: Field that the number after the stem gives.
    size_field: ClassVar[str] = "bits"

    #: Reads the value of each parameter of a format string.
    parameters: ClassVar[Mapping[str, Callable[[str, str], Any]]]

    @property
    def pinned(self) -> Mapping[str, Any]:
        """The parameters that were given, by name."""
        names = [f.name for f in fields(self) if f.name != self.size_field]
        given = {name: getattr(self, name) for name in names}
        return MappingProxyType({name: value for name, value in given.items() if value is not None})

    def __str__(self) -> str:
        text = ",".join(f"{name}={self.show(name)}" for name in self.pinned)
        return f"{self.stem}{getattr(self, self.size_field)}" + (f":{text}" if text else "")

    def show(self, name: str) -> str:
        """Value of parameter ``name`` as a format string has it."""
        value = getattr(self, name)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return str(value)

    @classmethod
    def from_texts(cls, size: int, texts: Mapping[str, str]) -> Self:
        """Make a format from the number after its stem and the texts of its parameters.

        Raises
        ------
        ValueError
            If a parameter is unknown, cannot be read or is out of range.
        """
        values = {}
        for name, text in texts.items():
            if name not in cls.parameters:
                known = ", ".join(cls.parameters)
                raise ValueError(f"parameter of {cls.stem} must be one of {known}, not {name!r}")
            values[name] = cls.parameters[name](name, text)
        return cls(**{cls.size_field: size}, **values)

    @abstractmethod
    def spec(self) -> Spec:
        """Spec with the parameters that were given, and defaults for the others."""

    @abstractmethod
    def fit(self, tensor: npt.ArrayLike, role: Role = "weights", method: Method = "sweep") -> Spec:
        """Choose the parameters that were not given.

        Parameters
        ----------
        tensor : array_like of float16, float32 or float64
            Any shape; finite in binary32.  An empty tensor counts as zeros.
        role : {"weights", "activations"}
            What the tensor is.
        method : {"sweep", "paper"}
            Least mean squared error (in binary64; the first of equal candidates), or the rule of
            the paper.

        Returns
        -------
        Spec
            The parameters that were given are kept.

        Raises
        ------
        TypeError
            If the tensor is of another type.
        ValueError
            If a number is not finite in binary32, or ``role`` or ``method`` is unknown.
        """

    @abstractmethod
    def system(self, method: Method = "sweep") -> "NumberSystem":
        """Make the number system for :func:`golden.inference.quantise`."""


def as_floats(name: str, x: npt.ArrayLike) -> npt.NDArray[Any]:
    """``x`` as an array of float16, float32 or float64; TypeError if it is of another type."""
    array = np.asarray(x)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be float16, float32 or float64, not {array.dtype}")
    return array


def as_integers(name: str, x: npt.ArrayLike, low: int, high: int) -> npt.NDArray[Any]:
    """``x`` as an array of integers, refused unless all are from ``low`` to ``high``."""
    array = np.asarray(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    limits = np.iinfo(array.dtype)
    if limits.min < low or limits.max > high:
        for extreme in (array.min(initial=0), array.max(initial=0)):
            if not low <= extreme <= high:
                raise ValueError(f"{name} must be between {low} and {high}, not {extreme}")
    return array


def checked_tensor(tensor: npt.ArrayLike, role: Role, method: Method) -> npt.NDArray[Any]:
    """``tensor`` as an array, after a check of the arguments of :meth:`Format.fit`."""
    if role not in get_args(Role):
        raise ValueError(f"role must be weights or activations, not {role!r}")
    if method not in get_args(Method):
        raise ValueError(f"method must be sweep or paper, not {method!r}")
    numbers = as_floats("tensor", tensor)
    check_finite("tensor", numbers)
    return numbers


def check_finite(name: str, numbers: npt.NDArray[np.floating]) -> None:
    """Refuse numbers that binary32 cannot hold; ValueError with the index of the first one."""
    limit = float(np.finfo(np.float32).max)
    # NaN compares with nothing.
    if not largest_magnitude(numbers) <= limit:
        good = np.abs(numbers.astype(np.float64)) <= limit
        index = tuple(np.argwhere(~good)[0].tolist())
        value = numbers[index]
        raise ValueError(f"{name} must be finite in binary32, not {value} at index {index}")


def largest_magnitude(tensor: npt.NDArray[Any]) -> float:
    """Largest magnitude in a tensor; 0 if it is empty, NaN if it has a NaN."""
    return max(-float(tensor.min(initial=0)), float(tensor.max(initial=0)))


def instance_of(name: str, value: object, kind: type[T]) -> T:
    """Return ``value``; TypeError if it is not an instance of ``kind``."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(f"{name} must be {article} {kind.__name__}, not {value!r}")
    return value


def check_int(name: str, value: object, low: int, high: int | None) -> None:
    """Refuse a value that is not an int from ``low`` to ``high``, or from ``low`` if that is None.

    Raises
    ------
    TypeError
        If it is not an int.
    ValueError
        If it is out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if high is None and value < low:
        raise ValueError(f"{name} must be at least {low}, not {value}")
    if high is not None and not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")


def parse_int(name: str, text: str) -> int:
    """Integer that a format string gives for parameter ``name``; ValueError if it is none."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{name} must be an integer, not {text!r}")
    return int(text)


def parse_float(name: str, text: str) -> float:
    """Finite number that a format string gives for ``name``; ValueError if it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not text.isascii() or "_" in text or text != text.strip():
        raise ValueError(f"{name} must be a number, not {text!r}")
    return value


def parse_bool(name: str, text: str) -> bool:
    """Truth value that a format string gives for parameter ``name``; ValueError if it is none."""
    if text not in ("yes", "no"):
        raise ValueError(f"{name} must be yes or no, not {text!r}")
    return text == "yes"

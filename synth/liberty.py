"""Reader of Liberty text, the format in which cell libraries are published.

It covers the syntax (groups, simple and complex attributes, comments, continuation lines) and
the Boolean expressions inside it; :mod:`synth.library` gives the groups their meaning.  The
grammars are ours on top of ``lark``, because the Liberty packages on the Python package index are
under the GPL or run on Python 3.12 and later only.

A library is mostly numbers: NanGate's 6.7 MB hold 230 000 of them.  The lexer therefore hands
over a whole parenthesised list, or all behind a colon, as one token, and lists of numbers are
split when they are asked for.
"""

import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken

__all__ = ["Function", "Group", "Words", "parse_liberty", "read_liberty", "read_text"]

#: Largest library that is read, in bytes of text: several times the largest open one.
MAX_BYTES = 64 << 20

#: Most statements and strings of a library, which decide how much memory and time it takes;
#: ASAP7's have 200 000 and 400 000.
MAX_STATEMENTS = 2_000_000
MAX_STRINGS = 2_000_000

#: Deepest nesting of the operations of a Boolean expression, and its longest text.
MAX_DEPTH = 40
MAX_EXPRESSION = 4_000

#: 64 samples of one signal per word; bit i of a word is sample i.
Words = npt.NDArray[np.uint64]

# No repetition gives back what it took, so that a token that does not end costs no memory.
# Tokens take the blanks and semicolons behind them along, which halves the time to read a file.
LIBERTY_GRAMMAR = r"""
start: group
group: NAME LIST OPEN _statement* CLOSE
_statement: simple | complex | group
simple: NAME VALUE
complex: NAME LIST

NAME: /[A-Za-z_][\w.]*\s*/
LIST: /\((?:"(?:[^"\\]|\\.)*+"|[^()"]++|\([^()"]*+\))*+\)[\s;\\]*/s
VALUE: /:\s*(?:"(?:[^"\\]|\\.)*+"|(?:[^\s;{}"]++|[^\S\n]++(?=[^\s;{}"]))++)[\s;\\]*/s
OPEN: /\{[\s;\\]*/
CLOSE: /\}[\s;\\]*/
%ignore /[\s\\]+/
"""

# The order of precedence is that of the Liberty user guide: ! and ' bind tightest, then ^, then
# & (also * or a blank), then + (also |).
FUNCTION_GRAMMAR = r"""
?start: either
?either: both (("+" | "|") both)*
?both: exclusive (("&" | "*")? exclusive)*
?exclusive: unary ("^" unary)*
?unary: postfix
    | "!" unary -> inverted
?postfix: atom
    | postfix "'" -> inverted
?atom: NAME -> name
    | CONSTANT -> constant
    | "(" either ")"

NAME: /[A-Za-z_][\w.\[\]]*/
CONSTANT: /[01]\b/
%ignore /\s+/
"""

#: What may stand behind a statement.
BLANKS = " \t\r\n\f\v;\\"

#: Comments go, strings stay; a ``//`` inside a string is no comment.  One that does not end goes
#: up to the end of the text, or else each beginning would be looked into as far as that.
COMMENT_OR_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|/\*.*?(?:\*/|\Z)|//[^\n]*', re.DOTALL)
CONTINUATION = re.compile(r"\\[^\S\n]*\r?\n")
LIST_ITEM = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*,?', re.DOTALL)


@dataclass(slots=True)
class Group:
    """One group of a Liberty file: ``kind (arguments) { attributes and groups }``.

    Parameters
    ----------
    kind : str
        Word in front of the parenthesis, such as ``"cell"``.
    raw_arguments : str
        The parenthesised list as it stands in the file.
    line : int
        Line of the file on which the group begins, from 1.
    groups : list of Group
        Groups inside this one, in the order of the file.
    simple : dict of str to str
        Attributes ``name : value``; the last one counts.
    complex : dict of str to list of str
        Attributes ``name (list)``, each occurrence as it stands in the file.
    """

    kind: str
    raw_arguments: str
    line: int
    groups: "list[Group]" = field(default_factory=list)
    simple: dict[str, str] = field(default_factory=dict)
    complex: dict[str, list[str]] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        """Words between the parentheses, without quotes."""
        return _split_list(self.raw_arguments)

    @property
    def name(self) -> str:
        """First argument, or an empty string."""
        return next(iter(self.arguments), "")

    def all(self, kind: str) -> "Iterator[Group]":
        """Iterate over the groups of one kind directly inside this one."""
        return (group for group in self.groups if group.kind == kind)

    def list(self, attribute: str) -> "list[str] | None":
        """Words of the first complex attribute of this name, or None."""
        found = self.complex.get(attribute)
        return _split_list(found[0]) if found else None

    def numbers(self, attribute: str) -> npt.NDArray[np.float64] | None:
        """All numbers of the first complex attribute of this name, or None.

        Returns
        -------
        ndarray of float64, shape (n,) or None
            Rows given as several strings follow each other.

        Raises
        ------
        ValueError
            If a word of the list is not a number.
        """
        found = self.complex.get(attribute)
        if not found:
            return None
        text = CONTINUATION.sub(" ", found[0])[1:-1].replace('"', " ").replace(",", " ")
        try:
            return np.array(text.split(), dtype=np.float64)
        except ValueError as error:
            raise ValueError(
                f"{attribute} of the group in line {self.line} must be a list of numbers: {error}"
            ) from None


def _split_list(raw: str) -> list[str]:
    words = LIST_ITEM.findall(CONTINUATION.sub("", raw.strip()[1:-1]))
    return [quoted or bare for quoted, bare in words]


class _GroupBuilder(Transformer[Token, Group]):
    """Builds groups while the parser runs, so that no syntax tree of the file exists."""

    def start(self, children: list[Any]) -> Group:
        return children[0]

    def group(self, children: list[Any]) -> Group:
        head, arguments = children[:2]
        group = Group(head.rstrip(), arguments.rstrip(BLANKS), head.line)
        for child in children[3:-1]:
            if isinstance(child, Group):
                group.groups.append(child)
            else:
                name, text = child
                if text[0] == ":":
                    group.simple[name] = _value(text)
                else:
                    group.complex.setdefault(name, []).append(text)
        return group

    def simple(self, children: list[Any]) -> tuple[str, str]:
        return children[0].rstrip(), children[1].rstrip(BLANKS)

    complex = simple


def _value(text: str) -> str:
    value = text[1:].strip()
    if value[:1] == '"':
        value = CONTINUATION.sub("", value[1:-1]).strip()
    return value


@cache
def _liberty_parser() -> Lark:
    return Lark(
        LIBERTY_GRAMMAR, parser="lalr", lexer="basic", transformer=_GroupBuilder(), cache=False
    )


def read_text(path: Path) -> str:
    """Read a Liberty file, compressed by gzip or not.

    Parameters
    ----------
    path : Path
        File; whether it is compressed is seen from its first bytes, not from its name.

    Returns
    -------
    str
        Its text.

    Raises
    ------
    ValueError
        If the file cannot be read, is cut off inside the compressed data, is not text, or is
        larger than 64 MiB, compressed or not.  No more than that is ever held.
    """
    try:
        # Opened without waiting: a pipe that nobody writes to would hold the program for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"library must be a regular file, not {str(path)!r}")
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) and "regular" in str(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"library must be a readable file, not {str(path)!r}: {reason}") from None
    if data[:2] == b"\x1f\x8b" and len(data) <= MAX_BYTES:
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error):
            raise ValueError(
                f"library must be a complete gzip file, not {str(path)!r}, "
                "which is cut off or damaged"
            ) from None
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"library must be a file of at most {MAX_BYTES >> 20} MiB of text, not {str(path)!r}, "
            "which has more"
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Comments of older libraries hold Latin-1 letters; control bytes mean that it is no text.
        if b"\x00" in data:
            raise ValueError(f"library must be a text file, not {str(path)!r}") from None
        return data.decode("latin-1")


def read_liberty(path: Path) -> Group:
    """Read the ``library`` group of a Liberty file, compressed or not.

    Parameters
    ----------
    path : Path
        File to read.

    Returns
    -------
    Group
        The ``library`` group.

    Raises
    ------
    ValueError
        If the file cannot be read or is not Liberty; one line with the place of the error.
    """
    return parse_liberty(read_text(path), str(path))


def parse_liberty(text: str, origin: str = "text") -> Group:
    """Parse Liberty text.

    Parameters
    ----------
    text : str
        Whole content of a Liberty file.
    origin : str
        What to call the text in messages, usually its path.

    Returns
    -------
    Group
        The ``library`` group.

    Raises
    ------
    ValueError
        If the text is not one complete ``library`` group, which is said in one line with the
        place of the error; if it has more than two million statements or strings; or if it
        includes another file.
    """
    for what, most, count in (
        ("statements", MAX_STATEMENTS, sum(text.count(mark) for mark in ":({")),
        ("strings", MAX_STRINGS, text.count('"') // 2),
    ):
        if count > most:
            raise ValueError(
                f"library must have at most {most} {what}, not {origin!r}, which has about {count}"
            )
    code = COMMENT_OR_STRING.sub(_without_comment, text)
    try:
        root: Any = _liberty_parser().parse(code)
    except UnexpectedCharacters as error:
        raise ValueError(_syntax_message(origin, code, error.pos_in_stream)) from None
    except UnexpectedToken as error:
        # The end of the text has no position.
        position = error.token.start_pos if error.token.type != "$END" else None
        raise ValueError(_syntax_message(origin, code, position)) from None
    if root.kind != "library":
        raise ValueError(
            f"library must be a Liberty file with a library group, not {origin!r}, "
            f"which begins with {root.kind!r}"
        )
    _refuse_includes(root, origin)
    return root


def _refuse_includes(root: Group, origin: str) -> None:
    """Refuse a library whose text is not all here; no file that it names is ever opened."""
    groups = [root]
    while groups:
        group = groups.pop()
        if "include_file" in group.complex:
            file = ", ".join(group.list("include_file") or [])
            raise ValueError(
                f"library must hold all of its text, not {origin!r}, which includes {file!r}"
            )
        groups += group.groups


def _without_comment(match: re.Match[str]) -> str:
    found = match[0]
    # Line breaks of a comment stay, so that the line numbers in messages are those of the file.
    return found if found[0] == '"' else " " + "\n" * found.count("\n")


def _syntax_message(origin: str, code: str, position: int | None) -> str:
    """Say in one line what is wrong with a text; ``position`` is None at its end."""
    unclosed = code.count("{") - code.count("}")
    if unclosed > 0:
        return (
            f"library must be a complete Liberty file, not {origin!r}, "
            f"at whose end {unclosed} groups are open"
        )
    if position is None:
        return f"library must be a Liberty file, not {origin!r}, which has no group"
    line = code.count("\n", 0, position) + 1
    near = code[position : position + 24].split("\n")[0].strip()
    return f"library must be a Liberty file, not {origin!r}: no Liberty in line {line} at {near!r}"


#: Node of an expression: ("name", text), ("constant", 0 or 1), ("not", x), ("and"|"or"|"xor", ...).
Node = tuple[Any, ...]

_OPERATORS = {"and": "&", "or": "|", "xor": "^"}


class _NodeBuilder(Transformer[Token, Node]):
    def name(self, children: list[Any]) -> Node:
        return ("name", str(children[0]))

    def constant(self, children: list[Any]) -> Node:
        return ("constant", int(children[0]))

    def inverted(self, children: list[Any]) -> Node:
        return ("not", children[0])

    def exclusive(self, children: list[Any]) -> Node:
        return ("xor", *children)

    def both(self, children: list[Any]) -> Node:
        return ("and", *children)

    def either(self, children: list[Any]) -> Node:
        return ("or", *children)


@cache
def _function_parser() -> Lark:
    return Lark(FUNCTION_GRAMMAR, parser="lalr", transformer=_NodeBuilder())


# A library says the same few hundred conditions over and over.
@cache
def _function_tree(text: str) -> Node:
    if len(text) > MAX_EXPRESSION:
        raise ValueError(
            f"function must be a Boolean expression of at most {MAX_EXPRESSION} characters, "
            f"not {text[:20]!r} and {len(text) - 20} more"
        )
    try:
        tree: Any = _function_parser().parse(text)
    except (UnexpectedCharacters, UnexpectedToken):
        raise ValueError(f"function must be a Boolean expression, not {text!r}") from None
    level, depth = [tree], 0
    while level:
        level = [child for node in level for child in node[1:] if isinstance(child, tuple)]
        depth += 1
    if depth > MAX_DEPTH:
        raise ValueError(
            f"function must be a Boolean expression of at most {MAX_DEPTH} nested operations, "
            f"not {text[:20]!r} and {len(text) - 20} more characters of {depth}"
        )
    return tree


@dataclass(frozen=True)
class Function:
    """A Boolean function as Liberty writes it.

    Parameters
    ----------
    text : str
        Expression with the operators ``! ' ^ & * + |``, a blank for "and", parentheses and the
        constants 0 and 1.

    Raises
    ------
    ValueError
        If the text is not such an expression.
    """

    text: str
    tree: Node = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", _function_tree(self.text))

    def __str__(self) -> str:
        text = _infix(self.tree, {}, _LIBERTY_STYLE)
        return text[1:-1] if text[0] == "(" else text

    def renamed(self, names: Mapping[str, str]) -> "Function":
        """Replace names, by other names or by expressions in parentheses."""
        return Function(_infix(self.tree, names, _LIBERTY_STYLE))

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names that occur in the expression, each once, in the order of the text."""
        return tuple(dict.fromkeys(_names(self.tree)))

    def compile(self, order: Sequence[str] | None = None) -> "Callable[..., Words]":
        """Make a fast function of positional arguments.

        Parameters
        ----------
        order : sequence of str, optional
            Meaning of the arguments; :attr:`inputs` when left out.  Names that do not occur in
            the expression are allowed.

        Returns
        -------
        callable
            Takes one array of uint64 words (64 samples each) per name and returns the words of
            the result.  A constant function returns one word.

        Raises
        ------
        ValueError
            If a name of the expression is missing in ``order``.
        """
        names = self.inputs if order is None else tuple(order)
        missing = [name for name in self.inputs if name not in names]
        if missing:
            raise ValueError(
                f"order must name every input of {self.text!r}, not lack {missing[0]!r}"
            )
        arguments = {name: f"x{index}" for index, name in enumerate(names)}
        # Only operators and the names made here reach eval, whatever the library says.
        source = (
            f"lambda {', '.join(arguments.values())}: {_infix(self.tree, arguments, _NUMPY_STYLE)}"
        )
        constants = {"zero": np.uint64(0), "one": ~np.uint64(0)}
        compiled: Callable[..., Words] = eval(source, {"__builtins__": {}, **constants})
        return compiled

    def evaluate(self, inputs: Mapping[str, Words]) -> Words:
        """Evaluate the function on 64 samples per word.

        Parameters
        ----------
        inputs : mapping of str to ndarray of uint64
            Words of every input; shapes must broadcast.  Further names are ignored.

        Returns
        -------
        ndarray of uint64
            Words of the result.

        Raises
        ------
        ValueError
            If an input is missing.
        """
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise ValueError(
                f"inputs must hold every input of {self.text!r}, not lack {missing[0]!r}"
            )
        return _compiled(self)(*(inputs[name] for name in self.inputs))

    def truth_table(self, order: Sequence[str] | None = None) -> int:
        """All values of the function in one integer.

        Parameters
        ----------
        order : sequence of str, optional
            Inputs, the first one with weight 1; :attr:`inputs` when left out.

        Returns
        -------
        int
            Bit ``i`` is the value when input ``j`` is bit ``j`` of ``i``; 2**len(order) bits.

        Raises
        ------
        ValueError
            If a name of the expression is missing in ``order``.
        """
        names = self.inputs if order is None else tuple(order)
        compiled = self.compile(names)
        rows = np.arange(1 << len(names))
        columns = [(rows >> index & 1).astype(np.uint64) for index in range(len(names))]
        values = np.broadcast_to(compiled(*columns) & np.uint64(1), rows.shape)
        return int("".join("1" if value else "0" for value in values[::-1]), 2)


@cache
def _compiled(function: Function) -> "Callable[..., Words]":
    return function.compile()


def _names(node: Node) -> Iterator[str]:
    if node[0] == "name":
        yield node[1]
    elif node[0] != "constant":
        for child in node[1:]:
            yield from _names(child)


#: How expressions are written: the inversion, and the constants 0 and 1.
_LIBERTY_STYLE = ("!", "0", "1")
_NUMPY_STYLE = ("~", "zero", "one")


def _infix(node: Node, names: Mapping[str, str], style: tuple[str, str, str]) -> str:
    """Write a tree with every operation in parentheses, so that no reader's precedence matters."""
    kind = node[0]
    if kind == "name":
        return names.get(node[1], node[1])
    if kind == "constant":
        return style[1 + node[1]]
    if kind == "not":
        return style[0] + _infix(node[1], names, style)
    operands = (_infix(child, names, style) for child in node[1:])
    return "(" + _OPERATORS[kind].join(operands) + ")"

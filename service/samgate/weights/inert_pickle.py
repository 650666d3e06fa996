"""What a pickle holds, without building any of it.

A pickle is a program: it names functions and has them called. Here its instructions are read by the standard library's
disassembler and followed only as far as they describe data. Nothing that a pickle names is ever looked up, imported or
called; in its place stands the name, and what was to be made by it stands as a :class:`Made`.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from samgate.errors import WeightsError

MAX_PICKLE_BYTES = 4 << 20
"""Of one pickle, a bound on memory and time: networks of thousands of tensors have a tenth of it."""


@dataclass(frozen=True, slots=True)
class Name:
    """A function or class that a pickle names, as ``module.name``."""

    text: str


@dataclass(eq=False, slots=True)
class Made:
    """What ``what`` would have made of ``arguments``, and then be told as ``state``."""

    what: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What lies outside of the pickle, by the id that the pickle has for it."""

    id: Any


_MAPS = {"collections.OrderedDict", "collections.defaultdict"}
_SEQUENCES = {"torch.Size", "builtins.set", "__builtin__.set", "builtins.frozenset", "__builtin__.frozenset"}
_CLASS = "module"
"""First word of the id that torch's older files have for a class, before the class and its source."""


class _Machine:
    """A pickle's stack, marks and memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.stored: list[Stored] = []

    def marked(self) -> list[Any]:
        """What lies above the last mark."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def tuple_of_marked(self) -> None:
        values = tuple(self.marked())
        self.stack.append(values)

    def arguments(self) -> tuple[Any, ...]:
        value = self.stack.pop()
        if not isinstance(value, tuple):
            raise TypeError("arguments that are no tuple")
        return value

    def make(self) -> None:
        arguments, what = self.arguments(), self.stack.pop()
        if not isinstance(what, Name):
            raise TypeError("something is called that has no name")
        made: Any = Made(what.text, arguments)
        if what.text in _MAPS:
            made = {}
        elif what.text in _SEQUENCES:
            made = tuple(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else ()
        self.stack.append(made)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Made):
            target.state = state

    def put(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Others are nobody's names, and could be chosen to collide.
            if isinstance(target, dict) and (isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 32)):
                target[key] = value

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)

    def store(self) -> None:
        key = self.stack.pop()
        if isinstance(key, tuple) and len(key) > 1 and key[0] == _CLASS and isinstance(key[1], Name):
            self.stack.append(key[1])
            return
        self.stored.append(Stored(key))
        self.stack.append(self.stored[-1])

    def name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name that is no text")
        self.stack.append(Name(f"{module}.{name}"))

    def gather(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise ValueError("too few values")
        found = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return found

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []


def _refuse(_: _Machine, __: Any) -> None:
    raise ValueError("an instruction of another kind")


def _push(value: Callable[[Any], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.stack.append(value(argument))


def _do(step: Callable[[_Machine], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: step(machine)


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda _, __: None),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
        _push(lambda x: x),
    ),
    **dict.fromkeys(("SHORT_BINSTRING", "BINSTRING", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES"), _push(lambda x: x)),
    "NONE": _push(lambda _: None),
    "NEWTRUE": _push(lambda _: True),
    "NEWFALSE": _push(lambda _: False),
    "EMPTY_DICT": _push(lambda _: {}),
    "EMPTY_LIST": _push(lambda _: []),
    "EMPTY_TUPLE": _push(lambda _: ()),
    "EMPTY_SET": _push(lambda _: []),
    "GLOBAL": _push(lambda x: Name(x.replace(" ", ".", 1))),
    "STACK_GLOBAL": _do(_Machine.name),
    "MARK": _do(_Machine.mark),
    "POP": _do(lambda machine: machine.stack.pop()),
    "POP_MARK": _do(_Machine.marked),
    "TUPLE": _do(_Machine.tuple_of_marked),
    "TUPLE1": _do(lambda machine: machine.stack.append(machine.gather(1))),
    "TUPLE2": _do(lambda machine: machine.stack.append(machine.gather(2))),
    "TUPLE3": _do(lambda machine: machine.stack.append(machine.gather(3))),
    "FROZENSET": _do(_Machine.tuple_of_marked),
    "APPEND": _do(lambda machine: machine.append([machine.stack.pop()])),
    "APPENDS": _do(lambda machine: machine.append(machine.marked())),
    "ADDITEMS": _do(lambda machine: machine.append(machine.marked())),
    "SETITEM": _do(lambda machine: machine.put(list(machine.gather(2)))),
    "SETITEMS": _do(lambda machine: machine.put(machine.marked())),
    "REDUCE": _do(_Machine.make),
    "NEWOBJ": _do(_Machine.make),
    "BUILD": _do(_Machine.build),
    "BINPERSID": _do(_Machine.store),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, at: machine.memo.__setitem__(at, machine.stack[-1])),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, at: machine.stack.append(machine.memo[at])),
    "MEMOIZE": _do(lambda machine: machine.memo.__setitem__(len(machine.memo), machine.stack[-1])),
}
"""By the names that :mod:`pickletools` has for them: what protocols 2 to 4 write. Text formats, registered extensions,
buffers and calls with keywords aren't among them."""


@dataclass(frozen=True, slots=True)
class Pickle:
    """``content``, and all of it that lies outside of the pickle."""

    content: Any
    stored: list[Stored]


def read_pickle(file: IO[bytes]) -> Pickle:
    """What the next pickle in ``file`` describes, and leaves ``file`` behind it.

    Text, bytes, numbers, None, lists, tuples and dicts are themselves, whose keys other than text and small numbers are
    left out. Sets are lists or tuples. Everything else is a :class:`Name`, :class:`Made` or :class:`Stored`.

    Raises:
        WeightsError: it is no pickle, is damaged, too large, or has instructions that torch never writes.
    """
    start = file.tell()
    window = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(window):
            if operation.name == "STOP":
                file.seek(start + window.tell())
                return Pickle(machine.stack.pop(), machine.stored)
            _STEPS.get(operation.name, _refuse)(machine, argument)
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise WeightsError(f"what is pickled there is damaged, or nothing that torch writes: {error}") from error
    raise WeightsError("a pickle without an end")

"""Reading of pickles as plain data: nothing that a pickle names is imported, looked up or called.

A pickle is a program for a small stack machine, and Python's own reader runs what it names. This one knows how to build
numbers, text, containers and descriptions of tensors. Whatever else a pickle asks for becomes an inert `StandIn`, which
holds what it was given and does nothing. So a checkpoint with a trainer's settings, a metric or a whole network in it
can be searched for weights, and no code in it can run.
"""

import io
import pickletools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

MOST_STEPS = 1_000_000
"""Instructions of a pickle that are read. A DenseNet121 with its optimizer has 20,000, a pickled network 60,000."""


class PickleError(ValueError):
    """A pickle that cannot be read as data; the message says why."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; only a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class StandIn:
    """An object of a class that is not known here.

    Attributes:
        name: its class, or the function that would have made it; any other value if the pickle calls that.
        arguments: what it would have been made with.
        state: what would have been put into it.
        items: keys and values that would have been set in it.
        members: values that would have been added to it.
    """

    name: object
    arguments: tuple[object, ...] = ()
    state: object = None
    items: dict[Hashable, object] = field(default_factory=dict)
    members: list[object] = field(default_factory=list)

    def __repr__(self) -> str:  # the default would go through everything in it, which a hostile pickle makes endless
        return "StandIn"


Build = Callable[[tuple[Any, ...]], object]
Persistent = Callable[[object], object]


class _Mark:
    pass


def read_pickle(file: io.BytesIO, known: dict[str, Build], persistent: Persistent) -> object:
    """Read one pickle, of any protocol, from the position of `file`, which is then behind it.

    Args:
        file: the bytes in memory.
        known: functions that build a value, by the name that a pickle calls: ``torch._utils._rebuild_tensor_v2``. Each
            gets the arguments, which may be anything, and must check them. It raises `PickleError` if they are wrong.
        persistent: function that returns what a persistent identifier stands for; same conditions.

    Returns:
        None, bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, `Name`, `StandIn`, and what
        `known` and `persistent` return.

    Raises:
        PickleError: it is not a pickle, is not complete, or has more than `MOST_STEPS` instructions.
    """
    machine = _Machine(known, persistent)
    try:
        for step, (opcode, argument) in enumerate(_instructions(file)):
            if step >= MOST_STEPS:
                raise PickleError(f"a pickle has more than {MOST_STEPS:,} instructions")
            if opcode == "STOP":
                return machine.stack.pop()
            machine.run(opcode, argument)
    except PickleError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise PickleError(f"a pickle cannot be read ({type(error).__name__})") from None
    raise PickleError("a pickle ends too early")


def _instructions(file: io.BytesIO) -> Iterator[tuple[str, Any]]:
    for opcode, argument, _ in pickletools.genops(file):
        yield opcode.name, argument


class _Machine:
    """The stack machine of the pickle protocol, as `pickletools` documents it."""

    def __init__(self, known: dict[str, Build], persistent: Persistent) -> None:
        self.known, self.persistent = known, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, object] = {}

    def run(self, opcode: str, argument: Any) -> None:
        """Carry out one instruction."""
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        elif opcode not in ("PROTO", "FRAME"):
            step = getattr(self, f"_{opcode.lower()}", None)
            if step is None:
                raise PickleError(f"a pickle has the instruction {opcode}, which no checkpoint needs")
            step(argument)

    def _after_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while not isinstance(self.stack[place], _Mark):
            place -= 1
            if place < 0:
                raise PickleError("a pickle has a mark missing")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def _make(self, target: object, arguments: object) -> object:
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        build = self.known.get(str(target)) if isinstance(target, Name) else None
        return StandIn(target, arguments) if build is None else build(arguments)

    def _mark(self, _: object) -> None:
        self.stack.append(_Mark())

    def _pop(self, _: object) -> None:
        self.stack.pop()

    def _pop_mark(self, _: object) -> None:
        self._after_mark()

    def _dup(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self, _: object) -> None:
        self.stack.append(tuple(self._after_mark()))

    def _tuple1(self, _: object) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _: object) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _: object) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _list(self, _: object) -> None:
        self.stack.append(self._after_mark())

    def _dict(self, _: object) -> None:
        values = self._after_mark()
        self.stack.append(_dict_of(values))

    def _frozenset(self, _: object) -> None:
        self.stack.append(frozenset(map(_key, self._after_mark())))

    def _append(self, _: object) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _appends(self, _: object) -> None:
        values = self._after_mark()
        self._extend(values)

    def _additems(self, _: object) -> None:
        values = self._after_mark()
        self._extend(values)

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, StandIn):
            target.members.extend(values)
        elif isinstance(target, set):
            target.update(map(_key, values))
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise PickleError("a pickle adds to what is no list")

    def _setitem(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(_dict_of([key, value]))

    def _setitems(self, _: object) -> None:
        values = self._after_mark()
        self._set(_dict_of(values))

    def _set(self, items: dict[Any, Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, StandIn):
            target.items.update(items)
        elif isinstance(target, dict):
            target.update(items)
        else:
            raise PickleError("a pickle sets items in what is no dictionary")

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(Name(module, name))

    def _stack_global(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("a pickle names something by what is no text")
        self.stack.append(Name(module, name))

    def _reduce(self, _: object) -> None:
        arguments, target = self.stack.pop(), self.stack.pop()
        self.stack.append(self._make(target, arguments))

    _newobj = _reduce

    def _newobj_ex(self, _: object) -> None:
        keywords, arguments, target = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(StandIn(target, (arguments, keywords)))

    def _inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(StandIn(Name(module, name), tuple(self._after_mark())))

    def _obj(self, _: object) -> None:
        target, *arguments = self._after_mark()
        self.stack.append(StandIn(target, tuple(arguments)))

    def _build(self, _: object) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, StandIn):  # whatever else it is has no state that matters here
            target.state = state

    def _persid(self, argument: object) -> None:
        self.stack.append(self.persistent(argument))

    def _binpersid(self, _: object) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


def _dict_of(values: list[Any]) -> dict[Hashable, Any]:
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def _key(value: Any) -> Hashable:
    """Return a key: a plain value, or a stand-in for others, because nested tuples can take for ever to hash."""
    plain = value is None or isinstance(value, (str, bytes, int, float, Name))
    return value if plain else StandIn("key", (value,))


_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    )
)
"""Instructions whose argument is the value itself."""
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}

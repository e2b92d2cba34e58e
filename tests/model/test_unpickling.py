"""Pickles read as data. What is expected is what Python's own reader returns, for data without objects."""

import contextlib
import io
import pickle
import pickletools
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.model.unpickling import MOST_STEPS, Name, PickleError, StandIn, read_pickle

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
KEYS = st.text(max_size=8) | st.integers(-9, 9)
DATA = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.tuples(inner, inner, inner, inner)
        | st.tuples(inner)
        | st.sets(KEYS, max_size=4)
        | st.frozensets(KEYS, max_size=4)
    ),
    max_leaves=12,
)


def read(content: bytes) -> Any:
    def refuse(_: object) -> object:
        raise PickleError("no persistent identifier was expected")

    return read_pickle(io.BytesIO(content), {}, refuse)


@given(DATA, st.integers(4, 5))
def test_plain_data_is_read_as_python_reads_it(value: object, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


@given(
    st.lists(st.integers() | st.text(max_size=9) | st.dictionaries(st.text(max_size=9), st.none())), st.integers(0, 3)
)
def test_old_protocols_are_read(value: object, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


def test_shared_and_recursive_data_stay_shared() -> None:
    inner: list[Any] = [1]
    inner.append(inner)
    found = read(pickle.dumps([inner, inner]))
    assert found[0] is found[1]
    assert found[0][1] is found[0]


class Trainer:
    """An object as a checkpoint may hold it."""

    def __init__(self) -> None:
        self.best = 0.8


def test_an_object_becomes_a_stand_in_with_what_was_in_it() -> None:
    found = read(pickle.dumps({"trainer": Trainer()}))["trainer"]
    assert isinstance(found, StandIn)
    assert found.state == {"best": 0.8}
    assert str(found.arguments[0] if isinstance(found.name, StandIn) else found.name).endswith("Trainer")


@given(st.binary(max_size=200))
def test_no_bytes_raise_another_error(content: bytes) -> None:
    with contextlib.suppress(PickleError):
        read(content)


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda one: one.name)
def test_each_instruction_is_carried_out_or_refused(opcode: pickletools.OpcodeInfo) -> None:
    """Each one after values of every kind, with several arguments, and then the end."""
    starts = (
        b"",
        b"(",
        b"]",
        b"}",
        b"\x8f",
        b"N",
        b"K\x01",
        b"cos\nsystem\n",
        b"cos\nsystem\n(K\x01t",
        b"(cos\nsystem\n",
    )
    arguments = (b"", b"\x01", b"\x00" * 8, b"\xff" * 8, b"os\nsystem\n", b"1\n", b"'a'\n", struct.pack("<Q", 2**62))
    for start in starts:
        for argument in arguments:
            content = start + opcode.code.encode("latin-1") + argument
            for whole in (content + b".", content + b"R.", content + b"b.", content):
                try:
                    found = read(whole)
                except PickleError:
                    continue
                assert not callable(found)


def nested_tuples_as_a_key() -> bytes:
    return b"}" + b"K\x01" + b"2\x86" * 60 + b"K\x01s."


HOSTILE = {
    "os.system": b"cos\nsystem\n(S'touch RAN'\ntR.",
    "builtins.eval": b'c__builtin__\neval\n(S\'open("RAN", "w")\'\ntR.',
    "protocol 4": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\ttouch RAN\x85R.",
    "a dotted name": b"\x80\x04\x8c\x08builtins\x8c\x0ceval.__call__\x93\x8c\x01x\x85R.",
    "what a call returned is called": b"cbuiltins\ngetattr\n(cos\nos\nS'system'\ntR(S'touch RAN'\ntR.",
    "INST": b"(S'touch RAN'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch RAN'\no.",
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(S'touch'\nS'RAN'\nlp0\n0g0\n\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n(S'true'\nt}\x92.",
    "BUILD": b"cbuiltins\nobject\n)\x81}S'__setstate__'\ncos\nsystem\nsbS'touch RAN'\nb.",
    "BUILD on a name": b"cos\nsystem\n}S'__code__'\nK\x01sb.",
    "EXT1": b"\x80\x02\x82\x01.",
    "torch.hub": b"ctorch.hub\nload\n(S'a/b'\nS'c'\ntR.",
    "a persistent identifier": b"cos\nsystem\nQ.",
    "nested tuples as a key": nested_tuples_as_a_key(),
    "a byte array of 2^62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
    "a memo at 2^31": b"Nr" + struct.pack("<I", 2**31 - 1) + b".",
    "a frame of 2^62": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_data_or_refused(name: str) -> None:
    try:
        found = read(HOSTILE[name])
    except PickleError:
        return
    assert isinstance(found, (StandIn, Name, dict, type(None)))


def test_too_many_instructions_are_refused() -> None:
    with pytest.raises(PickleError, match="more than 1,000,000 instructions"):
        read(b"N0" * MOST_STEPS + b"N.")


def test_nothing_is_imported_opened_or_run() -> None:
    """An audit hook in another process sees no event while hostile pickles are read; Python's own reader causes one."""
    script = textwrap.dedent(
        """
        import contextlib, io, pickle, sys
        sys.path[:0] = sys.argv[1:]
        from test_unpickling import HOSTILE, read
        events, watching = [], False

        def note(event, arguments):
            if watching:
                events.append(event)

        sys.addaudithook(note)
        contents = list(HOSTILE.values())
        watching = True
        for content in contents:
            with contextlib.suppress(ValueError):
                read(content)
        watching = False
        assert not events, events
        watching = True
        with contextlib.suppress(Exception):
            pickle.loads(b"cos\\ngetcwd\\n(tR.")
        watching = False
        assert "pickle.find_class" in events, events
        print("quiet")
        """
    )
    folder = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(folder.parent)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "quiet\n", done.stderr

"""Tables over a map in a dictionary: keys and leaves, what is printed, per-CPU reduction, events."""

from __future__ import annotations

import ctypes as ct
from typing import Any

import pytest
from bcc_unit import FakeMap

from sonde.api.bcc.tables import CLASSES, Table, find_class
from sonde.api.bcc.tables.buffers import Events
from sonde.api.bcc.tables.histogram import print_json, print_linear, print_log2
from sonde.api.bcc.tables.stacktrace import StackTrace
from sonde.errors import FeatureError
from sonde.kernel.abi import MAP_TYPES
from sonde.spec.object import MapSpec


class Pair(ct.Structure):
    _fields_ = [("name", ct.c_char * 8), ("slot", ct.c_uint)]


def table(kind: str = "hash", key: Any = ct.c_uint, leaf: Any = ct.c_ulonglong, copies: int = 1, **options: Any) -> Any:
    """A table of 16 entries."""
    live = FakeMap(MapSpec("t", kind, ct.sizeof(key), ct.sizeof(leaf), 16), copies)
    return Table(None, live, key, leaf, b"t", **options)  # type: ignore[arg-type]


def test_every_map_type_with_a_face_exists() -> None:
    assert set(CLASSES) <= set(MAP_TYPES)
    for kind in CLASSES:
        assert find_class(kind)
    with pytest.raises(FeatureError, match="bloom_filter"):
        find_class("bloom_filter")


def test_hash_is_a_mapping() -> None:
    t = table()
    t[t.Key(5)] = t.Leaf(7)
    t[6] = 8
    assert {k.value: v.value for k, v in t.items()} == {5: 7, 6: 8}
    assert sorted(k.value for k in t) == [5, 6]
    assert sorted(k.value for k in t.keys()) == [5, 6]  # noqa: SIM118
    assert sorted(v.value for v in t.values()) == [7, 8]
    assert len(t) == 2
    assert ct.c_uint(5) in t
    assert 9 not in t
    del t[5]
    with pytest.raises(KeyError):
        t[5]
    with pytest.raises(KeyError):
        del t[5]
    assert t.pop(t.Key(6)).value == 8
    assert t.get(6) is None


def test_next_walks_the_keys() -> None:
    t = table()
    t[3], t[4] = 1, 1
    first = t.next(None)
    assert (first.value, t.next(first).value) == (3, 4)
    with pytest.raises(StopIteration):
        t.next(t.Key(4))


def test_zero_keeps_the_keys() -> None:
    t = table()
    t[3] = 5
    t.zero()
    assert t[3].value == 0


def test_structs_as_keys_and_leaves() -> None:
    t = table(key=Pair)
    t[Pair(b"bash", 3)] = 9
    ((key, leaf),) = t.items()
    assert (key.name, key.slot, leaf.value) == (b"bash", 3, 9)
    assert t.key_sprintf(key) == b'{ "bash" 0x3 }'
    assert t[t.key_scanf(b'{ "bash" 0x3 }')].value == 9
    assert t.leaf_scanf("0x10").value == 16
    assert t.leaf_sprintf(leaf) == b"0x9"


def test_array_indices() -> None:
    t = table("array")
    t[1] = 5
    t[-1] = 6
    assert (t[ct.c_int(1)].value, t[15].value, len(t)) == (5, 6, 16)
    del t[1]
    assert t[1].value == 0
    assert [v.value for v in t.values()] == [0] * 15 + [6]
    t.clear()
    assert t[15].value == 0
    for wrong in (16, -17):
        with pytest.raises(IndexError, match="out of range"):
            t[wrong]
    with pytest.raises(IndexError, match="integer"):
        t["1"]


def test_arrays_of_descriptors_take_what_has_one() -> None:
    class Holder:
        fd = 31

    t = table("prog_array", leaf=ct.c_uint)
    t[0] = Holder()
    t[1] = ct.c_int(32)
    assert [(k.value, v.value) for k, v in t.items()] == [(0, 31), (1, 32)]
    inner = table("hash")
    outer = table("array_of_maps", leaf=ct.c_uint)
    outer[3] = inner
    assert outer[3].value == inner.map_fd


def test_batches_check_their_arrays() -> None:
    t = table()
    with pytest.raises(TypeError, match="ctypes arrays"):
        t.items_update_batch([1], [2])
    with pytest.raises(ValueError, match="differ"):
        t.items_update_batch((t.Key * 2)(1, 2), (t.Leaf * 3)(1, 2, 3))
    with pytest.raises(ValueError, match="17"):
        t.items_delete_batch((t.Key * 17)())


def test_per_cpu_values_and_reductions() -> None:
    t = table("percpu_array", copies=4)
    t[0] = t.Leaf(1, 2, 3, 10)
    assert (list(t[0]), list(t.getvalue(0))) == ([1, 2, 3, 10], [1, 2, 3, 10])
    assert (t.sum(0).value, t.max(0).value, t.average(0)) == (16, 10, 4.0)
    t[1] = 5
    assert list(t[1]) == [5] * 4
    del t[0]
    assert t.sum(0).value == 0


def test_per_cpu_values_of_any_size() -> None:
    """BCC refuses leaves that are no multiple of 8 bytes, but for int."""
    t = table("percpu_hash", leaf=ct.c_uint, copies=2)
    t[7] = [4, 5]
    assert list(t[7]) == [4, 5]
    pair = table("percpu_hash", leaf=Pair, copies=2)
    pair[7] = [Pair(b"a", 1), Pair(b"b", 2)]
    assert [(p.name, p.slot) for p in pair[7]] == [(b"a", 1), (b"b", 2)]
    with pytest.raises(IndexError, match="integer type"):
        pair.sum(7)


def test_reducer() -> None:
    t = table("percpu_hash", copies=3, reducer=lambda a, b: a + b)
    t[1] = [1, 2, 3]
    assert t[1] == 6
    assert [v for _, v in t.items()] == [6]
    assert list(t.getvalue(1)) == [1, 2, 3]


def test_stack_walk_ends_at_the_first_zero() -> None:
    class Stack(ct.Structure):
        _fields_ = [("ip", ct.c_ulonglong * 127)]

    live = FakeMap(MapSpec("t", "stack_trace", 4, ct.sizeof(Stack), 16))
    t = StackTrace(None, live, ct.c_int, Stack)  # type: ignore[arg-type]
    full = Stack((ct.c_ulonglong * 127)(*range(1, 128)))
    t.live.update(bytes(4), bytes(Stack((ct.c_ulonglong * 127)(5, 6, 0, 7))))
    t.live.update(b"\1\0\0\0", bytes(full))
    assert list(t.walk(0)) == [5, 6]
    assert list(t.walk(0, hex)) == ["0x5", "0x6"]
    assert len(list(t.walk(1))) == 127
    with pytest.raises(KeyError):
        t.walk(9)
    t.clear()
    assert len(t) == 2


def test_events_never_read_beyond_their_end() -> None:
    class Bpf:
        def find_event_class(self, name: bytes) -> Any:
            return Pair

    events = Events(Bpf(), b"events")
    buffer = memoryview(b"..bash\0\0\0\0\x07\0\0\0rest")
    event = events.make(events.take(buffer, 2, 12))
    assert (event.name, event.slot) == (b"bash", 7)
    short = events.make(events.take(buffer, 2, 6))
    assert (short.name, short.slot) == (b"bash", 0)
    assert (event.name, event.slot) == (b"bash", 7), "an event stays as it is when the next one comes"
    own = ct.create_string_buffer(bytes(Pair(b"own", 4)))
    assert events.make(ct.addressof(own)).slot == 4


def test_log2_histogram(capsys: pytest.CaptureFixture[str]) -> None:
    print_log2([0, 1, 0, 4] + [0] * 61, "usecs")
    assert capsys.readouterr().out == (
        "     usecs               : count     distribution\n"
        "         0 -> 1          : 1        |**********                              |\n"
        "         2 -> 3          : 0        |                                        |\n"
        "         4 -> 7          : 4        |****************************************|\n"
    )
    print_log2([0] * 65, "usecs")
    assert capsys.readouterr().out == ""


def test_linear_and_json_histogram(capsys: pytest.CaptureFixture[str]) -> None:
    print_linear([0, 0, 3, 1], "runqlen", strip_leading_zero=True)
    assert capsys.readouterr().out == (
        "     runqlen       : count     distribution\n"
        "        2          : 3        |****************************************|\n"
        "        3          : 1        |*************                           |\n"
    )
    print_json([0, 2, 1], "usecs", ("disk", "sda"))
    out = capsys.readouterr().out
    assert out.startswith("{'ts': '")
    assert out.endswith(
        "'val_type': 'usecs', 'data': [{'interval-start': 0, 'interval-end': 1, 'count': 2}, "
        "{'interval-start': 2, 'interval-end': 3, 'count': 1}], 'disk': 'sda'}\n"
    )


def test_sections_of_a_histogram(capsys: pytest.CaptureFixture[str]) -> None:
    t = table(key=Pair)
    t[Pair(b"sdb", 1)] = 1
    t[Pair(b"sda", 2)] = 2
    t.print_log2_hist("usecs", "disk", section_print_fn=bytes.decode, bucket_sort_fn=sorted)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "=" in line] == ["disk = sda", "disk = sdb"]
    t.print_linear_hist(bucket_fn=lambda name: name.decode().upper())
    assert "\nBucket ptr = 'SDB'\n" in capsys.readouterr().out
    whole = table("array")
    whole[2] = 3
    whole.print_log2_hist()
    assert "2 -> 3          : 3  " in capsys.readouterr().out


def test_a_slot_beyond_the_last_is_an_error() -> None:
    t = table()
    t[2000] = 1
    with pytest.raises(IndexError, match="2000 exceeds max of 1025"):
        t.print_linear_hist()

"""Attach points: what is accepted, how it is named, and what is said about the rest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.errors import ProbeError
from sonde.probes.catalogue import parse_attach_point, probetype_name
from sonde.probes.grammar import to_uint, unquote
from sonde.probes.registry import TYPES, get_type
from sonde.probes.wildcard import make_matcher


def parse(text: str, **options: object) -> list[str]:
    return [p.text for p in parse_attach_point(tuple(text.split(":")), **options)]  # type: ignore[arg-type]


# The names are those that bpftrace 0.27.1 printed by its builtin `probe` for the same attach points.
NAMES = [
    ("BEGIN", "begin"),
    ("End", "end"),
    ("begin:*", "begin"),
    ("interval:1s", "interval:us:1000000"),
    ("i:s:1", "interval:s:1"),
    ("interval:1500", "interval:us:1"),
    ("interval:1500us", "interval:us:1500"),
    ("interval:1m", "interval:us:60000000"),
    ("interval:us:1e3", "interval:us:1000"),
    ("profile:us:0x100", "profile:us:256"),
    ("p:hz:99", "profile:hz:99"),
    ("software:cpu:100000", "software:cpu:100000"),
    ("software:cpu-clock:1e5", "software:cpu-clock:100000"),
    ("s:cs", "software:cs"),
    ("software:cs:0", "software:cs"),
    ("h:cycles:100", "hardware:cycles:100"),
    ("k:vfs_read", "kprobe:vfs_read"),
    ("KPROBE:vfs_read", "kprobe:vfs_read"),
    ("kprobe:vmlinux:vfs_read", "kprobe:vmlinux:vfs_read"),
    ("kprobe:vfs_read+0x10", "kprobe:vfs_read+16"),
    ("kprobe:vfs_read+0", "kprobe:vfs_read"),
    ("kr:vfs_read", "kretprobe:vfs_read"),
    ("kfunc:vfs_read", "fentry:vfs_read"),
    ("fr:mod:f", "fexit:mod:f"),
    ("kretfunc:f", "fexit:f"),
    ("fentry:bpf:12:prog", "fentry:bpf:12:prog"),
    ("t:sched:sched_switch", "tracepoint:sched:sched_switch"),
    ("tracepoint:sched_*", "tracepoint:*:sched_*"),
    ("rt:sched_switch", "rawtracepoint:sched_switch"),
    ("u:/bin/sh:main", "uprobe:/bin/sh:main"),
    ("U:/bin/sh:x:y", "usdt:/bin/sh:x:y"),
    ("ur:/bin/sh:main", "uretprobe:/bin/sh:main"),
    ("uprobe:/bin/sh:main+4", "uprobe:/bin/sh:main+4"),
    ("uprobe:/bin/sh:0x30000", "uprobe:/bin/sh:196608"),
    ("uprobe:/bin/sh:cpp:f", "uprobe:/bin/sh:cpp:f"),
    ("it:task", "iter:task"),
    ("self:signal:SIGUSR1", "self:signal:SIGUSR1"),
    ("test:x", "test:x"),
    ("bench:x", "bench:x"),
    ("w:0x1000:8:rw", "watchpoint:0x1000:8:rw"),
    ("w:0x1000:8:wr", "watchpoint:0x1000:8:wr"),
]


@pytest.mark.parametrize(("text", "name"), NAMES)
def test_names(text: str, name: str) -> None:
    assert parse(text) == [name]


# The messages are those of bpftrace 0.27.1.
ERRORS = [
    ("foo:bar", "Invalid probe type: foo"),
    ("tracepoint:x", "tracepoint probe type requires 2 arguments, found 1"),
    ("tracepoint:a:b:c", "tracepoint probe type requires 2 arguments, found 3"),
    ("tracepoint:a:", "tracepoint probe must have a target"),
    ("kprobe", "kprobe probe type requires 1 or 2 arguments, found 0"),
    ("kprobe:", "kprobes should be attached to a function or an address"),
    ("kprobe:a:b:c", "kprobe probe type requires 1 or 2 arguments, found 3"),
    ("kprobe:+4", "Invalid offset"),
    ("kprobe:a+b", "Invalid offset: invalid integer: b"),
    ("kprobe:a+1+2", "Cannot take more than one offset"),
    ("kprobe:0xffffffff81000000", "Probing by address requires --unsafe"),
    ("kretprobe:vfs_read+4", "Offset not allowed"),
    ("interval", "interval probe type requires 1 or 2 arguments, found 0"),
    ("interval:s", "Invalid rate of interval probe: invalid integer: s"),
    ("interval:s:0", "interval frequency should be a positive integer"),
    ("interval:hz:-1", "interval frequency should be a positive integer"),
    ("interval:s:abc", "Invalid rate of interval probe: invalid integer: abc"),
    ("interval:x:1", "x is not an accepted unit of time"),
    ("profile:99", "Invalid rate of profile probe. Minimum is 1000 or 1us. Found: 99 nanoseconds"),
    ("software:x", "x is not a software probe"),
    ("software:cs:abc", "Invalid count for software probe: invalid integer: abc"),
    ("software:faults:", "Invalid count for software probe: invalid integer: "),
    ("hardware:cpu", "cpu is not a hardware probe"),
    ("watchpoint:0x1000:8", "watchpoint probe type requires 3 arguments, found 2"),
    ("watchpoint:zz:8:w", "Invalid function/address argument: invalid integer: zz"),
    ("watchpoint:0:8:w", "watchpoint must be attached to a non-zero address"),
    ("watchpoint:0x1000:3:w", "watchpoint length must be one of (1,2,4,8)"),
    ("watchpoint:0x1000:8:z", "watchpoint mode must be combination of (r,w,x)"),
    ("watchpoint:0x1000:8:ww", "watchpoint modes may not be duplicated"),
    ("fentry", "fentry probe type requires 1 or 3 arguments, found 0"),
    ("fentry:a:b:c", "Only the 'bpf' variant of this probe supports 4 arguments"),
    ("fentry:bpf:x:y", "bpf program id must be a number or '*'"),
    ("rt:a:b:c", "rawtracepoint probe type requires 2 or 1 arguments, found 3"),
    ("iter:a:b:c", "iter probe type takes 2 arguments (1 optional)"),
    ("self:signal", "self probe type requires 2 arguments, found 1"),
    ("self:signal:SIGUSR2", "SIGUSR2 is not a supported signal"),
    ("self:x:y", "x is not a supported trigger"),
    ("begin:x", "begin probe type requires 0 arguments, found 1"),
    ("test", "test probe type requires 1 arguments, found 0"),
    ("uprobe:/bin/sh", "uprobe probe type requires 2 or 3 arguments, found 1"),
    ("uprobe:/bin/sh:", "uprobe should be attached to a function and/or address"),
    ("uprobe::main", "uprobe should have a target"),
    ("uprobe:/bin/sh:xyz:foo", "unsupported language type: xyz"),
    ("uprobe:/bin/*:0x10", "Cannot use wildcards with absolute address"),
    ("uretprobe:/bin/sh:main+4", "Offset not allowed"),
    ("usdt:/bin/sh", "usdt probe type requires 2 or 3 arguments, found 1"),
    ("usdt:/bin/sh:", "usdt probe must have a target function or wildcard"),
    ("xx*:foo", "No probe type matched for xx*"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ProbeError) as caught:
        parse(text)
    assert caught.value.message == message


def test_hints() -> None:
    for text, hint in (
        ("kporbe:x", "did you mean kprobe?"),
        ("watchpoint:0x1000:8:r", "supported modes: x,w,rw"),
        ("watchpoint:0x1004:8:w", "several shorter"),
        ("software:csx", "did you mean cs"),
        ("interval:ns:5", "interval:5ns"),
    ):
        with pytest.raises(ProbeError) as caught:
            parse(text)
        assert hint in caught.value.hint


def test_a_process_stands_for_the_target() -> None:
    assert parse("uprobe:main", pid=5) == ["uprobe::main"]
    assert parse("usdt:start", command_path="/bin/sh") == ["usdt::start"]
    assert parse("u:cpp:f", pid=5) == ["uprobe::cpp:f"]
    with pytest.raises(ProbeError, match="found 1"):
        parse("uprobe:main")
    with pytest.raises(ProbeError, match="path or pid"):
        parse("usdt::a:b")


def test_wildcard_providers() -> None:
    assert parse("*ware:c*") == ["hardware:c*", "software:c*"]
    assert parse("k*:vfs_read") == ["kprobe:vfs_read"]
    assert parse("u*:/bin/sh:main") == ["uprobe:/bin/sh:main", "usdt:/bin/sh:main"]
    assert all(p.lenient for p in parse_attach_point(("*", "vfs_read")))
    assert parse("*switch*")[-1] == "tracepoint:*:*switch*"


def test_unsafe_addresses() -> None:
    (pattern,) = parse_attach_point(("kprobe", "0xffffffff81000000"), unsafe=True)
    assert (pattern.address, pattern.text) == (0xFFFFFFFF81000000, "kprobe:0xffffffff81000000")


def test_source_locations() -> None:
    (pattern,) = parse_attach_point(("uprobe", "/bin/sh@main.c", "12", "5"))
    assert (pattern.path, pattern.source, pattern.line, pattern.column) == ("/bin/sh", "main.c", 12, 5)


def test_quotes() -> None:
    assert unquote('"a b"') == "a b"
    assert unquote('"a\\"b"') == 'a"b'
    assert unquote('x"*y"z') == "x*yz"
    assert parse('kprobe:"vfs_read"') == ["kprobe:vfs_read"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("10", 10), ("0x1f", 31), ("017", 15), ("1e6", 10**6), ("1_000", 1000), ("10ull", 10), ("5ms", 5 * 10**6), ("0", 0),
     ("2d", 2 * 86400 * 10**9), ("0x10ul", 16)],
)  # fmt: skip
def test_numbers(text: str, value: int) -> None:
    assert to_uint(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1.5", "12e3", "0xg", "08", "1e99", "5parsec", "0x1ffffffffffffffff", "٣"]
)
def test_no_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="invalid integer"):
        to_uint(text)


def test_types() -> None:
    for kind in TYPES:
        for word in (kind.name, kind.name.upper(), *kind.aliases):
            found = get_type(word)
            assert found is kind
    assert get_type("u") is not get_type("U")
    assert (probetype_name("begin"), probetype_name("kfunc")) == ("special", "fentry")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("abc", ["abc"], ["abcd", "ab", ""]),
        ("*", ["", "x"], []),
        ("a*", ["a", "ab"], ["ba", ""]),
        ("*a", ["a", "ba"], ["ab"]),
        ("*a*", ["a", "bac"], ["b"]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("a*b*c", ["abc", "axbxc"], ["acb", "ac"]),
        ("*a*b*", ["ab", "xaxbx"], ["ba"]),
        ("a**b", ["ab", "axb"], ["a"]),
        ("[a]?", ["[a]?"], ["a", "ab"]),
    ],
)
def test_wildcards(pattern: str, yes: list[str], no: list[str]) -> None:
    matches = make_matcher(pattern)
    assert [n for n in yes if not matches(n)] == []
    assert [n for n in no if matches(n)] == []


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_wildcards_against_fnmatch(pattern: str, name: str) -> None:
    from fnmatch import fnmatchcase

    assert make_matcher(pattern)(name) == fnmatchcase(name, pattern)


WORDS = [
    *(t.name for t in TYPES),
    "k",
    "U",
    "*",
    "k*",
    "s",
    "hz",
    "1",
    "0x10",
    "+",
    "a+4",
    "bpf",
    "",
    "cpp",
    "/bin/sh",
    '"',
    "lib",
    "rw",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=6), st.booleans(), st.integers(0, 1))
def test_fuzz(parts: list[str], unsafe: bool, pid: int) -> None:
    try:
        for pattern in parse_attach_point(tuple(parts), unsafe=unsafe, pid=pid):
            assert pattern.type and pattern.text.startswith(pattern.type)
    except ProbeError as error:
        assert error.message

"""Calls: numbers and kinds of arguments, results, what was folded out of them, formats."""

from __future__ import annotations

import pytest
from bt_typing import calls, diagnostics, errors, typed, variables, warnings
from hypothesis import given
from hypothesis import strategies as st

from sonde.lang.bpftrace import builtins, functions
from sonde.lang.bpftrace.typing_calls import _find_rule
from sonde.lang.bpftrace.typing_formats import parse_format
from sonde.spec.object import Segment

KPROBE = "kprobe:vfs_read"


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("pid", "uint32"),
        ("pid()", "uint32"),
        ("tid(init)", "uint32"),
        ("nsecs(boot)", "uint64"),
        ("comm", "string[16]"),
        ("username", "username_t"),
        ("elapsed", "uint64"),
        ("probetype", "string[8]"),
        ("str(nsecs)", "string[1024]"),
        ("str(nsecs, 5)", "string[6]"),
        ("str(nsecs, pid)", "string[1024]"),
        ("str(curtask->comm)", "string[16]"),
        ('str("abc")', "string[4]"),
        ("buf(nsecs, 10)", "buffer[14]"),
        ("buf(nsecs, pid)", "buffer[1024]"),
        ("buf(curtask->mac)", "buffer[10]"),
        ('ksym(kaddr("vfs_read"))', "ksym_t"),
        ("usym(nsecs)", "usym_t"),
        ("kstack(perf, 3)", "kstack_perf_3"),
        ("ustack(build_id)", "ustack_build_id_127"),
        ("len(kstack)", "int64"),
        ("ntop(0)", "inet"),
        ('pton("::1")', "uint8[16]"),
        ("macaddr(curtask->mac)", "mac_address"),
        ("bswap((int16)5)", "uint16"),
        ("strlen(comm)", "uint64"),
        ('strncmp(comm, "a", 1)', "uint64"),
        ('strcontains(comm, "a")', "bool"),
        ('strstr(comm, "a")', "int32"),
        ('str_concat(comm, "a")', "string[1024]"),
        ('strftime("%H", nsecs)', "timestamp"),
        ("cgroup_path(1)", "cgroup_path_t"),
        ('percpu_kaddr("runqueues")', "uint64"),
        ("ppid()", "int32"),
        ("is_err(curtask)", "bool"),
    ],
)
def test_results(expression: str, name: str) -> None:
    assert variables(f"$x = {expression};")["$x"] == name


@pytest.mark.parametrize(
    ("text", "function", "params"),
    [
        ("@ = hist(1, 3);", "hist", {"bits": 3}),
        ("@ = hist(1);", "hist", {"bits": 0}),
        ("@ = lhist(1, 0, 100, 10);", "lhist", {"low": 0, "high": 100, "step": 10}),
        ('@ = tseries(1, 1s, 5, "max");', "tseries", {"interval_ns": 10**9, "buckets": 5, "aggregation": "max"}),
        ("$x = kstack(raw, 7);", "kstack", {"mode": "raw", "limit": 7}),
        ("$x = ustack;", "ustack", {"mode": "bpftrace", "limit": 127}),
        ("$x = nsecs(tai);", "nsecs", {"clock": "tai"}),
        ("$x = nsecs;", "nsecs", {"clock": "boot"}),
        ('$x = strftime("%T", nsecs(sw_tai));', "strftime", {"format": "%T", "clock": "sw_tai"}),
        ("$x = pid(curr_ns);", "pid", {"namespace": "curr_ns"}),
        ("time();", "time", {"format": "%H:%M:%S\n"}),
        ('$x = cgroup_path(1, "a*");', "cgroup_path", {"filter": "a*"}),
        ('$x = kaddr("jiffies");', "kaddr", {"symbol": "jiffies", "address": 0xFFFFFFFF81000000}),
        ('$x = pton("127.0.0.1");', "pton", {"packed": b"\x7f\0\0\1"}),
    ],
)
def test_arguments_are_folded(text: str, function: str, params: dict[str, object]) -> None:
    assert calls(text)[function] == params


def test_parameters_of_a_probe_with_registers() -> None:
    found = calls(f'{KPROBE} {{ $x = arg1; $y = reg("sp"); }}')
    assert (found["arg1"], found["reg"]) == ({"index": 1}, {"register": "sp"})


def test_a_signal_by_name() -> None:
    assert calls(f'{KPROBE} {{ signal("SIGTERM"); }}', unsafe=True)["signal"] == {"signal": 15}
    assert calls(f'{KPROBE} {{ signal("usr1"); }}', unsafe=True)["signal"] == {"signal": 10}
    assert errors(f'{KPROBE} {{ signal("FOO"); }}', unsafe=True) == ["Invalid string for signal: FOO"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("printf()", "printf() requires at least one argument (0 provided)"),
        ("time(\"%H\", 1)", "time() takes up to one argument (2 provided)"),
        ("exit(1, 2)", "exit() takes up to one argument (2 provided)"),
        ("print(1, 2, 3, 4)", "print() takes up to 3 arguments (4 provided)"),
        ("bswap()", "bswap() requires one argument (0 provided)"),
        ('strncmp("a", "b")', "strncmp() requires 3 arguments (2 provided)"),
        ("uid(1)", "uid() requires no arguments (1 provided)"),
        ("strlen()", "Call to strlen() has arguments that do not match any definition."),
        ("nosuch(1)", "Unknown function: 'nosuch'"),
        ("printf(comm)", "printf() expects a string literal (string provided)"),
        ("printf(1)", "printf() expects a string literal (int provided)"),
        ('exit("a")', "exit() only supports int arguments (string provided)"),
        ('strftime("%H", "a")', "strftime() only supports int arguments (string provided)"),
        ('strftime("%H", nsecs(monotonic))', "strftime() can not take a monotonic timestamp"),
        ('ksym("a")', "ksym() expects an integer or pointer argument"),
        ("str(kstack)", "str() expects a string, integer or a pointer type as first argument "
                        "(kstack_bpftrace_127 provided)"),
        ("buf(comm)", "buf() expects a length argument for non-array type string"),
        ("buf(kstack, 1)", "buf() expects an integer, string, or array argument but saw kstack"),
        ("path(curtask)", "The path function can only be used with 'fentry', 'fexit', 'iter' probes"),
        ('ntop("a")', "ntop() argument must be 4 or 16 bytes in size"),
        ("ntop(curtask)", "ntop() expects an integer or array argument, got pointer"),
        ('pton("1.2.3.400")', "pton() expects a valid IPv4/IPv6 address, got 1.2.3.400"),
        ('kaddr("nosuch")', "Failed to resolve kernel symbol: nosuch"),
        ('percpu_kaddr("nosuch")', 'Could not resolve variable "nosuch" from BTF'),
        ('strncmp("a", "b", pid)', "Builtin strncmp requires a non-negative literal"),
        ("nsecs(5)", "nsecs() only supports timestamp_mode arguments (int provided)"),
        ("nsecs(foo)", "Invalid timestamp mode: foo"),
        ("pid(foo)", "Invalid PID namespace mode: foo (expects: curr_ns or init)"),
        ("kstack(5000)", "kstack([int limit]): limit shouldn't exceed 1024, 5000 given"),
        ("kstack(pid)", "kstack: invalid limit value"),
        ("kstack(build_id)", "'build_id' stack mode can only be used for ustack"),
        ("system(\"ls\")", "system() is an unsafe function being used in safe mode"),
        ("reg(\"ip\")", 'reg can not be used with "begin" probes'),
        ("socket_cookie(curtask)", 'socket_cookie can not be used with "begin" probes'),
        ("len(5)", "len() expects a map or stack to be provided"),
        ("print(printf(\"a\"))", "void type passed to print() is not printable"),
        ("print(1, 2)", "Non-map print() only takes 1 argument, 2 found"),
        ("fail(\"no %s\", \"way\")", "no way"),
        ("static_assert(1 == 2, \"odd\")", "odd"),
    ],
)  # fmt: skip
def test_errors(call: str, message: str) -> None:
    assert errors(f"{call};") == [message]


def test_errors_with_registers() -> None:
    assert errors(f'{KPROBE} {{ $x = reg("foo"); }}') == ["'foo' is not a valid register on this architecture (x86_64)"]
    assert errors("fentry:vfs_read { $x = socket_cookie(args.file); }") == [
        "socket_cookie() only supports 'struct sock *' as the argument ('struct file *' provided)"
    ]


def test_unsafe_functions_when_allowed() -> None:
    assert errors('system("ls %d", pid);', unsafe=True) == []


def test_a_similar_function_is_named() -> None:
    (diagnostic,) = diagnostics('prinff("x");')
    assert diagnostic.hint == "did you mean printf()?"


def test_kind_of_question() -> None:
    text = "$a = is_array(curtask->mac); $i = is_integer(5); $p = is_ptr(curtask); $s = is_str(comm); $l = is_literal(pid);"
    probe = typed(text).probes[0]
    values = [probe.constants[s.value] for s in probe.body.statements]  # type: ignore[attr-defined]
    assert values == [True, True, True, True, False]


def test_results_that_nobody_takes_are_told() -> None:
    assert warnings('strlen(comm); pid; printf("x"); @x = 1; @x++;') == ["Return value discarded."] * 2


def test_every_function_has_a_rule() -> None:
    for name in functions.iter_names():
        if name not in functions.AGGREGATIONS:
            _, rule = _find_rule(name)
            assert callable(rule), name


def test_every_builtin_can_be_read_somewhere() -> None:
    probes = ("begin", KPROBE, "kretprobe:vfs_read", "tracepoint:sched:sched_switch", "profile:hz:1")
    for name in builtins.iter_names():
        if name != "dw_ustack":
            assert any(not errors(f"{probe} {{ $x = {name}; }}") for probe in probes), name


# formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("plain", (Segment("plain"),)),
        ("%d", (Segment("", "d"),)),
        ("a%-5sb", (Segment("a"), Segment("", "s", "-", 5), Segment("b"))),
        ("%05x", (Segment("", "x", "0", 5),)),
        ("%+.3lld", (Segment("", "d", "+", 0, 3, "ll"),)),
        ("%*d", (Segment("", "d"),)),
        ("100%%", (Segment("100%"),)),
        ("%rx%rh%r%gr", (Segment("", "rx"), Segment("", "rh"), Segment("", "r"), Segment("", "gr"))),
        ("%q", (Segment("%q"),)),
        ("%", (Segment("%"),)),
        ("%5", (Segment("%5"),)),
    ],
)
def test_format_strings(text: str, segments: tuple[Segment, ...]) -> None:
    assert parse_format(text) == segments


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ('"%d"', "not enough arguments for format string (0 supplied, 1 expected)"),
        ('"%d", 1, 2', "too many arguments for format string (2 supplied, 1 expected)"),
        ('"%d", comm', "unsupported format specifier for type 'string[16]': d"),
        ('"%c", "a"', "unsupported format specifier for type 'string[2]': c"),
        ('"%d", (1, 2)', "unsupported format specifier for type '(int8,int8)': d"),
        ('"%d", kstack', "unsupported format specifier for type 'kstack_bpftrace_127': d"),
        ('"%rx", "a"', "unsupported format specifier for type 'string[2]': rx"),
        ('"%f", 1', "unsupported format specifier: f"),
        ('"%q", 1', "too many arguments for format string (1 supplied, 0 expected)"),
    ],
)
def test_what_a_format_does_not_take(args: str, message: str) -> None:
    assert errors(f"printf({args});") == [message]


def test_what_a_format_takes() -> None:
    text = '@c = count(); printf("%s %s %d %p %d %s %rx %gr %d", comm, kstack, true, curtask, @c, (1, 2), buf(1, 2), 1, pid);'
    assert errors(text) == []
    probe = typed(text).probes[0]
    info = next(c for c in probe.calls.values() if c.name == "printf")
    assert len(info.params["args"]) == 9


@given(st.text(alphabet="%dsxr-+ #0.*15hlgq"))
def test_no_format_string_loses_text(text: str) -> None:
    segments = parse_format(text)
    assert all(s.text or s.conversion for s in segments)
    if "%" not in text:
        assert "".join(s.text for s in segments) == text

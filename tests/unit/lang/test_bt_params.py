"""Parameters and configuration of scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.errors import CompileError, UsageError
from sonde.lang.bpftrace import ast
from sonde.lang.bpftrace.config import RECORD_FIELDS, Config, load_config
from sonde.lang.bpftrace.dump import dump
from sonde.lang.bpftrace.params import list_params, parse_number, render_help, resolve_params, split_arguments
from sonde.lang.bpftrace.parser import parse
from sonde.lang.source import Source


def resolve(text: str, *args: str) -> ast.Program:
    return resolve_params(parse(Source("t.bt", text)), *split_arguments(args))


def body_of(text: str, *args: str) -> str:
    return dump(resolve(f"begin {{ {text} }}", *args).probes[0])


# positional -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("print($1)", "print(12)"),
        ("print($2)", 'print("abc")'),
        ("print($3)", "print(-5)"),
        ("print($4)", "print(16)"),
        ("print($#)", "print(4)"),
        ("print(str($1))", 'print("12")'),
        ("print(str($2))", 'print("abc")'),
        ("print(str($9))", 'print("")'),
        ("print(str($2, 2))", 'print("ab")'),
        ("print(str($2 + 1))", 'print("bc")'),
        ("print(str($1 + 1))", 'print("2")'),
        ("print(str($2 + 1, 1))", 'print("b")'),
        ("print($2 + 1)", 'print("bc")'),
        ("print(1 + $2)", 'print("bc")'),
        ("print($1 + 1)", "print(12 + 1)"),
        ("print($9)", "print(0)"),
        ("print($9 == 0)", "print(0 == 0)"),
        ("print(str($2, $1))", 'print(str("abc", 12))'),
        ("unroll ($1) { }", "unroll (12) { }"),
        ("@[$2] = $1", '@["abc"] = 12'),
    ],
)
def test_positional_parameters(text: str, plain: str) -> None:
    assert body_of(text, "12", "abc", "-5", "0x10") == body_of(plain)


def test_a_missing_parameter_is_warned_about() -> None:
    program = resolve("begin { print($2); print(str($3)); }", "1")
    (warning,) = program.warnings
    assert warning.message == "Positional parameter $2 is empty or not provided."
    assert warning.span is not None
    assert warning.span.column == 15


def test_a_string_beyond_its_end_is_warned_about() -> None:
    program = resolve("begin { print(str($1 + 9)); }", "abc")
    assert program.warnings[0].message == "literal string will always be empty"


def test_parameters_in_attach_points() -> None:
    (probe,) = resolve('uprobe:$1:"x:$2"_$2, interval:$3:$4 { }', "/bin/bash", "f", "ms", "10").probes
    assert [p.parts for p in probe.attach_points] == [("uprobe", "/bin/bash", "x:$2_f"), ("interval", "ms", "10")]
    (probe,) = resolve("$1 { }", "interval:s:1").probes
    assert probe.attach_points[0].parts == ("interval", "s", "1")


def test_a_script_without_parameters_is_returned_as_it_is() -> None:
    program = parse(Source("t.bt", "begin { print(1); }"))
    assert resolve_params(program, ("1",), {}) is program


def test_numbers() -> None:
    values = {"5": 5, "-5": -5, "+5": 5, " 5 ": 5, "0x1f": 31, "010": 8, "1e3": 1000, "10ms": 10**7, "1_0": 10}
    assert {text: parse_number(text) for text in values} == values
    for text in ("", "x", "5k", "-", "5 6", "0x", "18446744073709551616", "٣", "--5", "5\0"):
        assert parse_number(text) is None


@given(st.text(max_size=12).filter(lambda text: not text.startswith("--")))  # that would be a named one
def test_any_argument_is_a_number_or_a_string(text: str) -> None:
    number = parse_number(text)
    assert number is None or -(1 << 63) <= number < 1 << 64
    resolve("begin { print($1); print(str($1 + 1)); } kprobe:$1 { }", text)


# named ------------------------------------------------------------------------------------------------------------

OPTIONS = 'getopt("aa", 10, "the a"), getopt("bb", "x"), getopt("cc"), getopt("dd", true, "the d"), getopt("ee", -4)'


@pytest.mark.parametrize(
    ("args", "plain"),
    [
        ([], '10, "x", false, true, -4'),
        (["--aa=5", "--bb=y z", "--cc", "--dd=false", "--ee=-0x10"], '5, "y z", true, false, -16'),
        (["--cc=1", "--dd=0", "--bb="], '10, "", true, false, -4'),
        (["--aa=1", "--aa=2"], '2, "x", false, true, -4'),
        (["--aa=-7"], '-7, "x", false, true, -4'),
    ],
)
def test_named_parameters(args: list[str], plain: str) -> None:
    assert body_of(f"print(({OPTIONS}));", *args) == body_of(f"print(({plain}));")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--zz=1", "--yy"], "unexpected program command line options: --zz, --yy"),
        (["--aa"], "program command line option --aa expects an integer (value: true)"),
        (["--aa=q"], "program command line option --aa invalid integer (value: q)"),
        (["--bb"], "program command line option --bb expects a string (value: true)"),
        (["--cc=maybe"], "program command line option --cc expects a boolean (e.g. 'true') (value: maybe)"),
    ],
)
def test_wrong_options(args: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(f"begin {{ print(({OPTIONS})); }}", *args)
    assert caught.value.message == message
    assert caught.value.hint


def test_the_hint_lists_the_options() -> None:
    with pytest.raises(UsageError) as caught:
        resolve("begin { }", "--x")
    assert caught.value.hint == "no custom program options defined."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("getopt(pid)", "First argument to 'getopt' must be a string literal."),
        ('getopt("a", pid)', "Second argument to 'getopt' must be a string literal, integer literal, or a boolean literal."),
        ('getopt("a", 1, 2)', "Function 'getopt' requires the third parameter to be a string literal."),
        ("getopt()", "The 'getopt' function can take a maximum of three arguments and a minimum of one argument."),
        ('getopt("a", 5); getopt("a", 6)', "Command line option 'a' needs to have the same default value in all places it is used. Previous default value: 5"),
        ('getopt("a", 1); getopt("a", true)', "Command line option 'a' needs to have the same default value in all places it is used. Previous default value: 1"),
        ('getopt("a", 5, "x"); getopt("a", 5, "y")', "Command line option 'a' must have the same description in all places it's used."),
        ('getopt("a"); getopt("a", true)', "Command line option 'a' needs to have the same default value in all places it is used. Previous default value: false"),
    ],
)  # fmt: skip
def test_wrong_getopt(text: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        resolve(f"begin {{ {text}; }}")
    assert caught.value.message == message


def test_help_lists_the_options() -> None:
    program = parse(Source("t.bt", f"begin {{ print(({OPTIONS})); getopt('q'); }}".replace("'", '"')))
    assert render_help(list_params(program)).splitlines() == [
        "HINT: expected program options:", "--aa: the a", "--bb", "--cc", "--dd: the d", "--ee", "--q",
    ]  # fmt: skip
    assert render_help(()) == "HINT: no custom program options defined."


def test_arguments_are_split() -> None:
    assert split_arguments(["a", "--x=1=2", "-y", "--z", "--", "b"]) == (
        ("a", "-y", "--", "b"),
        {"x": "1=2", "z": None},
    )


# config -----------------------------------------------------------------------------------------------------------


def config_of(block: str, **environ: str) -> Config:
    return load_config(parse(Source("t.bt", f"config = {{ {block} }} begin {{ }}")), environ)


def test_defaults() -> None:
    config = load_config(parse(Source("t.bt", "begin { }")), {})
    assert config == Config()
    assert (config.max_strlen, config.max_map_keys, config.stack_mode, config.missing_probes) == (
        1024,
        4096,
        "bpftrace",
        "error",
    )
    assert RECORD_FIELDS[0] == "cpp_demangle"
    assert RECORD_FIELDS[-1] == "license"


@pytest.mark.parametrize(
    ("block", "field", "value"),
    [
        ("max_strlen = 100", "max_strlen", 100),
        ("BPFTRACE_MAX_STRLEN = 100", "max_strlen", 100),
        ("bpftrace_Max_Strlen = 100", "max_strlen", 100),
        ('max_strlen = "0x40"', "max_strlen", 64),
        ("max_strlen = 50; max_strlen = 60", "max_strlen", 60),
        ("cpp_demangle = false", "cpp_demangle", False),
        ("cpp_demangle = 0", "cpp_demangle", False),
        ('cpp_demangle = "false"', "cpp_demangle", False),
        ("stack_mode = perf", "stack_mode", "perf"),
        ('stack_mode = "raw"', "stack_mode", "raw"),
        ("missing_probes = warn", "missing_probes", "warn"),
        ("unstable_tseries = enable", "unstable_tseries", "enable"),
        ("unstable_tseries = true", "unstable_tseries", "enable"),
        ("unstable_dw_ustack = error", "unstable_dw_ustack", "error"),
        ('license = "Dual BSD/GPL"', "license", "Dual BSD/GPL"),
        ("cache_user_symbols = per_pid", "cache_user_symbols", "PER_PID"),
        ("cache_user_symbols = 0", "cache_user_symbols", "NONE"),
        ("cache_user_symbols = 1", "cache_user_symbols", ""),
        ('str_trunc_trailer = "…"', "str_trunc_trailer", "…"),
        ("print_maps_on_exit = false", "print_maps_on_exit", False),
    ],
)
def test_settings(block: str, field: str, value: object) -> None:
    config = config_of(block)
    assert getattr(config, field) == value
    assert config.warnings == ()


def test_the_environment_wins() -> None:
    config = config_of(
        "max_strlen = 50", BPFTRACE_MAX_STRLEN="99", BPFTRACE_NO_CPP_DEMANGLE="1", BPFTRACE_COLOR="never", PATH="/"
    )
    assert (config.max_strlen, config.cpp_demangle, config.color) == (99, False, "never")


def test_the_environment_s_old_names_and_strange_ones() -> None:
    config = config_of(
        "", BPFTRACE_STRLEN="70", BPFTRACE_WARNINGS="x", BPFTRACE_FOO="1", BPFTRACE_BTF="/x", BPFTRACE_COLOR="red"
    )
    assert (config.max_strlen, config.btf, config.color) == (70, "/x", "auto")
    assert "auto|always|never" in config.warnings[0].message


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("strlen = 9", "strlen has been renamed, please use max_strlen"),
        ("cat_bytes_max = 9", "cat_bytes_max has been renamed, please use max_cat_bytes"),
        ("unstable_macro = x", "unstable_macro is deprecated and has no effect"),
        ("symbol_source = dwarf", "symbol_source is deprecated and has no effect"),
    ],
)
def test_old_settings_are_warned_about(block: str, message: str) -> None:
    (warning,) = config_of(block).warnings
    assert (warning.severity, warning.message) == ("WARNING", message)
    assert warning.span is not None


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("max_strleng = 1", "max_strleng: not a known configuration option"),
        ("warnings = 1", "warnings: not a known configuration option"),
        ("color = never", "color: not a known configuration option"),
        ("btf = 1", "btf: can only be set as an environment variable"),
        ("max_strlen = abc", "max_strlen: expecting a number, got abc"),
        ('max_strlen = "-1"', "max_strlen: expecting a number from 0 to 4294967295, got -1"),
        ("cpp_demangle = x", "cpp_demangle: Invalid bool value: valid values are true, false, 1 or 0."),
        ("stack_mode = x", "stack_mode: Invalid value for stack_mode: valid values are bpftrace, raw, perf, and build_id."),
        ("missing_probes = 1", "missing_probes: Invalid value for missing_probes: valid values are ignore, warn, and error."),
        ("unstable_tseries = x", "unstable_tseries: Invalid value for unstable config: valid values are enable, warn, and error."),
        ("cache_user_symbols = x", "cache_user_symbols: Invalid value for cache_user_symbols: valid values are PER_PID, PER_PROGRAM, and NONE."),
        ("license = MIT", "Invalid value for license. Found: MIT. Valid values: Dual MIT/GPL, Dual BSD/GPL, Dual MPL/GPL, GPL and additional rights, GPL v2, GPL."),
    ],
)  # fmt: skip
def test_wrong_settings(block: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        config_of(block)
    assert caught.value.message == message
    assert caught.value.render().startswith("t.bt:1:12-")


def test_a_similar_name_is_proposed() -> None:
    with pytest.raises(CompileError) as caught:
        config_of("max_strleng = 1")
    assert caught.value.diagnostics[0].hint == "did you mean max_strlen?"


def test_a_wrong_environment_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as caught:
        config_of("", BPFTRACE_MAX_STRLEN="1k")
    assert caught.value.message == "max_strlen: expecting a number, got 1k"
    assert "BPFTRACE_MAX_STRLEN=1k" in caught.value.hint

"""Configuration of a script: the `config` block and the BPFTRACE_* environment (which wins) to one `Config` record."""

from __future__ import annotations

from ...errors import CompileError, Diagnostic, UsageError
from ...record import Record
from ..source import diagnose
from . import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Config(Record):
    """Every setting, in the order in which `config` prints them; those that only the environment can set come last."""

    cpp_demangle: bool = True
    lazy_symbolication: bool = True
    print_maps_on_exit: bool = True
    use_blazesym: bool = False
    show_debug_info: bool = False
    log_size: int = 1_000_000
    max_bpf_progs: int = 1024
    max_cat_bytes: int = 10240
    max_map_keys: int = 4096
    max_probes: int = 1024
    max_strlen: int = 1024
    on_stack_limit: int = 32
    perf_rb_pages: int = 0  # per CPU; 0: chosen by the size of the machine
    str_trunc_trailer: str = ".."
    unstable_import_statement: str = "error"  # "enable", "warn" or "error", like the other unstable_ ones
    unstable_tseries: str = "warn"
    unstable_typeinfo: str = "error"
    unstable_dw_ustack: str = "warn"
    missing_probes: str = "error"  # "ignore", "warn" or "error"
    stack_mode: str = "bpftrace"  # "bpftrace", "raw", "perf" or "build_id"
    license: str = "GPL"
    cache_user_symbols: str = (
        ""  # "PER_PID", "PER_PROGRAM", "NONE"; "": PER_PROGRAM with -c or without ASLR, else PER_PID
    )
    btf: str = ""
    vmlinux: str = ""
    kernel_source: str = ""
    kernel_build: str = ""
    color: str = "auto"  # "auto", "always" or "never"
    missing_probes_chosen: bool = False  # somebody set missing_probes
    warnings: tuple[Diagnostic, ...] = ()


RECORD_FIELDS = Config._fields[: Config._fields.index("cache_user_symbols")]  # the fields of the `config` builtin

_NOT_SETTABLE = ("missing_probes_chosen", "warnings")
_ENVIRONMENT_ONLY = frozenset(["btf", "vmlinux", "kernel_source", "kernel_build"])
_RENAMED = {
    "strlen": "max_strlen",
    "no_cpp_demangle": "cpp_demangle",
    "cat_bytes_max": "max_cat_bytes",
    "map_keys_max": "max_map_keys",
}
_WITHOUT_EFFECT = frozenset(
    ["symbol_source", "max_type_res_iterations", "unstable_addr", "unstable_import", "unstable_macro", "unstable_map_decl"]
)  # fmt: skip
_STACK_MODES = ("bpftrace", "raw", "perf", "build_id")
_LICENSES = ("Dual MIT/GPL", "Dual BSD/GPL", "Dual MPL/GPL", "GPL and additional rights", "GPL v2", "GPL")
_TRUE = frozenset(["true", "yes", "on", "1"])
_FALSE = frozenset(["false", "no", "off", "0"])
_U32_MAX = (1 << 32) - 1


class _Refused(Exception):
    """A value that does not fit its variable."""


def load_config(program: ast.Program, environ: Mapping[str, str]) -> Config:
    """Return the configuration of a script. The environment wins over the script.

    Raises CompileError for the config block, UsageError for the environment.
    """
    values: dict[str, Any] = {}
    errors: list[Diagnostic] = []
    warnings: list[Diagnostic] = []
    for item in program.config:
        try:
            warning = _set(values, item.name, item.value)
        except _Refused as refused:
            errors.append(diagnose(item.span, str(refused), hint=_hint(item.name)))
            continue
        if warning:
            warnings.append(diagnose(item.span, warning, severity="WARNING"))
    if errors:
        raise CompileError(errors)
    _add_environment(values, environ, warnings)
    return Config(**values, missing_probes_chosen="missing_probes" in values, warnings=tuple(warnings))


def _set(values: dict[str, Any], written: str, value: str | int | bool) -> str:
    """Set one variable of the config block; return a warning or "". Raises _Refused."""
    name = _plain_name(written)
    if name in _ENVIRONMENT_ONLY:
        raise _Refused(f"{name}: can only be set as an environment variable")
    if name in _WITHOUT_EFFECT:
        return f"{name} is deprecated and has no effect"
    current = _RENAMED.get(name, name)
    if current not in Config._defaults or current in _NOT_SETTABLE or current == "color":
        raise _Refused(f"{written}: not a known configuration option")
    values[current] = _convert(name, current, value)
    return f"{name} has been renamed, please use {current}" if current != name else ""


def _plain_name(written: str) -> str:
    name = written.lower()
    return name[9:] if name.startswith("bpftrace_") else name


def _add_environment(values: dict[str, Any], environ: Mapping[str, str], warnings: list[Diagnostic]) -> None:
    for variable, text in environ.items():
        if not variable.startswith("BPFTRACE_"):
            continue
        name = variable[9:].lower()
        current = _RENAMED.get(name, name)
        if current not in Config._defaults or current in _NOT_SETTABLE or not variable.isupper():
            continue  # other programs' variables, and those of tests
        if current == "color" and text not in ("auto", "always", "never"):
            message = f"Invalid env value! The valid values of `BPFTRACE_COLOR` are [auto|always|never], not {text}"
            warnings.append(Diagnostic("WARNING", message))
            continue
        try:
            values[current] = _convert(name, current, text)
        except _Refused as refused:
            raise UsageError(str(refused), hint=f"the environment sets {variable}={text}") from None


def _convert(name: str, current: str, value: str | int | bool) -> Any:
    """Check a value and bring it to the type of its variable. Raises _Refused."""
    default = Config._defaults[current]
    if isinstance(default, bool):
        flag = _to_bool(name, value)
        return not flag if name == "no_cpp_demangle" else flag
    if isinstance(default, int):
        return _to_int(name, value)
    text = str(int(value)) if isinstance(value, bool) else str(value)
    if current.startswith("unstable_"):
        return _to_gate(name, text)
    choose = _CHOICES.get(current)
    return text if choose is None else choose(name, text)


def _to_bool(name: str, value: str | int | bool) -> bool:
    if isinstance(value, int):
        return bool(value)
    if value.lower() in _TRUE or value.lower() in _FALSE:
        return value.lower() in _TRUE
    raise _Refused(f"{name}: Invalid bool value: valid values are true, false, 1 or 0.")


def _to_int(name: str, value: str | int | bool) -> int:
    from .params import parse_number

    number = int(value) if isinstance(value, int) else parse_number(value)
    if number is None:
        raise _Refused(f"{name}: expecting a number, got {value}")
    if not 0 <= number <= _U32_MAX:
        raise _Refused(f"{name}: expecting a number from 0 to {_U32_MAX}, got {value}")
    return number


def _to_gate(name: str, text: str) -> str:
    if text.lower() in _TRUE:
        return "enable"
    if text.lower() in _FALSE:
        return "error"
    if text not in ("enable", "warn", "error"):
        raise _Refused(f"{name}: Invalid value for unstable config: valid values are enable, warn, and error.")
    return text


def _to_stack_mode(name: str, text: str) -> str:
    if text not in _STACK_MODES:
        raise _Refused(f"{name}: Invalid value for {name}: valid values are bpftrace, raw, perf, and build_id.")
    return text


def _to_missing_probes(name: str, text: str) -> str:
    if text not in ("ignore", "warn", "error"):
        raise _Refused(f"{name}: Invalid value for {name}: valid values are ignore, warn, and error.")
    return text


def _to_license(name: str, text: str) -> str:
    if text not in _LICENSES:
        raise _Refused(f"Invalid value for {name}. Found: {text}. Valid values: {', '.join(_LICENSES)}.")
    return text


def _to_symbol_cache(name: str, text: str) -> str:
    text = {"1": "", "0": "NONE"}.get(text, text.upper())  # the numbers are what old versions took
    if text not in ("", "PER_PID", "PER_PROGRAM", "NONE"):
        raise _Refused(f"{name}: Invalid value for {name}: valid values are PER_PID, PER_PROGRAM, and NONE.")
    return text


_CHOICES = {
    "stack_mode": _to_stack_mode,
    "missing_probes": _to_missing_probes,
    "license": _to_license,
    "cache_user_symbols": _to_symbol_cache,
}


def _hint(written: str) -> str:
    """A similar name for one that does not exist."""
    name = _plain_name(written)
    if name in Config._defaults or name in _ENVIRONMENT_ONLY or name in _RENAMED:
        return ""
    from difflib import get_close_matches

    close = get_close_matches(name, RECORD_FIELDS, 1)
    return f"did you mean {close[0]}?" if close else ""

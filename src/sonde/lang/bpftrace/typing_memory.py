"""The rules for functions that read memory, name addresses, take numbers apart: str, buf, ksym, ntop, kstack, reg …"""

from __future__ import annotations

from ...debuginfo.ctype import (
    BOOL,
    INT32,
    INT64,
    UINT8,
    UINT64,
    Array,
    Enum,
    Int,
    Pointer,
    Struct,
    sizeof,
    strip,
)
from . import ast
from .analysis import CallInfo, Type
from .builtins import is_builtin
from .stype import (
    Buffer,
    CgroupPath,
    Inet,
    KStack,
    KSym,
    MacAddr,
    SignalName,
    Str,
    Strerror,
    SyscallName,
    UStack,
    USym,
    int_type,
    is_bool,
    type_name,
)
from .typing_builtins import DEFAULT_FRAMES
from .typing_calls import VOID_TYPE, check_kind, give, is_number, kind_name
from .typing_operators import literal_of, put_constant
from .typing_state import CALLS, CHECKS
from .typing_variables import default_space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .typing_calls import Rule
    from .typing_state import Typer

    Types = list[Type | None]

_MAX_FRAMES = 1024
_STACK_MODES = ("bpftrace", "raw", "perf", "build_id")
_CLOCKS = ("monotonic", "boot", "tai", "sw_tai")


def _first(types: Types) -> Type:
    found = types[0]
    assert found is not None
    return found


# Strings and bytes ------------------------------------------------------------------------------------------------


def _str(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    found = _first(types)
    plain = strip(found.ctype)
    bytes_ = isinstance(plain, Array) and sizeof(plain.element) == 1
    if not bytes_ and not isinstance(plain, (Str, Int, Enum, Pointer)):
        typer.error(
            node,
            f"str() expects a string, integer or a pointer type as first argument ({type_name(plain)} provided)",
            CHECKS,
        )
        return None
    value = literal_of(typer, node.args[0])
    size = _string_size(typer, node)
    if size is None:
        return None
    if isinstance(value, str) and len(node.args) == 1:
        return put_constant(typer, node, value)
    if isinstance(plain, (Str, Array)) and sizeof(plain):
        size = min(size, sizeof(plain) + bytes_)
    info.params.update(size=size, length=node.args[1] if len(node.args) > 1 else None)
    return Type(Str(size))


def _string_size(typer: Typer, node: ast.Call) -> int | None:
    """The largest result of str() in bytes, the NUL included."""
    limit = typer.config.max_strlen
    value = literal_of(typer, node.args[1]) if len(node.args) > 1 else None
    if not isinstance(value, int):
        return limit
    if value < 0:
        typer.error(node, f"{node.name}() cannot use negative length ({value})", CHECKS)
        return None
    if value + 1 > limit:
        typer.warn(
            node,
            f"length param ({value}) is too long and will be shortened to {limit} bytes (see BPFTRACE_MAX_STRLEN)",
        )
        return limit
    return value + 1


def _buf(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    plain = strip(_first(types).ctype)
    if not isinstance(plain, (Int, Enum, Str, Pointer, Array)) or is_bool(plain):
        message = f"buf() expects an integer, string, or array argument but saw {kind_name(plain)}"
        typer.error(node, message, CHECKS)
        return None
    limit = typer.config.max_strlen - 4
    if len(node.args) == 1:
        if not isinstance(plain, Array):
            message = f"buf() expects a length argument for non-array type {kind_name(plain)}"
            typer.error(node, message, CHECKS)
            return None
        size = min(sizeof(plain), limit)
        info.params.update(size=size, length=None)
        return Type(Buffer(size + 4))
    value = literal_of(typer, node.args[1])
    if isinstance(value, int) and value < 0:
        typer.error(node, f"buf() cannot use negative length ({value})", CHECKS)
        return None
    size = min(value, limit) if isinstance(value, int) else limit
    info.params.update(size=size, length=node.args[1])
    return Type(Buffer(size + 4))


def _path(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    if typer.kind not in ("fentry", "fexit", "iter"):
        message = "The path function can only be used with 'fentry', 'fexit', 'iter' probes"
        typer.error(node, message, CALLS)
        return None
    plain = strip(_first(types).ctype)
    if not isinstance(plain, (Struct, Pointer)):
        typer.error(node, f"path() only supports pointer or record argument ({kind_name(plain)} provided)", CHECKS)
        return None
    size = literal_of(typer, node.args[1]) if len(node.args) > 1 else typer.config.max_strlen
    if not isinstance(size, int) or size < 0:
        typer.error(node, "path: invalid size value, need non-negative literal", CALLS)
        return None
    size = min(size, typer.config.max_strlen)
    info.params.update(size=size, length=None)
    return Type(Str(size))


def _strlen(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    value = literal_of(typer, node.args[0])
    if isinstance(value, str):
        return put_constant(typer, node, len(value.encode("utf-8", "surrogateescape")))
    plain = strip(_first(types).ctype)
    if not isinstance(plain, (Str, Pointer, Array)):
        typer.error(node, "string-like values must be either strings, arrays or pointers", CHECKS)
        return None
    return Type(UINT64)


def _strcap(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    plain = strip(_first(types).ctype)
    if isinstance(plain, (Str, Array)):
        return put_constant(typer, node, sizeof(plain))
    return Type(UINT64)


def _str_concat(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    info.params["size"] = typer.config.max_strlen
    return Type(Str(typer.config.max_strlen))


def _strncmp(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    size = literal_of(typer, node.args[2])
    if not isinstance(size, int) or size < 0:
        typer.error(node, "Builtin strncmp requires a non-negative literal", CALLS)
        return None
    info.params["size"] = size
    return Type(UINT64)


# Numbers and addresses --------------------------------------------------------------------------------------------


def _bswap(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    plain = strip(_first(types).ctype)
    if not isinstance(plain, (Int, Enum)) or is_bool(plain):
        typer.error(node, f"bswap() only supports integer arguments ({kind_name(plain)} provided)")
        return None
    return Type(int_type(plain.size, False))


def _symbol_of_address(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    if not isinstance(strip(_first(types).ctype), (Int, Enum, Pointer)):
        typer.error(node, f"{node.name}() expects an integer or pointer argument", CHECKS)
        return None
    return Type(KSym() if node.name == "ksym" else USym())


def _with_space(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    """kptr(p), uptr(p): the same value, read as said."""
    found = _first(types)
    plain = strip(found.ctype)
    if not isinstance(plain, (Int, Enum, Pointer)):
        message = f"{node.name}() only supports integer or pointer arguments ({kind_name(plain)} provided)"
        typer.error(node, message, CHECKS)
        return None
    return Type(found.ctype, "kernel" if node.name == "kptr" else "user")


def _kaddr(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    symbol = str(literal_of(typer, node.args[0]))
    info.params["symbol"] = symbol
    address = typer.target.ksym(symbol)
    if not address:
        typer.error(node, f"Failed to resolve kernel symbol: {symbol}", CHECKS)
        return None
    info.params["address"] = address
    return Type(UINT64, "kernel")


def _percpu_kaddr(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    symbol = str(literal_of(typer, node.args[0]))
    btf = typer.btf()
    if btf is not None and btf.get_var(symbol) is None:
        typer.error(node, f'Could not resolve variable "{symbol}" from BTF', CHECKS)
        return None
    info.params["symbol"] = symbol
    return Type(UINT64, "kernel")


def _uaddr(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    """The address of a symbol of the traced program: a pointer to an integer of the symbol's size."""
    from ...debuginfo.elf import Elf
    from ...errors import SondeError

    symbol = str(literal_of(typer, node.args[0]))
    path = typer.probe.probes[0].spec.path
    try:
        with Elf.open(path) as elf:
            found = elf.get_symbol(symbol)
    except SondeError:
        found = None
    if found is None:
        typer.error(node, f"Could not resolve symbol: {path}:{symbol}", CHECKS)
        return None
    info.params.update(symbol=symbol, path=path)
    size = found.size if found.size in (1, 2, 4) else 8
    return Type(Pointer(int_type(size, True)), "user")


def _reg(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    name = str(literal_of(typer, node.args[0]))
    if typer.probe.context.get_register(name) < 0:
        message = f"'{name}' is not a valid register on this architecture ({typer.target.arch})"
        known = [n for n, _ in typer.probe.context.registers]
        typer.error(node, message, CALLS, hint=f"its registers are {', '.join(known)}" if known else "")
        return None
    info.params["register"] = name
    return Type(UINT64, default_space(typer.kind))


def _cgroupid(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    import os

    path = str(literal_of(typer, node.args[0]))
    try:
        ident = os.stat(path).st_ino
    except OSError as error:
        typer.error(node, f'Failed to get `cgroupid` for path: "{path}": {error.strerror}', CHECKS)
        return None
    info.params["path"] = path
    typer.constant(node, ident)
    return Type(UINT64)


def _cgroup_path(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    pattern = str(literal_of(typer, node.args[1])) if len(node.args) > 1 else "*"
    info.params["filter"] = pattern
    return Type(CgroupPath(pattern))


def _socket_cookie(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    plain = strip(_first(types).ctype)
    target = strip(plain.target) if isinstance(plain, Pointer) else None
    if not isinstance(target, Struct) or target.name != "sock":
        given = f"'{type_name(plain)}'" if isinstance(target, Struct) else kind_name(plain)
        message = f"socket_cookie() only supports 'struct sock *' as the argument ({given} provided)"
        typer.error(node, message, CHECKS)
        return None
    return Type(UINT64)


# Network addresses ------------------------------------------------------------------------------------------------


def _ntop(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    family = None
    if len(node.args) == 2:
        family = node.args[0]
        if not check_kind(typer, node, family, _first(types), "int"):
            return None
    found = types[-1]
    assert found is not None
    plain = strip(found.ctype)
    if not isinstance(plain, (Int, Enum, Str, Array)) or is_bool(plain):
        message = f"ntop() expects an integer or array argument, got {kind_name(plain)}"
        typer.error(node, message, CHECKS)
        return None
    if isinstance(plain, (Str, Array)) and sizeof(plain) not in (4, 16):
        typer.error(node, "ntop() argument must be 4 or 16 bytes in size", CHECKS)
        return None
    info.params.update(family=family, address=node.args[-1])
    return Type(Inet())


def _pton(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    import socket

    text = literal_of(typer, node.args[0])
    if not isinstance(text, str):
        typer.error(node, "pton() expects an string literal at the first argument")
        return None
    if "." not in text and ":" not in text:
        typer.error(node, f"pton() expects an string argument of an IPv4/IPv6 address, got {text}")
        return None
    try:
        packed = socket.inet_pton(socket.AF_INET if "." in text and ":" not in text else socket.AF_INET6, text)
    except OSError:
        typer.error(node, f"pton() expects a valid IPv4/IPv6 address, got {text}")
        return None
    info.params["packed"] = packed
    return Type(Array(UINT8, len(packed)))


def _macaddr(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    plain = strip(_first(types).ctype)
    before = len(typer.errors)
    if not isinstance(plain, (Int, Enum, Array, Str, Pointer)) or is_bool(plain):
        message = f"macaddr() only supports array or pointer arguments ({kind_name(plain)} provided)"
        typer.error(node, message, CHECKS)
    if literal_of(typer, node.args[0]) is not None and isinstance(plain, Str):
        typer.error(node, "macaddr() does not support literal string arguments", CHECKS)
    if isinstance(plain, (Array, Str)) and sizeof(plain) < 6:
        typer.error(node, "macaddr() argument must be at least 6 bytes in size", CHECKS)
    return Type(MacAddr()) if len(typer.errors) == before else None


# Signals ----------------------------------------------------------------------------------------------------------

_NO_SIGNAL = frozenset(["begin", "end", "self", "interval", "iter"])


def _signal(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    if typer.kind in _NO_SIGNAL:
        from ...probes.catalogue import probetype_name

        message = f"{node.name}() can not be used for this probetype {probetype_name(typer.kind)}"
        typer.error(node, message, CHECKS)
        return None
    value = literal_of(typer, node.args[0])
    if isinstance(value, str):
        number = _signal_number(value)
        if not number:
            typer.error(node, f"Invalid string for signal: {value}", CHECKS)
            return None
        info.params["signal"] = number
        return VOID_TYPE
    if isinstance(value, int) and not 1 <= value <= 64:
        typer.error(node, f"{value} is not a signal number, which are from 1 to 64", CHECKS)
        return None
    if not is_number(_first(types).ctype):
        given = kind_name(_first(types).ctype)
        typer.error(node, f"{node.name}() only supports int or string literal arguments ({given} provided)", CHECKS)
        return None
    return VOID_TYPE


def _signal_number(name: str) -> int:
    import signal

    name = name.upper()
    found = getattr(signal, name if name.startswith("SIG") else "SIG" + name, 0)
    return int(found) if isinstance(found, int) and not name.startswith("SIG_") else 0


# Stacks, clocks, processes ----------------------------------------------------------------------------------------


def _stack(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    """kstack([mode][, limit]), ustack([mode][, limit])."""
    mode, limit = typer.config.stack_mode, DEFAULT_FRAMES
    args = list(node.args)
    before = len(typer.errors)
    if args and isinstance(args[0], ast.Identifier) and not is_builtin(args[0].name):
        word = args.pop(0)
        mode = word.name  # type: ignore[union-attr]
        if mode not in _STACK_MODES:
            typer.error(
                word,
                f"Error parsing stack mode: {node.name}: Invalid value for stack_mode: valid values are bpftrace, raw, "
                "perf, and build_id.",
            )
            return None
    elif len(args) == 2:
        typer.error(node, "Expected stack mode as first argument")
        args.pop(0)
    if args:
        value = typer.visit(args[0]) and literal_of(typer, args[0])
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            typer.error(node, f"{node.name}: invalid limit value")
        else:
            limit = value
    if limit > _MAX_FRAMES:
        typer.error(node, f"{node.name}([int limit]): limit shouldn't exceed {_MAX_FRAMES}, {limit} given")
    if mode == "build_id" and node.name == "kstack":
        typer.error(node, "'build_id' stack mode can only be used for ustack")
    if len(typer.errors) > before:
        return None
    info.params.update(mode=mode, limit=limit)
    return Type(KStack(mode, limit) if node.name == "kstack" else UStack(mode, limit))


def _nsecs(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    arg = node.args[0]
    if not isinstance(arg, ast.Identifier):
        found = typer.visit(arg)
        if found is not None:
            check_kind(typer, node, arg, found, "mode")
        return None
    if arg.name not in _CLOCKS:
        typer.error(arg, f"Invalid timestamp mode: {arg.name}", hint=f"the clocks are {', '.join(_CLOCKS)}")
        return None
    info.params["clock"] = arg.name
    return Type(UINT64)


def _pid(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    """pid(curr_ns), tid(init)."""
    arg = node.args[0]
    if not isinstance(arg, ast.Identifier):
        typer.visit(arg)
        typer.error(node, f"{node.name}() only supports curr_ns and init as the argument", CALLS)
        return None
    if arg.name not in ("curr_ns", "init"):
        typer.error(arg, f"Invalid PID namespace mode: {arg.name} (expects: curr_ns or init)", CALLS)
        return None
    info.params["namespace"] = arg.name
    return Type(int_type(4, False))


RULES: dict[str, Rule] = {
    "bswap": _bswap,
    "buf": _buf,
    "cgroup_path": _cgroup_path,
    "cgroupid": _cgroupid,
    "kaddr": _kaddr,
    "kptr": _with_space,
    "ksym": _symbol_of_address,
    "macaddr": _macaddr,
    "memcmp": give(INT32),
    "ntop": _ntop,
    "override": lambda typer, node, info, types: VOID_TYPE,
    "path": _path,
    "percpu_kaddr": _percpu_kaddr,
    "pton": _pton,
    "reg": _reg,
    "signal": _signal,
    "signal_name": give(SignalName()),
    "signal_thread": _signal,
    "socket_cookie": _socket_cookie,
    "str": _str,
    "str_concat": _str_concat,
    "strcap": _strcap,
    "strcontains": give(BOOL),
    "strerror": give(Strerror()),
    "strlen": _strlen,
    "strncmp": _strncmp,
    "strstr": give(INT32),
    "syscall_name": give(SyscallName()),
    "uaddr": _uaddr,
    "uptr": _with_space,
    "usym": _symbol_of_address,
    "write_user": give(INT64),
}
RAW_RULES: dict[str, Rule] = {
    "kstack": _stack,
    "nsecs": _nsecs,
    "pid": _pid,
    "tid": _pid,
    "ustack": _stack,
}

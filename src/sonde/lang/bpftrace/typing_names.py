"""Type names, and what takes them: casts, sizeof, offsetof, typeof."""

from __future__ import annotations

from ...debuginfo.ctype import (
    BOOL,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    VOID,
    Array,
    CType,
    Enum,
    Int,
    Pointer,
    Struct,
    sizeof,
    strip,
)
from . import ast
from .analysis import Type
from .builtins import is_builtin
from .stype import (
    CASTABLE,
    NONE,
    Aggregate,
    Avg,
    Buffer,
    CgroupPath,
    Count,
    Inet,
    KStack,
    KSym,
    MacAddr,
    Max,
    Min,
    Stats,
    Str,
    Sum,
    TimestampT,
    Tuple,
    Username,
    UStack,
    USym,
    is_bool,
    is_void,
    same,
    type_name,
)  # fmt: skip
from .typing_state import CHECKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .typing_state import Typer

_BASE: dict[str, CType] = {
    "bool": BOOL,
    "int8": INT8,
    "int16": INT16,
    "int32": INT32,
    "int64": INT64,
    "uint8": UINT8,
    "uint16": UINT16,
    "uint32": UINT32,
    "uint64": UINT64,
    "void": VOID,
}
_C_INTEGERS: dict[str, CType] = {
    "char": INT8,
    "int": INT32,
    "long": INT64,
    "short": INT16,
    "unsigned": UINT32,
    "int8_t": INT8,
    "int16_t": INT16,
    "int32_t": INT32,
    "int64_t": INT64,
    "uint8_t": UINT8,
    "uint16_t": UINT16,
    "uint32_t": UINT32,
    "uint64_t": UINT64,
    "size_t": UINT64,
    "ssize_t": INT64,
    "uintptr_t": UINT64,
    "u8": UINT8,
    "u16": UINT16,
    "u32": UINT32,
    "u64": UINT64,
    "s8": INT8,
    "s16": INT16,
    "s32": INT32,
    "s64": INT64,
    "__u8": UINT8,
    "__u16": UINT16,
    "__u32": UINT32,
    "__u64": UINT64,
    "unsigned char": UINT8,
    "unsigned int": UINT32,
    "unsigned long": UINT64,
    "unsigned long long": UINT64,
    "unsigned short": UINT16,
    "long long": INT64,
}


def _make_special(typer: Typer, name: str) -> CType | None:
    """The types that only bpftrace has, by the names that it gives them."""
    mode = typer.config.stack_mode
    made: dict[str, CType] = {
        "avg_t": Avg(),
        "buffer": Buffer(0),
        "cgroup_path_t": CgroupPath(),
        "count_t": Count(False),
        "inet": Inet(),
        "ksym_t": KSym(),
        "kstack": KStack(mode, 127),
        "kstack_t": KStack(mode, 127),
        "macaddr_t": MacAddr(),
        "mac_address": MacAddr(),
        "max_t": Max(),
        "min_t": Min(),
        "stats_t": Stats(),
        "string": Str(0),
        "sum_t": Sum(),
        "timestamp": TimestampT("boot", ""),
        "uavg_t": Avg(False),
        "umax_t": Max(False),
        "umin_t": Min(False),
        "usum_t": Sum(False),
        "ustack": UStack(mode, 127),
        "ustack_t": UStack(mode, 127),
        "username": Username(),
        "username_t": Username(),
        "usym_t": USym(),
    }
    return made.get(name)


def resolve_type(typer: Typer, node: ast.TypeName, whole: ast.Node | None = None) -> CType | None:
    """Return the type that a type name means; None after an error (or while what typeof() asks about is unknown).

    Errors about enumerations are about `whole`, the expression around the name.
    """
    base = _resolve_typeof(typer, node.typeof) if node.typeof is not None else _resolve_base(typer, node, whole)
    if base is None:
        return None
    if isinstance(base, (Str, Buffer)) and node.dims:
        size = node.dims[0] or 0
        return Str(size) if isinstance(base, Str) else Buffer(size + 4)
    for _ in range(node.pointers):
        base = Pointer(base)
    for count in reversed(node.dims):
        base = Array(base, count or 0)
    return base


def _resolve_typeof(typer: Typer, operand: ast.Expr | ast.TypeName) -> CType | None:
    if isinstance(operand, ast.TypeName):
        return resolve_type(typer, operand)
    if isinstance(operand, ast.Map):
        return map_type(typer, operand)
    typer.meta += 1
    found = typer.visit(operand)
    typer.meta -= 1
    return found.ctype if found else None


def map_type(typer: Typer, node: ast.Map) -> CType | None:
    """`typeof(@m)`: the type of a scalar map's value, of the keys of another. The map is used as either elsewhere."""
    from .typing_maps import get_map, read_value

    state = get_map(typer, node)
    if state.scalar is False:
        state.key_read = True
        return state.key
    found = read_value(typer, state, node)
    return found.ctype if found else None


def _resolve_base(typer: Typer, node: ast.TypeName, whole: ast.Node | None) -> CType | None:
    name = node.name
    found = _BASE.get(name) or find_named(typer, name)
    if found is None:
        if name.startswith("enum "):
            typer.error(node if whole is None else whole, f"Unknown enum: {name[5:]}", CHECKS)
        else:
            typer.error(node, f'Cannot resolve unknown type "{name}"')
    return found


def find_named(typer: Typer, name: str) -> CType | None:
    """Return the type called `name`: the script's own, bpftrace's, the kernel's, or one that C always has."""
    scope = typer.c_scope
    if scope is not None and name in scope.types:
        return scope.types[name]
    special = _make_special(typer, name)
    if special is not None:
        return special
    found = typer.kernel_type(name)
    if found is not None:
        return found
    if " " not in name and scope is not None:
        for tag in ("struct ", "union ", "enum "):
            if tag + name in scope.types:
                return scope.types[tag + name]
    found = _C_INTEGERS.get(name)
    if found is None and " " not in name:
        found = typer.kernel_type("struct " + name) or typer.kernel_type("union " + name)
    return found


# Casts ------------------------------------------------------------------------------------------------------------


def visit_cast(typer: Typer, node: ast.Cast) -> Type | None:
    """`(type)value`."""
    found = typer.visit(node.operand)
    ctype = resolve_type(typer, node.type, node)
    if ctype is None or found is None:
        return None
    source, target = strip(found.ctype), strip(ctype)
    if isinstance(target, Array) and target.count == 0:
        element = sizeof(target.element)
        if not element:
            typer.error(node, "Could not determine size of the array", CHECKS)
            return None
        if sizeof(source) % element:
            typer.error(
                node,
                "Cannot determine array size: the element size is incompatible with the cast integer size",
                CHECKS,
            )
            return None
        ctype = target = Array(target.element, sizeof(source) // element)
    if not _check_cast(typer, node, source, target):
        return None
    if same(source, target) and not isinstance(target, (Str, Buffer)):
        typer.warn(node, f"Unnecessary cast: expression is already of type {type_name(source)}")
    _fold_cast(typer, node, target)
    if isinstance(target, (Str, Buffer)) and sizeof(target) == 0:
        ctype = source
    return Type(ctype, _cast_space(typer, found, source, target))


def _cast_space(typer: Typer, found: Type, source: CType, target: CType) -> str:
    from .typing_variables import default_space

    if isinstance(target, Pointer) or (isinstance(target, Int) and found.space):
        space = found.space or default_space(typer.kind)
        return "kernel" if space == "btf" and not isinstance(strip(getattr(target, "target", VOID)), Struct) else space
    if isinstance(target, Array):
        return "" if isinstance(source, (Int, Enum)) else found.space
    return found.space if isinstance(target, (Str, Struct)) else ""


def _fold_cast(typer: Typer, node: ast.Cast, target: CType) -> None:
    """A literal stays a constant through a cast to an integer, boolean or enumeration."""
    value = typer.constants.get(node.operand)
    if is_bool(target) and value is not None:
        typer.constant(node, bool(value))
    elif isinstance(value, int) and isinstance(target, (Int, Enum)):
        bits = target.size * 8
        wrapped = int(value) & (1 << bits) - 1
        typer.constant(node, wrapped - (1 << bits) if target.signed and wrapped >> bits - 1 else wrapped)


def _check_cast(typer: Typer, node: ast.Cast, source: CType, target: CType) -> bool:
    if isinstance(source, Struct):
        if isinstance(target, Struct) and same(source, target):
            return True
        typer.error(node, f'Cannot cast from struct type "{type_name(source)}"', CHECKS)
        return False
    if source is NONE or is_void(source):
        typer.error(node, f'Cannot cast from "{type_name(source)}" type', CHECKS)
        return False
    if isinstance(target, Enum):
        return _check_enum(typer, node, source, target)
    if _castable(source, target):
        return True
    named = node.type.name if isinstance(target, (Str, Buffer)) and not sizeof(target) else type_name(target)
    typer.error(node, f'Cannot cast from "{type_name(source)}" to "{named}"', CHECKS)
    return False


def _check_enum(typer: Typer, node: ast.Cast, source: CType, target: Enum) -> bool:
    if not isinstance(source, (Int, Enum)):
        typer.error(node, f'Cannot cast from "{type_name(source)}" to "{type_name(target)}"', CHECKS)
        return False
    value = typer.constants.get(node.operand)
    if isinstance(value, int) and value not in target.values.values():
        typer.error(node, f"Enum: {target.name} doesn't contain a variant value of {value}", CHECKS)
        return False
    return True


def _castable(source: CType, target: CType) -> bool:
    if isinstance(target, Int):
        if is_bool(target):
            return isinstance(source, (Int, Enum, Pointer, Str, *CASTABLE))
        if isinstance(source, Array):
            return sizeof(source) == target.size and isinstance(strip(source.element), Int)
        return isinstance(source, (Int, Enum, Pointer, KSym, USym, *CASTABLE))
    if isinstance(target, Pointer):
        return isinstance(source, (Int, Enum, Pointer, Array, *CASTABLE))
    if isinstance(target, Array):
        return _castable_to_array(source, target)
    if isinstance(target, Str):
        return isinstance(source, Str) and (not target.size or target.size >= source.size)
    if isinstance(target, Username):
        return isinstance(source, Int)
    if isinstance(target, (Tuple, Aggregate, Struct)):
        return same(source, target)
    return same(source, target)


def _castable_to_array(source: CType, target: Array) -> bool:
    if not isinstance(strip(target.element), Int):
        return False
    size = sizeof(target)
    if isinstance(source, (Int, Enum)) and not is_bool(source):
        return source.size == size or (size <= 8 and size > source.size)
    return isinstance(source, (Int, Str, Array)) and sizeof(source) == size


# Sizes and offsets ------------------------------------------------------------------------------------------------


def visit_sizeof(typer: Typer, node: ast.Sizeof) -> Type | None:
    """`sizeof(type or expression)`: a constant."""
    ctype = meta_type(typer, node.operand)
    if ctype is None:
        return None
    typer.probe.operands[node] = ctype
    return _put_number(typer, node, sizeof(ctype))


def visit_offsetof(typer: Typer, node: ast.Offsetof) -> Type | None:
    """`offsetof(type or expression, a.b)`: a constant."""
    ctype = meta_type(typer, node.operand)
    if ctype is None:
        return None
    typer.probe.operands[node] = ctype
    offset = 0
    for name in node.path:
        plain = strip(ctype)
        if not isinstance(plain, Struct):
            typer.error(node, f"'{type_name(plain)}' is not a c_struct type.")
            return None
        field = plain.get_member(name)
        if field is None:
            typer.error(node, f"'{type_name(plain)}' has no field named '{name}'")
            return None
        offset += field.offset
        ctype = field.member.ctype
    return _put_number(typer, node, offset)


def meta_type(typer: Typer, operand: ast.Expr | ast.TypeName) -> CType | None:
    """Return the type that `sizeof` and its like ask about; None when it is not known yet, or wrong."""
    if isinstance(operand, ast.Identifier) and not is_builtin(operand.name):
        named = _BASE.get(operand.name) or find_named(typer, operand.name)
        if named is not None:
            return named
    if isinstance(operand, ast.TypeName):
        return resolve_type(typer, operand)
    typer.meta += 1
    found = typer.visit(operand)
    typer.meta -= 1
    return found.ctype if found else None


def _put_number(typer: Typer, node: ast.Expr, value: int) -> Type:
    from .typing_operators import put_constant

    return put_constant(typer, node, value)

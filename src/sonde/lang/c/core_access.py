"""What CO-RE asks of the target: `__builtin_preserve_field_info`, `…_type_info`, `…_enum_value`, `__builtin_btf_type_id`.

The compiler's own target answers at once; in an object that goes elsewhere the question is noted, to be asked again there.
"""

from __future__ import annotations

from ...compiler.ir import Const
from ...debuginfo.ctype import Enum, Struct, sizeof, strip
from ...spec.object import CoreAccess
from . import ast
from .lower_frame import failure
from .values import Scalar, ir_type, is_signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .lower_frame import Frame
    from .values import Operand

# By the number that libbpf's headers pass (enum bpf_field_info_kind and its like).
_FIELD_KINDS = (
    "field_byte_offset",
    "field_byte_size",
    "field_exists",
    "field_signed",
    "field_lshift_u64",
    "field_rshift_u64",
)
_TYPE_KINDS = ("type_exists", "type_size", "type_matches")


def question(f: Frame, node: ast.Call, name: str) -> Operand:
    """Lower one of the builtins."""
    if name == "preserve_field_info":
        return _answer(f, node, *_field_question(f, node))
    if name in ("preserve_type_info", "btf_type_id"):
        return _answer(f, node, *_type_question(f, node, name))
    return _answer(f, node, *_enum_question(f, node))


def _answer(f: Frame, node: ast.Call, kind: str, type_name: str, path: tuple[str | int, ...], value: int) -> Scalar:
    ctype = f.type(node)
    if not f.program.relocatable:
        return Scalar(Const(value, ir_type(ctype)), ctype)
    found = f.b.core(CoreAccess(kind, type_name, path, value))
    return Scalar(f.resize(found, False, ir_type(ctype)), ctype)


def _kind(f: Frame, node: ast.Call, kinds: tuple[str, ...]) -> str:
    number = f.program.analysis.constants.get(node.args[1])
    if number is None or not 0 <= number < len(kinds):
        raise failure(node.span, "the kind of the question has to be one of the constants of bpf_core_read.h")
    return kinds[number]


def _field_question(f: Frame, node: ast.Call) -> tuple[str, str, tuple[str | int, ...], int]:
    kind = _kind(f, node, _FIELD_KINDS)
    path: list[str | int] = []
    expr: ast.Node = node.args[0]
    offset_bits, width, field_type = 0, 0, f.type(expr)
    while isinstance(expr, (ast.Member, ast.Index, ast.Cast)):
        if isinstance(expr, ast.Member):
            access = f.program.analysis.accesses[expr]
            path[:0] = [m.name for m in access.field.path if m.name]
            offset_bits += access.field.offset_bits
            width = width or access.field.member.width_bits
            struct: CType = strip(access.struct)
            if expr.arrow:
                break
        elif isinstance(expr, ast.Index):
            index = f.program.analysis.constants.get(expr.index)
            if index is None:
                raise failure(expr.span, "the index has to be a constant here")
            path.insert(0, index)
            offset_bits += 8 * index * sizeof(f.type(expr))
        expr = expr.operand
    else:
        struct = strip(f.type(expr))
    if not isinstance(struct, Struct):
        raise failure(node.span, "this is no member of a struct")
    return kind, f"{struct.kind} {struct.name}", tuple(path), _field_value(kind, offset_bits, width, field_type)


def _field_value(kind: str, offset_bits: int, width: int, ctype: CType) -> int:
    size = sizeof(ctype)
    start = offset_bits // 8 if not width else offset_bits // (8 * size) * size
    bits = width or 8 * size
    within = offset_bits - 8 * start
    return {
        "field_byte_offset": start,
        "field_byte_size": size,
        "field_exists": 1,
        "field_signed": int(is_signed(ctype)),
        "field_lshift_u64": 64 - (within + bits),
        "field_rshift_u64": 64 - bits,
    }[kind]


def _pointed(f: Frame, node: ast.Node) -> CType:
    """The type of the argument, which libbpf's macros write as `*(type *)0`."""
    return strip(f.type(node))


def _type_question(f: Frame, node: ast.Call, name: str) -> tuple[str, str, tuple[str | int, ...], int]:
    ctype = _pointed(f, node.args[0])
    kind = _kind(f, node, _TYPE_KINDS) if name == "preserve_type_info" else _id_kind(f, node)
    label = (
        f"{ctype.kind} {ctype.name}"
        if isinstance(ctype, Struct)
        else f"enum {ctype.name}"
        if isinstance(ctype, Enum)
        else ctype.name
    )
    value = {"type_exists": 1, "type_size": sizeof(ctype), "type_matches": 1}.get(kind)
    if value is None:
        value = getattr(ctype, "type_id", 0)
    return kind, label, (), value


def _id_kind(f: Frame, node: ast.Call) -> str:
    return "type_id_target" if f.program.analysis.constants.get(node.args[1]) == 1 else "type_id_local"


def _enum_question(f: Frame, node: ast.Call) -> tuple[str, str, tuple[str | int, ...], int]:
    kind = _kind(f, node, ("enumval_exists", "enumval_value"))
    expr: ast.Node = node.args[0]
    while isinstance(expr, (ast.Cast, ast.Unary)):
        if isinstance(expr, ast.Cast) and isinstance(strip(f.type(expr)), Enum):
            break
        expr = expr.operand
    ctype = strip(f.type(expr))
    value = f.program.analysis.constants.get(expr, 0)
    names = ctype.find_names(value) if isinstance(ctype, Enum) else []
    label = f"enum {ctype.name}"
    return kind, label, (names[0],) if names else (), 1 if kind == "enumval_exists" else value

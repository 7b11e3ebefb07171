"""What CO-RE asks of the target: `__builtin_preserve_field_info`, `…_type_info`, `…_enum_value`, `__builtin_btf_type_id`.

The compiler's own target answers at once; in an object that goes elsewhere the question is noted, to be asked again there.
"""

from __future__ import annotations

from ...compiler.ir import Const
from ...debuginfo.corerelo import local_answer
from ...debuginfo.ctype import Enum, Pointer, Qualified, Struct, strip
from ...errors import FormatError
from ...record import replace
from ...spec.object import CoreAccess
from . import ast
from .lower_frame import failure
from .values import Scalar, ir_type

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
        access = _field_question(f, node)
    elif name in ("preserve_type_info", "btf_type_id"):
        access = _type_question(f, node, name)
    else:
        access = _enum_question(f, node)
    ctype = f.type(node)
    try:
        access = replace(access, value=local_answer(access))
    except FormatError as error:
        raise failure(node.span, error.message) from None
    if not f.program.relocatable:
        return Scalar(Const(access.value, ir_type(ctype)), ctype)
    return Scalar(f.resize(f.b.core(access), False, ir_type(ctype)), ctype)


def _about(kind: str, ctype: CType, path: tuple[str | int, ...] = (), value: int = 0) -> CoreAccess:
    """A question about a type as the program knows it."""
    keyword = f"{ctype.kind} " if isinstance(ctype, Struct) else "enum " if isinstance(ctype, Enum) else ""
    return CoreAccess(kind, f"{keyword}{ctype.name}".rstrip(), path, value, 0, ctype)


def _kind(f: Frame, node: ast.Call, kinds: tuple[str, ...]) -> str:
    number = f.program.analysis.constants.get(node.args[1])
    if number is None or not 0 <= number < len(kinds):
        raise failure(node.span, "the kind of the question has to be one of the constants of bpf_core_read.h")
    return kinds[number]


def _field_question(f: Frame, node: ast.Call) -> CoreAccess:
    kind = _kind(f, node, _FIELD_KINDS)
    path: list[str | int] = []
    expr: ast.Node = node.args[0]
    while isinstance(expr, (ast.Member, ast.Index, ast.Cast)):
        if isinstance(expr, ast.Member):
            access = f.program.analysis.accesses[expr]
            path[:0] = [m.name for m in access.field.path if m.name]
            struct: CType = strip(access.struct)
            if expr.arrow:
                break
        elif isinstance(expr, ast.Index):
            index = f.program.analysis.constants.get(expr.index)
            if index is None:
                raise failure(expr.span, "the index has to be a constant here")
            path.insert(0, index)
        expr = expr.operand
    else:
        struct = strip(f.type(expr))
    if not isinstance(struct, Struct):
        raise failure(node.span, "this is no member of a struct")
    return _about(kind, struct, tuple(path))


def _type_question(f: Frame, node: ast.Call, name: str) -> CoreAccess:
    """The argument is written as `*(type *)0` by libbpf's macros. A typedef is asked for by its own name."""
    ctype = f.type(node.args[0])
    while isinstance(ctype, Qualified):
        ctype = ctype.target
    kind = _kind(f, node, _TYPE_KINDS) if name == "preserve_type_info" else _id_kind(f, node)
    return _about(kind, ctype, (), getattr(strip(ctype), "type_id", 0))


def _id_kind(f: Frame, node: ast.Call) -> str:
    return "type_id_target" if f.program.analysis.constants.get(node.args[1]) == 1 else "type_id_local"


def _enum_question(f: Frame, node: ast.Call) -> CoreAccess:
    """The argument is written as `*(type *)ENUMERATOR` by libbpf's macros."""
    kind = _kind(f, node, ("enumval_exists", "enumval_value"))
    expr: ast.Node = node.args[0]
    while isinstance(expr, ast.Unary):
        expr = expr.operand
    pointer = strip(f.type(expr))
    enum = strip(pointer.target) if isinstance(pointer, Pointer) else pointer
    while isinstance(expr, ast.Cast):
        expr = expr.operand
    if isinstance(enum, Enum):
        if isinstance(expr, ast.Name) and expr.name in enum.values:
            return _about(kind, enum, (expr.name,))
        names = enum.find_names(f.program.analysis.constants.get(expr, 0))
        if names:
            return _about(kind, enum, (names[0],))
    raise failure(node.span, "this is no enumerator of an enumeration")

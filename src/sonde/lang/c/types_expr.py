"""Expressions that are no operators: names, constants, members, elements, casts, sizeof, literals, `_Generic`."""

from __future__ import annotations

from ...debuginfo.ctype import (
    CHAR,
    VOID,
    Array,
    CType,
    Forward,
    FuncProto,
    Pointer,
    Qualified,
    Struct,
    Void,
    alignof,
    sizeof,
    strip,
)
from ...probes.close import close_names
from . import ast
from .analysis import Access, EnumConstant, FunctionSymbol, Table, TextStruct, Variable
from .arithmetic import (
    INT,
    LLONG,
    LONG,
    UINT,
    ULLONG,
    ULONG,
    compatible,
    decayed,
    fits,
    is_incomplete,
    is_integer,
    is_undefined,
    is_void,
    qualifiers,
    shown,
)
from .checker import POISON, Silent
from .constants import constant_value, held
from .conversions import check_cast, complete_object, dereferenced, value
from .names import find_foreign, use_function
from .types_decl import did_you_mean, type_name
from .types_init import initialise_list
from .types_table import table_struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .checker import Checker, Rule

# The types that a constant may have, the first that holds it is taken: C11 6.4.4.1.
_CANDIDATES = {
    ("", True): (INT, LONG), ("", False): (INT, UINT, LONG, ULONG), ("u", True): (UINT, ULONG), ("l", True): (LONG,),
    ("l", False): (LONG, ULONG), ("ul", True): (ULONG,), ("ll", True): (LLONG,), ("ll", False): (LLONG, ULLONG),
    ("ull", True): (ULLONG,),
}  # fmt: skip


def _number(ck: Checker, node: ast.Number) -> CType:
    key = node.suffix, node.decimal
    for ctype in _CANDIDATES.get(key) or _CANDIDATES[node.suffix, True]:
        if fits(node.value, ctype):
            ck.constants[node] = node.value
            return ctype
    if fits(node.value, ULLONG):  # GNU: a decimal constant that no signed type holds
        ck.constants[node] = node.value
        return ULLONG
    raise ck.fail(node, "an integer constant that is too large for any type")


def _character(ck: Checker, node: ast.Character) -> CType:
    ck.constants[node] = node.value
    return INT


def _string(ck: Checker, node: ast.String) -> CType:
    return Array(CHAR, len(node.value) + 1)


# Names ------------------------------------------------------------------------------------------------------------


def _name(ck: Checker, node: ast.Name) -> CType:
    found = ck.scope.find(node.name)
    if found is None:
        found = find_foreign(ck, node)
    if isinstance(found, Variable):
        ck.symbols[node] = found
        function = ck.function
        if function is not None:
            function.named.add(found)
        if function is not None and found.init is None and found.storage == "auto" and found not in function.read:
            function.read[found] = node
        return found.ctype
    if isinstance(found, EnumConstant):
        ck.symbols[node] = found
        ck.constants[node] = found.value
        return found.ctype
    if found is POISON:
        raise Silent
    if isinstance(found, FunctionSymbol):
        ck.symbols[node] = found
        use_function(ck, found, node)
        return found.ctype
    if isinstance(found, Table):
        ck.symbols[node] = found
        return table_struct(ck, found)
    raise ck.fail(node, f"'{node.name}' is a type, not a value")


# Members and elements ---------------------------------------------------------------------------------------------


def _member(ck: Checker, node: ast.Member) -> CType:
    ctype = ck.expr(node.operand)
    if node.arrow:
        ctype = decayed(ctype)
        inner = strip(ctype)
        if not isinstance(inner, Pointer):
            hint = f"use '.{node.name}'" if isinstance(inner, Struct) else ""
            raise ck.fail(node, f"member reference by '->' of {shown(ctype)}, which is no pointer", hint=hint)
        ctype = inner.target
    struct = strip(ctype)
    if not isinstance(struct, Struct) or is_undefined(struct):
        raise _no_struct(ck, node, ctype)
    field = struct.get_member(node.name)
    if field is None:
        if isinstance(struct, TextStruct) and struct.broken:
            raise Silent
        close = close_names(node.name, struct.iter_names())
        raise ck.fail(node, f"no member named '{node.name}' in {shown(struct)}", hint=did_you_mean(close))
    marks = struct.marks if isinstance(struct, TextStruct) else ()
    ck.accesses[node] = Access(struct, field, not struct.type_id and "preserve_access_index" not in marks)
    symbol = ck.symbols.get(node.operand)
    if isinstance(symbol, Table) and node.name in ("max_entries", "flags"):
        ck.constants[node] = symbol.max_entries if node.name == "max_entries" else symbol.flags
    member = field.member.ctype
    return Qualified("const", member) if "const" in qualifiers(ctype) else member


def _no_struct(ck: Checker, node: ast.Member, ctype: CType) -> Exception:
    inner = strip(ctype)
    if isinstance(inner, Pointer) and isinstance(strip(inner.target), Struct):
        return ck.fail(node, f"member reference by '.' of {shown(ctype)}, a pointer", hint=f"use '->{node.name}'")
    if isinstance(inner, (Forward, Struct)):
        try:
            complete_object(ck, node, ctype, "the operand")
        except Exception as error:
            return error
    return ck.fail(node, f"member reference of {shown(ctype)}, which is no struct or union")


def _index(ck: Checker, node: ast.Index) -> CType:
    whole = ck.expr(node.operand)
    left, right = decayed(whole), value(ck, node.index)
    if is_integer(left) and isinstance(strip(right), Pointer):
        left, right = right, left
    if not isinstance(strip(left), Pointer):
        raise ck.fail(node, f"{shown(whole)} cannot be indexed: it is no array and no pointer")
    if not is_integer(right):
        raise ck.fail(node.index, f"an index must be an integer, not {shown(right)}")
    element = dereferenced(ck, node, left)
    if not is_void(element):
        complete_object(ck, node, element, "the element")
    known, array = ck.constants.get(node.index), strip(whole)
    # An array of one element at the end of a struct often is one of any length.
    if known is not None and isinstance(array, Array) and array.count > 1 and not 0 <= known <= array.count:
        ck.warn(node.index, f"index {known} is outside of the array of {array.count} elements")
    if "const" in qualifiers(whole) and "const" not in qualifiers(element):
        return Qualified("const", element)
    return element


# Casts, sizes, literals -------------------------------------------------------------------------------------------


def _cast(ck: Checker, node: ast.Cast) -> CType:
    target = type_name(ck, node.type)
    source = decayed(ck.expr(node.operand))
    if isinstance(strip(source), Void) and not is_void(target):
        raise ck.fail(node.operand, "an expression of type 'void' has no value")
    check_cast(ck, node, source, target)
    known = ck.constants.get(node.operand)
    if known is not None:
        folded = held(known, target)
        if folded is not None:
            ck.constants[node] = folded
    return target


def _sizeof(ck: Checker, node: ast.Sizeof) -> CType:
    operand = node.operand
    ctype = type_name(ck, operand) if isinstance(operand, ast.TypeName) else ck.expr(operand)
    if isinstance(operand, ast.Member) and node.op == "sizeof" and ck.accesses[operand].field.member.width_bits:
        raise ck.fail(node, f"sizeof of the bit-field '{operand.name}'")
    inner = strip(ctype)
    if isinstance(inner, (Void, FuncProto)):
        ck.constants[node] = 1  # GNU
    else:
        complete_object(ck, node, ctype, "the operand of " + node.op)
        ck.constants[node] = sizeof(ctype) if node.op == "sizeof" else alignof(ctype)
    return ULONG


def _compound_literal(ck: Checker, node: ast.CompoundLiteral) -> CType:
    ctype = type_name(ck, node.type)
    inner = strip(ctype)
    if not (isinstance(inner, Array) and not inner.count):
        complete_object(ck, node, ctype, "a compound literal")
    ctype, ck.literals[node] = initialise_list(ck, node.init, ctype, static=ck.function is None)
    return ctype


def _statement_expr(ck: Checker, node: ast.StatementExpr) -> CType:
    ck.statement(node.body)
    last = node.body.items[-1] if node.body.items else None
    while isinstance(last, ast.Label):
        last = last.statement
    if not isinstance(last, ast.ExprStatement) or last.expr is None:
        return VOID
    ctype = ck.types.get(last.expr)
    if ctype is None:
        raise Silent
    return decayed(ctype)


def _generic(ck: Checker, node: ast.Generic) -> CType:
    control = decayed(ck.expr(node.control))
    default: ast.Expr | None = None
    for wanted, choice in node.choices:
        if wanted is None:
            default = choice
        elif compatible(control, type_name(ck, wanted), exact=True) and not qualifiers(type_name(ck, wanted)):
            break
    else:
        if default is None:
            raise ck.fail(node, f"_Generic has no choice for type {shown(control)}")
        choice = default
    return choose(ck, node, choice)


def choose(ck: Checker, node: ast.Expr, choice: ast.Expr) -> CType:
    """Let `node` stand for one of its operands."""
    ck.chosen[node] = choice
    ctype = ck.expr(choice)
    if choice in ck.constants:
        ck.constants[node] = ck.constants[choice]
    if choice in ck.symbols:
        ck.symbols[node] = ck.symbols[choice]
    return ctype


def _offset_of(ck: Checker, node: ast.OffsetOf) -> CType:
    ctype = type_name(ck, node.type)
    offset = 0
    for step in node.path:
        inner = strip(ctype)
        if isinstance(step, ast.IndexDesignator):
            if not isinstance(inner, Array):
                raise ck.fail(step, f"{shown(ctype)} in offsetof is no array")
            ctype = inner.element
            offset += sizeof(ctype) * constant_value(ck, step.low, "an index in offsetof")
            continue
        if not isinstance(inner, Struct) or is_incomplete(inner):
            raise ck.fail(step, f"{shown(ctype)} in offsetof is no struct or union that is defined")
        field = inner.get_member(step.name)
        if field is None:
            close = close_names(step.name, inner.iter_names())
            raise ck.fail(step, f"no member named '{step.name}' in {shown(inner)}", hint=did_you_mean(close))
        if field.member.width_bits:
            raise ck.fail(step, f"offsetof of the bit-field '{step.name}'")
        offset += field.offset
        ctype = field.member.ctype
    ck.constants[node] = offset
    return ULONG


def _types_compatible(ck: Checker, node: ast.TypesCompatible) -> CType:
    left, right = type_name(ck, node.left), type_name(ck, node.right)
    ck.constants[node] = int(compatible(left, right, exact=True))
    return INT


RULES: dict[type, Rule] = {
    ast.Name: _name,
    ast.Number: _number,
    ast.Character: _character,
    ast.String: _string,
    ast.Member: _member,
    ast.Index: _index,
    ast.Cast: _cast,
    ast.Sizeof: _sizeof,
    ast.CompoundLiteral: _compound_literal,
    ast.StatementExpr: _statement_expr,
    ast.Generic: _generic,
    ast.OffsetOf: _offset_of,
    ast.TypesCompatible: _types_compatible,
}

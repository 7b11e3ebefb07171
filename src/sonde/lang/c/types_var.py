"""Declarations of variables and functions: storage, linkage, sections, initialisers; at file scope and in blocks."""

from __future__ import annotations

from ...debuginfo.ctype import Array, CType, Float, FuncProto, Pointer, Void, sizeof, strip
from ...errors import CompileError
from ...record import replace
from . import ast
from .analysis import FunctionSymbol, Variable
from .arithmetic import compatible, decayed, is_void, shown
from .checker import POISON, Silent, change
from .constants import constant_value
from .conversions import complete_object, no_floats, value
from .lints import spares
from .options import EXTERN
from .types_decl import attribute_text, base_type, declare_typedef, declared_type, has_attribute
from .types_init import initialise
from .types_table import add_map, table_of_struct, with_values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .checker import Checker

    Declare = Callable[[Checker, ast.Declaration, ast.InitDeclarator], None]

MAX_GLOBAL_BYTES = 1 << 26  # globals live in the one value of an array map


def check_static_assert(ck: Checker, node: ast.StaticAssert) -> None:
    """Check `_Static_assert`. Raises CompileError."""
    if not constant_value(ck, node.condition, "the condition of _Static_assert"):
        raise ck.fail(node, "static assertion failed" + (f": {node.message}" if node.message else ""))


def attributes_of(specifiers: ast.Specifiers, declarator: ast.Declarator) -> tuple[ast.Attribute, ...]:
    """Return all attributes that a declaration gives to what it declares."""
    return (*specifiers.attributes, *declarator.attributes)


def _type_of(ck: Checker, node: ast.Declaration, item: ast.InitDeclarator) -> CType:
    specifiers = node.specifiers
    if isinstance(specifiers.type, ast.BasicType) and specifiers.type.words == ("__auto_type",):
        if item.init is None or isinstance(item.init, ast.InitList) or item.declarator.derived:
            raise ck.fail(item, "'__auto_type' needs an initialiser that is an expression")
        return value(ck, item.init)
    ctype = declared_type(ck, base_type(ck, specifiers), item.declarator, specifiers)
    if isinstance(strip(ctype), Float) and specifiers.storage != "typedef":
        raise no_floats(ck, item.declarator)
    return ctype


def _each(ck: Checker, node: ast.Declaration, declare: Declare) -> None:
    """Declare one thing after the other; an error in one does not hide the next."""
    if not node.declarators:
        base_type(ck, node.specifiers)
        return
    for item in node.declarators:
        try:
            declare(ck, node, item)
        except (CompileError, Silent) as error:
            if isinstance(error, CompileError):
                ck.report_all(error)
            if item.declarator.name not in ck.scope.names:
                ck.declare(item.declarator.name, POISON, item.span)


# Blocks -----------------------------------------------------------------------------------------------------------


def declare_locals(ck: Checker, node: ast.Declaration) -> None:
    """Declare what a declaration in a block declares."""
    _each(ck, node, _declare_local)


def _declare_local(ck: Checker, node: ast.Declaration, item: ast.InitDeclarator) -> None:
    declarator, specifiers = item.declarator, node.specifiers
    ctype = _type_of(ck, node, item)
    attributes = attributes_of(specifiers, declarator)
    if specifiers.storage == "typedef":
        declare_typedef(ck, declarator, ctype, attributes)
        ck.types[declarator] = ctype
        return
    if isinstance(strip(ctype), FuncProto):
        declare_function(ck, specifiers, declarator, ctype)
        return
    if specifiers.storage == "extern":
        _declare_global(ck, node, item)
        return
    if declarator.name in ck.scope.names:
        raise ck.fail(declarator, f"redefinition of '{declarator.name}'", notes=ck.previous(declarator.name))
    static = specifiers.storage == "static"
    variable = Variable(declarator.name, ctype, "static" if static else "auto", declarator.span)
    ck.declare(declarator.name, variable, declarator.span)
    ck.symbols[declarator] = variable
    try:
        _initialise(ck, item, variable, static)
        complete_object(ck, declarator, variable.ctype, f"variable '{declarator.name}'")
    except (CompileError, Silent):
        ck.scope.names[declarator.name] = POISON if isinstance(strip(ctype), Array) else variable
        raise
    ck.types[declarator] = variable.ctype
    assert ck.function is not None
    ck.function.locals.append(variable)
    if spares(attributes, variable):
        ck.function.spared.add(variable)
    _clean_up(ck, variable, attributes)


def _clean_up(ck: Checker, variable: Variable, attributes: tuple[ast.Attribute, ...]) -> None:
    """Check the call that `cleanup(function)` asks for: with the variable's address, when it goes out of scope."""
    for attribute in attributes:
        if attribute.name.strip("_") != "cleanup":
            continue
        if len(attribute.args) != 1 or not isinstance(attribute.args[0], ast.Name):
            raise ck.fail(attribute, "the attribute cleanup takes the name of a function")
        function = attribute.args[0]
        variable_name = ast.Name(variable.span, variable.name)
        call = ast.Call(function.span, function, (ast.Unary(function.span, "&", variable_name),))
        ck.expr(call)
        if variable.storage == "auto":
            ck.cleanups[variable] = call


def _initialise(ck: Checker, item: ast.InitDeclarator, variable: Variable, static: bool) -> None:
    """Check the initialiser of a variable. The variable is in scope already: `T *p = malloc(sizeof(*p))`."""
    if item.init is None:
        inner = strip(variable.ctype)
        if isinstance(inner, Array) and not inner.count and _unsized(item.declarator):
            raise ck.fail(item.declarator, f"the array '{variable.name}' needs a size or an initialiser")
        return
    if ck.function is not None:
        ck.function.written.add(variable)
    ctype, entries = initialise(ck, item.init, variable.ctype, static=static)
    change(variable, ctype=ctype, init=entries)


def _unsized(declarator: ast.Declarator) -> bool:
    first = declarator.derived[0] if declarator.derived else None
    return isinstance(first, ast.ArrayOf) and first.size is None


# The file ---------------------------------------------------------------------------------------------------------


def declare_globals(ck: Checker, node: ast.Declaration) -> None:
    """Declare what a declaration at file scope declares."""
    _each(ck, node, _declare_global)


def _declare_global(ck: Checker, node: ast.Declaration, item: ast.InitDeclarator) -> None:
    declarator, specifiers = item.declarator, node.specifiers
    ctype = _type_of(ck, node, item)
    ck.types[declarator] = ctype
    attributes = attributes_of(specifiers, declarator)
    if specifiers.storage == "typedef":
        declare_typedef(ck, declarator, ctype, attributes)
    elif isinstance(strip(ctype), FuncProto):
        declare_function(ck, specifiers, declarator, ctype)
    elif not _is_old_helper(ck, item, ctype):
        _declare_variable(ck, node, item, ctype, attributes)


def _declare_variable(
    ck: Checker, node: ast.Declaration, item: ast.InitDeclarator, ctype: CType, attributes: tuple[ast.Attribute, ...]
) -> None:
    declarator = item.declarator
    storage = {"static": "static", "extern": "extern"}.get(node.specifiers.storage, "global")
    if item.init is not None and storage == "extern":
        storage = "global"
    section = attribute_text(attributes, "section")
    previous = ck.file_scope.names.get(declarator.name)
    if previous is not None and previous is not POISON:
        variable = _redeclare(ck, declarator, previous, ctype, storage, item)
    else:
        weak = has_attribute(attributes, "weak")
        variable = Variable(declarator.name, ctype, storage, declarator.span, section=section, weak=weak)
    if section == ".maps" or section == "maps":
        table = table_of_struct(ck, variable, declarator)
        if item.init is not None:
            table = with_values(ck, table, variable, item.init)
        elif storage == "extern" and ck.linkable:
            table = replace(table, pinning=EXTERN)
        add_map(ck, table, variable.ctype)
        return
    ck.file_scope.names[declarator.name] = variable
    ck.file_scope.spans[declarator.name] = declarator.span
    ck.symbols[declarator] = variable
    _initialise(ck, item, variable, static=True)
    if not (
        storage == "extern" and isinstance(strip(ctype), Void)
    ):  # `extern const void sym __ksym` has an address only
        complete_object(ck, declarator, variable.ctype, f"variable '{declarator.name}'")
    if sizeof(variable.ctype) > MAX_GLOBAL_BYTES:
        raise ck.fail(
            declarator, f"variable '{declarator.name}' of {sizeof(variable.ctype)} bytes is too large for a map"
        )
    ck.types[declarator] = variable.ctype
    if section == "license":
        _read_license(ck, item)
    elif section != "version":
        ck.globals[declarator.name] = variable


def _redeclare(
    ck: Checker, node: ast.Declarator, previous: object, ctype: CType, storage: str, item: ast.InitDeclarator
) -> Variable:
    """Declare a variable once more, which C allows if both agree and one of them at most has an initialiser."""
    if not isinstance(previous, Variable):
        raise ck.fail(node, f"redefinition of '{node.name}' as another kind of symbol", notes=ck.previous(node.name))
    if not compatible(previous.ctype, ctype):
        words = f"redefinition of '{node.name}' with a different type: {shown(ctype)} after {shown(previous.ctype)}"
        raise ck.fail(node, words, notes=ck.previous(node.name))
    if previous.init is not None and item.init is not None:
        raise ck.fail(node, f"redefinition of '{node.name}'", notes=ck.previous(node.name))
    if storage != "extern":
        change(previous, storage=storage, span=node.span)
    if isinstance(strip(ctype), Array):
        change(previous, ctype=ctype)
    return previous


def _read_license(ck: Checker, item: ast.InitDeclarator) -> None:
    if not isinstance(item.init, ast.String):
        raise ck.fail(item, "the license must be a string")
    ck.license = item.init.value.split(b"\0")[0].decode("utf-8", "replace")


def _is_old_helper(ck: Checker, item: ast.InitDeclarator, ctype: CType) -> bool:
    """`static u64 (*bpf_ktime_get_ns)(void) = (void *)5;`: how helpers were declared once, by their number."""
    from ...compiler.helpers import get_helper

    pointer = strip(ctype)
    proto = strip(pointer.target) if isinstance(pointer, Pointer) else None
    if not isinstance(proto, FuncProto) or item.init is None or isinstance(item.init, ast.InitList):
        return False
    ck.expr(item.init)
    number = ck.constants.get(item.init)
    helper = get_helper(number) if number else None
    if helper is None:
        return False
    name = item.declarator.name
    ck.declare(name, FunctionSymbol(name, proto, item.declarator.span, helper=helper.name), item.declarator.span)
    return True


# Functions --------------------------------------------------------------------------------------------------------


def declare_function(
    ck: Checker,
    specifiers: ast.Specifiers,
    declarator: ast.Declarator,
    ctype: CType,
    definition: ast.FunctionDef | None = None,
) -> FunctionSymbol:
    """Declare a function, or define it; later declarations complete the symbol that the first one made. Raises CompileError."""
    proto = strip(ctype)
    assert isinstance(proto, FuncProto)
    name = declarator.name
    attributes = attributes_of(specifiers, declarator)
    previous = ck.file_scope.names.get(name)
    if previous is None or previous is POISON or (isinstance(previous, FunctionSymbol) and _is_foreign(previous)):
        symbol = FunctionSymbol(name, proto, declarator.span, static=specifiers.storage == "static")
        ck.file_scope.names[name] = symbol
    elif isinstance(previous, FunctionSymbol):
        symbol = previous
        _check_again(ck, declarator, symbol, proto, definition)
    else:
        raise ck.fail(declarator, f"redefinition of '{name}' as another kind of symbol", notes=ck.previous(name))
    ck.file_scope.spans[name] = declarator.span
    _complete_symbol(ck, symbol, specifiers, attributes)
    if definition is not None:
        change(symbol, definition=definition, span=declarator.span, ctype=proto)
    return symbol


def _is_foreign(symbol: FunctionSymbol) -> bool:
    """A helper, builtin or function of the kernel that was found by its name: what the text says of it now goes before that."""
    return bool(symbol.helper or symbol.builtin or symbol.kfunc) and symbol.definition is None


def _complete_symbol(
    ck: Checker, symbol: FunctionSymbol, specifiers: ast.Specifiers, attributes: tuple[ast.Attribute, ...]
) -> None:
    section = attribute_text(attributes, "section") or symbol.section
    inline = symbol.inline
    if has_attribute(attributes, "always_inline"):
        inline = "always"
    elif has_attribute(attributes, "noinline"):
        inline = "never"
    static = symbol.static or specifiers.storage == "static" or (specifiers.inline and ck.dialect == "bcc")
    change(symbol, section=section, inline=inline, static=static)
    if section == ".ksyms" and not symbol.kfunc:
        change(symbol, kfunc=symbol.name)


def _check_again(
    ck: Checker,
    node: ast.Declarator,
    symbol: FunctionSymbol,
    proto: FuncProto,
    definition: ast.FunctionDef | None,
) -> None:
    note = ck.previous(symbol.name)
    if definition is not None and symbol.definition is not None:
        raise ck.fail(node, f"redefinition of '{symbol.name}'", notes=note)
    unknown = not symbol.ctype.params or not proto.params  # `()` says nothing about parameters
    if not compatible(symbol.ctype, proto) and not (unknown and compatible(symbol.ctype.result, proto.result)):
        words = f"conflicting types for '{symbol.name}': {shown(proto)} after {shown(symbol.ctype)}"
        raise ck.fail(node, words, notes=note)


def check_result(ck: Checker, node: ast.FunctionDef, proto: FuncProto) -> None:
    """Require that a function returns something that exists. Raises CompileError."""
    if not is_void(proto.result):
        complete_object(ck, node.declarator, decayed(proto.result), f"the result of '{node.name}'")

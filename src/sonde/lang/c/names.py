"""Names that the text does not declare: helpers, builtins, enumeration constants of the kernel; and what naming a function entails."""

from __future__ import annotations

from ...debuginfo.ctype import CHAR, VOID, FuncProto, Param, Pointer, Qualified, strip
from ...probes.close import close_names
from . import ast
from .analysis import EnumConstant, FunctionSymbol
from .arithmetic import INT, LONG, UINT, ULLONG
from .types_decl import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .checker import Checker

# Functions of the C library that compilers know, and that the kernel's headers give to programs, too.
_LIBRARY = frozenset(["memcpy", "memmove", "memset", "memcmp", "strlen", "strcmp", "strncmp"])
_ENUMERATORS = (
    "BPF_MAP_TYPE_HASH",
    "BPF_ANY",
    "BPF_F_CURRENT_CPU",
    "XDP_PASS",
    "TCP_ESTABLISHED",
    "IPPROTO_TCP",
    "TASK_COMM_LEN",
)  # one of each enumeration that programs name most
_POINTER = Pointer(VOID)
_TEXT = Pointer(Qualified("const", CHAR))


def _proto(result: CType, *params: CType, variadic: bool = False) -> FuncProto:
    return FuncProto(result, tuple(Param("", p) for p in params), variadic)


# What BCC's rewriter, or the LLVM back end, makes of calls in its dialect; FunctionSymbol.builtin has the whole name.
BCC_FUNCTIONS = {
    "bpf_trace_printk": _proto(INT, _TEXT, variadic=True),
    "bpf_usdt_readarg": _proto(INT, INT, _POINTER, _POINTER),
    "bpf_usdt_readarg_p": _proto(INT, INT, _POINTER, _POINTER, ULLONG),
    "bpf_usdt_arg_cnt": _proto(INT, _POINTER),
    "bpf_usdt_arg_size": _proto(INT, INT, _POINTER),
    "bpf_num_cpus": _proto(INT),
    "load_byte": _proto(ULLONG, _POINTER, ULLONG),
    "load_half": _proto(ULLONG, _POINTER, ULLONG),
    "load_word": _proto(ULLONG, _POINTER, ULLONG),
    "load_dword": _proto(ULLONG, _POINTER, ULLONG),
    "bpf_dext_pkt": _proto(ULLONG, _POINTER, ULLONG, ULLONG, ULLONG),
    "bpf_dins_pkt": _proto(_POINTER, _POINTER, ULLONG, ULLONG, ULLONG, ULLONG),
    "incr_cksum_l3": _proto(INT, _POINTER, ULLONG, ULLONG),
    "incr_cksum_l4": _proto(INT, _POINTER, ULLONG, ULLONG, UINT),
    "bpf_l3_csum_replace_": _proto(INT, _POINTER, ULLONG, ULLONG, ULLONG, ULLONG),
    "bpf_l4_csum_replace_": _proto(INT, _POINTER, ULLONG, ULLONG, ULLONG, ULLONG),
    "cursor_advance": _proto(_POINTER, _POINTER, ULLONG),
    "lock_xadd": _proto(VOID, _POINTER, LONG),
}
USDT_FUNCTIONS = frozenset(["bpf_usdt_readarg", "bpf_usdt_arg_cnt", "bpf_usdt_arg_size"])


def find_foreign(ck: Checker, node: ast.Name) -> FunctionSymbol | EnumConstant:
    """Return what a name means that the text does not declare. Raises CompileError.

    What was found is declared in the file's scope, so that the next use finds it there.
    """
    found = get_function(ck, node)
    if found is None:
        enumerator = ck.environment.get_enumerator(node.name)
        if enumerator is None:
            raise undeclared(ck, node, "identifier")
        number, enum = enumerator
        made = EnumConstant(node.name, number, INT if -1 << 31 <= number < 1 << 31 else enum)
        ck.file_scope.names[node.name] = made
        return made
    return found


def get_function(ck: Checker, node: ast.Name) -> FunctionSymbol | None:
    """Return the helper, builtin or BCC function of this name, or None. Rules for builtins without a prototype come before this."""
    name = node.name
    made: FunctionSymbol | None = None
    if ck.dialect == "bcc" and name in BCC_FUNCTIONS:
        helper = "trace_printk" if name == "bpf_trace_printk" else ""
        made = FunctionSymbol(name, BCC_FUNCTIONS[name], node.span, helper=helper, builtin="" if helper else name)
    elif name.startswith("bpf_"):
        proto = ck.environment.get_helper(name)
        if proto is not None:
            made = FunctionSymbol(name, proto, node.span, helper=name[4:])
        elif ck.dialect != "bcc":  # vmlinux.h, as bpftool writes it, declares the kernel's functions for programs
            proto = ck.environment.get_kernel_function(name)
            if proto is not None:
                made = FunctionSymbol(name, proto, node.span, kfunc=name)
    elif (
        name.startswith("__builtin_") and name.removeprefix("__builtin_") in USDT_FUNCTIONS
    ):  # what libbpf's macros stand for
        plain = name.removeprefix("__builtin_")
        made = FunctionSymbol(name, BCC_FUNCTIONS[plain], node.span, builtin=plain)
    elif name.startswith("__builtin_") or name in _LIBRARY:
        proto = ck.environment.get_builtin(name)
        if proto is not None:
            made = FunctionSymbol(name, proto, node.span, builtin=name.removeprefix("__builtin_"))
    if made is not None:
        ck.file_scope.names[name] = made
    return made


def undeclared(ck: Checker, node: ast.Name, what: str) -> Exception:
    """Make the error about a name that means nothing. `what` is "identifier" or "function"."""
    name = node.name
    message = (
        f"use of undeclared identifier '{name}'" if what == "identifier" else f"call to undeclared function '{name}'"
    )
    seen = ck.scope.iter_names()
    if what == "identifier":
        names = [n for n in seen if not isinstance(ck.scope.find(n), FunctionSymbol)]
        for known in _ENUMERATORS if name.isupper() else ():
            found = ck.environment.get_enumerator(known)
            names += found[1].values if found is not None else ()
        return ck.fail(node, message, hint=did_you_mean(close_names(name, names)))
    if name.startswith("bpf_iter_") and ck.environment.btf is not None and ck.dialect != "bcc":
        release = ck.environment.target.release
        hint = f"the kernel {release} has no such iterator: bpf_for and bpf_repeat came with Linux 6.4; a plain loop, or bpf_loop(), does it"
        return ck.fail(node, message, hint=hint)
    if ck.environment.get_kernel_function(name) is not None:
        hint = f"{name} is a function of the kernel, which programs cannot call" + (
            "" if ck.dialect == "bcc" else "; a kfunc is declared with __ksym"
        )
        return ck.fail(node, message, hint=hint)
    functions = [n for n in seen if isinstance(ck.scope.find(n), FunctionSymbol)]
    return ck.fail(node, message, hint=did_you_mean(ck.environment.close_functions(name, functions)))


def use_function(ck: Checker, symbol: FunctionSymbol, node: ast.Node) -> None:
    """Note that the text names a function: its body, if that stands in a header, will be checked now; recursion is found by it."""
    if symbol.name in ck.waiting and symbol.definition is not None:
        ck.wanted.append(ck.waiting.pop(symbol.name))
    if ck.function is None:
        ck.named_functions.add(symbol)
    if ck.function is not None and not (symbol.helper or symbol.builtin or symbol.kfunc):
        ck.function.calls.setdefault(symbol, node)


def function_of(ck: Checker, node: ast.Expr) -> FunctionSymbol | None:
    """Return the function that an expression names, through `*` and `&`; None when it is something else."""
    while isinstance(node, ast.Unary) and node.op in ("*", "&"):
        node = node.operand
    found = ck.symbols.get(node)
    return found if isinstance(found, FunctionSymbol) else None


def is_function(ctype: CType) -> bool:
    """A function, or a pointer to one."""
    inner = strip(ctype)
    if isinstance(inner, Pointer):
        inner = strip(inner.target)
    return isinstance(inner, FuncProto)

"""The rules for builtins: `pid`, `args`, `kstack`, `arg0` and all other values that are read by name."""

from __future__ import annotations

from ...debuginfo.ctype import UINT64, VOID, Pointer
from .analysis import Type
from .builtins import argument_index, get_builtin, simple_type
from .stype import KStack, KSym, RecordType, UStack, USym
from .typing_state import CALLS, FLOW, SUGAR
from .typing_variables import default_space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from . import ast
    from .functions import Function
    from .typing_state import Typer

_ARGS_OF = frozenset(["tracepoint", "rawtracepoint", "fentry", "fexit", "uprobe"])
_RETVAL_OF = frozenset(["kretprobe", "uretprobe", "fentry", "fexit"])
_ARGN_OF = frozenset(["kprobe", "uprobe", "usdt", "rawtracepoint"])
_WITHOUT_PROBE = frozenset(["config", "curtask", "kstack", "ustack"])
_FUNC_OF = frozenset(["kprobe", "kretprobe", "uprobe", "uretprobe", "fentry", "fexit"])
DEFAULT_FRAMES = 127


def visit_builtin(typer: Typer, node: ast.Expr, name: str) -> Type | None:
    """A builtin is read, as `name` or `name()`."""
    function = get_builtin(name)
    assert function is not None
    if typer.subprogram and simple_type(name) is None and name not in _WITHOUT_PROBE:
        typer.error(node, f"Builtin {name} not supported outside probe")
        return None
    ctype = simple_type(name)
    if ctype is not None:
        info = typer.call(node, function)
        if name == "nsecs":
            info.params["clock"] = "boot"
        elif name == "usermode" and not typer.probe.context.registers:
            typer.constant(node, 1)  # where nothing was interrupted
        return Type(ctype)
    if argument_index(name) >= 0:
        return _argument(typer, node, function, argument_index(name))
    if argument_index(name, "sarg") >= 0:
        return _stack_argument(typer, node, function, argument_index(name, "sarg"))
    return _RULES[name](typer, node, function)


def provider(typer: Typer) -> str:
    """Return the type of the probe as the script writes it."""
    points = typer.probe.node.attach_points
    return points[0].parts[0] if points else typer.kind


def _argument(typer: Typer, node: ast.Expr, function: Function, index: int) -> Type | None:
    if typer.kind not in _ARGN_OF:
        message = f"The {function.name} builtin can only be used with 'kprobes', 'uprobes' and 'usdt' probes"
        typer.error(node, message, SUGAR)
        return None
    count = _argument_count(typer)
    if index >= count >= 0:
        message = f"{typer.target.arch} doesn't support {function.name}"
        if typer.kind == "usdt":
            message = f"this probe has only {count} arguments, there is no {function.name}"
        typer.error(node, message, FLOW)
        return None
    typer.call(node, function, (), index=index)
    return Type(UINT64, default_space(typer.kind))


def _argument_count(typer: Typer) -> int:
    """How many arguments a program reaches; -1 if that is not known."""
    context = typer.probe.context
    if context.kind == "regs":
        if typer.kind == "usdt":
            return len(context.usdt_args)
        return len(context.arg_offsets)
    if context.args is not None:
        return len(context.args.members)
    return -1


def _stack_argument(typer: Typer, node: ast.Expr, function: Function, index: int) -> Type | None:
    """`sargN` of old scripts: the arguments that a function finds on the stack, as Go once passed them."""
    if typer.probe.context.sp_offset < 0:
        typer.error(node, f"The {function.name} builtin can only be used with 'kprobes' and 'uprobes' probes", SUGAR)
        return None
    hint = f'Use *(reg("sp") + {8 * (index + 1)}) instead.'
    typer.warn(node, "sarg* is deprecated and will be removed in the future.", hint=hint)
    typer.call(node, function, (), index=index)
    return Type(UINT64, default_space(typer.kind))


def _args(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    kind = typer.kind
    if kind == "iter" and typer.probe.context.args is not None:
        typer.warn(node, "args of an iterator is deprecated", hint="Use ctx instead.")
        typer.call(node, function)
        return Type(typer.probe.context.args, "ctx")
    if kind not in _ARGS_OF:
        from ...probes.catalogue import probetype_name

        used = probetype_name(kind) if kind else "function"
        message = (
            "The args builtin can only be used with tracepoint, rawtracepoint, fentry/fexit, and uprobe probes "
            f"({used} used here)"
        )
        typer.error(node, message, FLOW)
        return None
    if typer.probe.context.args is None:
        name = typer.probe.probes[0].name
        hint = "the arguments are arg0, arg1 ... as numbers" if kind in _ARGN_OF else ""
        typer.error(node, f"the types of the arguments of {name} are not known", FLOW, hint=hint)
        return None
    typer.call(node, function)
    return Type(typer.probe.context.args, "ctx")


_CTX_STRUCTS = {"regs": "struct pt_regs", "perf_event": "struct bpf_perf_event_data"}


def _ctx(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    kind = typer.probe.context.kind
    if kind == "tracepoint":
        typer.error(node, "Use args instead of ctx in tracepoint", FLOW)
        return None
    if kind not in ("regs", "perf_event", "iter"):
        typer.error(node, f"The ctx builtin can not be used with '{provider(typer)}' probes", FLOW)
        return None
    typer.call(node, function)
    if kind == "iter" and typer.probe.context.args is not None:
        return Type(Pointer(typer.probe.context.args), "ctx")
    struct = typer.kernel_type(_CTX_STRUCTS.get(kind, ""))
    return Type(Pointer(struct if struct is not None else VOID), "ctx")


def _retval(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    if typer.kind not in _RETVAL_OF:
        message = "The retval builtin can only be used with 'kretprobe' and 'uretprobe' and 'fentry' probes"
        if typer.kind == "tracepoint":
            message += " (try to use args.ret instead)"
        typer.error(node, message, SUGAR)
        return None
    typer.call(node, function)
    space = default_space(typer.kind)
    if typer.kind not in ("fentry", "fexit"):
        return Type(UINT64, space)
    ctype = typer.probe.context.retval
    if ctype is None:
        typer.error(node, "Can't find a field $retval", FLOW)
        return None
    from .typing_fields import pointer_space, value_type

    value = value_type(ctype)
    return Type(value, pointer_space(value, "btf") if isinstance(value, Pointer) else space)


def _curtask(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    typer.call(node, function)
    task = typer.kernel_type("struct task_struct")
    return Type(Pointer(task if task is not None else VOID), "kernel")


def _func(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    if typer.kind not in _FUNC_OF:
        typer.error(node, f"The func builtin can not be used with '{provider(typer)}' probes", FLOW)
        return None
    typer.call(node, function)
    return Type(USym() if typer.kind in ("uprobe", "uretprobe") else KSym())


def _probe(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    from .stype import Str

    typer.call(node, function)
    names = [p.name for p in typer.probe.probes] or ["none"]
    if len(names) == 1:
        from .typing_operators import put_constant

        return put_constant(typer, node, names[0])
    return Type(Str(max(len(n.encode()) for n in names) + 1))


def _probetype(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    from ...probes.catalogue import probetype_name
    from .typing_operators import put_constant

    typer.call(node, function)
    return put_constant(typer, node, probetype_name(typer.kind) if typer.kind else "none")


def _kstack(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    mode = typer.config.stack_mode
    if mode == "build_id":
        typer.warn(node, "'build_id' stack mode can only be used for ustack. Falling back to 'raw' mode.")
        mode = "raw"
    typer.call(node, function, (), mode=mode, limit=DEFAULT_FRAMES)
    return Type(KStack(mode, DEFAULT_FRAMES))


def _ustack(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    mode = typer.config.stack_mode
    typer.call(node, function, (), mode=mode, limit=DEFAULT_FRAMES)
    return Type(UStack(mode, DEFAULT_FRAMES))


def _dw_ustack(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    typer.error(node, "dw_ustack is not supported yet", CALLS, hint="use ustack")
    return None


def _config(typer: Typer, node: ast.Expr, function: Function) -> Type | None:
    from .config import RECORD_FIELDS
    from .typing_operators import constant_type

    values = [getattr(typer.config, name) for name in RECORD_FIELDS]
    typer.call(node, function, (), values=tuple(values))
    typer.config_values[node] = values
    return Type(RecordType(RECORD_FIELDS, [constant_type(v).ctype for v in values]))


_RULES: dict[str, Callable[[Typer, ast.Expr, Function], Type | None]] = {
    "args": _args,
    "config": _config,
    "ctx": _ctx,
    "curtask": _curtask,
    "dw_ustack": _dw_ustack,
    "func": _func,
    "kstack": _kstack,
    "probe": _probe,
    "probetype": _probetype,
    "retval": _retval,
    "ustack": _ustack,
}

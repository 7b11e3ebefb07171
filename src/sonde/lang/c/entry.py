"""The way into a program: what its parameters are, by its type, its name, and the context that it gets in place of its own.

The first parameter is the context. Others are arguments of the traced function: they lie in registers, and those of a system call in
the registers of the caller, to which the only argument of the kernel's function points (the "inner" registers). A program that was written for a
system call's function may be attached to a tracepoint of that system call instead (`Entry.context`): then its registers are a fiction, and
what reads them is led to where the tracepoint has the same value.
"""

from __future__ import annotations

from ...compiler.access import usdt_argument
from ...compiler.ir import I64
from ...debuginfo.ctype import UINT64, Pointer, Struct, strip
from ...debuginfo.ptregs import get_ptregs
from .lower_frame import failure
from .lower_numbers import convert
from .lower_places import variable_place
from .types_decl import attribute_text
from .values import Place, Scalar, leads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Param, Value
    from ...debuginfo.ctype import CType
    from ...debuginfo.ptregs import PtRegs
    from ...errors import Span
    from .analysis import Access, FunctionSymbol, Variable
    from .lower import Program
    from .lower_frame import Frame

_MOST = 6  # parameters besides the context that registers hold
_MOST_SLOTS = 12  # that a trampoline passes on, with the result of the function
_SYSCALL_NAMES = ("syscall__", "kprobe____x64_sys_", "kprobe____arm64_sys_")
_SYSCALL_FOURTH = {
    "x86_64": "r10"
}  # the register that a system call has its fourth argument in, where it is another than a function's
_NUMBER = {"x86_64": ("orig_ax", -1), "aarch64": ("", 280)}  # where struct pt_regs has the number of the system call
_REGISTERS = "pt_regs"
_TRUSTED = frozenset(["tracing", "lsm", "struct_ops"])
_SLOTS = frozenset(
    ["tracing", "lsm", "raw_tracepoint", "raw_tracepoint_writable", "struct_ops"]
)  # programs that get an array of arguments


def start(f: Frame, ctx: Param) -> None:
    """Give the parameters of a program their values."""
    params = f.symbol.params
    f.ctx = ctx
    if f.program.entry.context in ("raw_enter", "raw_exit"):
        _leave_other_calls(f, ctx)
    if not params:
        return
    f.store_value(variable_place(f, params[0]), ctx)
    rest = params[1:]
    if not rest:
        return
    slots = f.program.entry.type in _SLOTS
    most = _MOST_SLOTS if slots else _MOST
    if len(rest) > most:
        raise failure(rest[most].span, f"a program takes at most {most} arguments besides its context")
    used = f.program.spaces.flow(f.program.analysis.functions[f.symbol.name]).used
    wanted = [p if p in used else None for p in rest]
    way = arguments_word(f.symbol)
    if way != "kretprobe" and (f.program.entry.context or (not slots and way != "usdt")):
        _from_registers(f, ctx, wanted)
        return
    load = _load_slot if slots else _load_result if way == "kretprobe" else _load_usdt
    for i, param in enumerate(wanted):
        if param is not None:
            value = load(f, ctx, i, param)
            space = f.spaces.variables.get(param, "")
            f.store(variable_place(f, param), convert(f, Scalar(value, UINT64, space), param.ctype))


def arguments_word(symbol: FunctionSymbol) -> str:
    """How the text wants the parameters behind the context to be had (`bpf_args`): "tracing", "kprobe", "kretprobe", "ksyscall", "usdt", ""."""
    node = symbol.definition
    return (
        "" if node is None else attribute_text((*node.specifiers.attributes, *node.declarator.attributes), "bpf_args")
    )


def _load_slot(f: Frame, ctx: Value, index: int, param: Variable) -> Value:
    """A trampoline, like a raw tracepoint, gives the address of the arguments, eight bytes each; the result is the last."""
    return f.b.load(I64, ctx, 8 * index)


def _load_result(f: Frame, ctx: Value, index: int, param: Variable) -> Value:
    if index:
        raise failure(
            param.span, "when a function returns only its result is known", "keep arguments in a map at its entry"
        )
    if f.program.entry.context.endswith("enter"):
        raise failure(param.span, "the result is not known when a system call begins")
    if f.program.entry.context:
        place = _result_place(f, UINT64)
        return f.b.load(I64, place.pointer, place.offset)
    regs = _registers(f)
    return f.b.load(I64, ctx, regs.get_offset(regs.result))


def _load_usdt(f: Frame, ctx: Value, index: int, param: Variable) -> Value:
    known = f.program.entry.usdt
    if index >= len(known):
        raise failure(param.span, f"there is no USDT argument {index + 1}: the probe has {len(known)}")
    return usdt_argument(f.b, ctx, known[index])


def parameter_space(program: Program, symbol: FunctionSymbol, index: int) -> str:
    """Where a pointer leads that a program is given as argument `index` behind its context.

    The verifier trusts those of trampolines that point to structs; those of system calls lead to user memory.
    """
    entry = program.entry
    if entry.context in ("sys_enter", "raw_enter") and not index and is_registers(symbol.params[1].ctype):
        return "inner" if entry.context == "sys_enter" else "kernel"
    if entry.context or is_syscall(program, symbol.name):
        return "user"
    if entry.type in _TRUSTED and _is_struct_pointer(program, index):
        return leads(symbol.params[index + 1].ctype, "slot", program.external)
    return program.external


def _is_struct_pointer(program: Program, index: int) -> bool:
    """Tell whether the function that a trampoline is for really has a pointer to a struct there; True where nobody knows."""
    entry = program.entry
    if entry.attach_type not in ("trace_fentry", "trace_fexit", "modify_return"):
        return True
    proto = program.target.btf().get_func(entry.attach_btf)
    if proto is None or index >= len(proto.params):
        return True
    pointer = strip(proto.params[index].ctype)
    return isinstance(pointer, Pointer) and isinstance(strip(pointer.target), Struct)


def _from_registers(f: Frame, ctx: Value, params: list[Variable | None]) -> None:
    """Load parameters from the registers that the traced function got them in."""
    regs = _registers(f)
    entry = f.program.entry
    if entry.returns:
        _from_return(f, ctx, params)
        return
    inner: Value | None = None
    if entry.context in ("", "raw_enter") and (entry.context or is_syscall(f.program, f.symbol.name)):
        inner = inner_registers(f, ctx)
    for i, param in enumerate(params):
        if param is None:
            continue
        if not i and entry.context in ("sys_enter", "raw_enter") and is_registers(param.ctype):
            f.store(variable_place(f, param), inner_pointer(f, param.ctype))
            continue
        if entry.context == "sys_enter":
            place = _argument_place(f, i, UINT64, param.span)
            value: Value = f.b.load(I64, place.pointer, place.offset)
        elif entry.context.endswith("exit"):
            if (
                i == len(params) - 1 and arguments_word(f.symbol) == "tracing"
            ):  # written for the exit of the call's function
                place = _result_place(f, UINT64)
                value = f.b.load(I64, place.pointer, place.offset)
            else:
                message = "arguments are not known when a system call returns"
                raise failure(param.span, message, "keep them in a map at its entry")
        elif inner is not None:
            value = _read_inner(f, inner, regs.get_offset(_syscall_register(f, regs, i)), param.name)
        else:
            value = f.b.load(I64, ctx, regs.get_offset(regs.args[i]))
        f.store(variable_place(f, param), convert(f, Scalar(value, UINT64), param.ctype))


def _from_return(f: Frame, ctx: Value, params: list[Variable | None]) -> None:
    """A function that was written for the exit of a function runs at its return, where only the result, its last parameter, is known."""
    regs = _registers(f)
    for param in params[:-1]:
        if param is not None:
            message = f"argument {param.name} is not known when a function returns, and a trampoline cannot be had here"
            raise failure(param.span, message, "keep it in a map at the function's entry")
    if params and params[-1] is not None:
        value = f.b.load(I64, ctx, regs.get_offset(regs.result))
        f.store(variable_place(f, params[-1]), convert(f, Scalar(value, UINT64), params[-1].ctype))


def _registers(f: Frame) -> PtRegs:
    target = f.program.target
    regs = get_ptregs(target.arch)
    if regs is None:
        raise failure(f.symbol.span, f"the registers of {target.arch} are not known")
    return regs


def _syscall_register(f: Frame, regs: PtRegs, index: int) -> str:
    return _SYSCALL_FOURTH.get(f.program.target.arch, regs.args[3]) if index == 3 else regs.args[index]


def _read_inner(f: Frame, inner: Value, offset: int, name: str) -> Value:
    slot = f.b.alloca(8, 8, name)
    f.b.call(f.program.reader("kernel"), [slot, 8, f.b.binary("add", inner, offset)])
    return f.b.load(I64, slot)


def is_syscall(program: Program, name: str) -> bool:
    """Tell whether the function is written for a system call's function, whose only argument points to the caller's registers."""
    if arguments_word(program.analysis.functions[name].symbol) == "ksyscall":
        return True
    return name.startswith(_SYSCALL_NAMES) and program.target.arch in ("x86_64", "aarch64")


def inner_registers(f: Frame, ctx: Value) -> Value:
    """The address of the registers of a system call's caller."""
    if f.program.entry.context in ("raw_enter", "raw_exit"):
        return f.b.load(I64, ctx, 0)
    regs = _registers(f)
    return f.b.load(I64, ctx, regs.get_offset(regs.args[0]))


def _leave_other_calls(f: Frame, ctx: Value) -> None:
    """A raw tracepoint sees every system call: the program ends at once where it is not the one that was asked for."""
    b = f.b
    if f.program.entry.context == "raw_enter":
        number: Value = b.load(I64, ctx, 8)
    else:
        name, offset = _NUMBER[f.program.target.arch]
        offset = _registers(f).get_offset(name) if name else offset
        slot = b.alloca(8, 8, "number")
        b.call(f.program.reader("kernel"), [slot, 8, b.binary("add", b.load(I64, ctx, 0), offset)])
        number = b.load(I64, slot)
    go, leave = b.new_block("wanted"), b.new_block("other")
    b.branch(b.binary("eq", b.convert("trunc", number, "i32"), f.program.entry.number), go, leave)
    b.at(leave)
    b.ret(0)
    b.at(go)


# Registers that are not there -------------------------------------------------------------------------------------


def is_fiction(program: Program, base: Place, access: Access) -> bool:
    """Tell whether a member of `base` is a register that the program's context does not have."""
    return bool(program.entry.context) and base.space in ("ctx", "inner") and access.struct.name == _REGISTERS


def register_place(f: Frame, base: Place, access: Access, ctype: CType, span: Span) -> Place:
    """Where the value lies that a register of a system call's function, or of its caller, would have."""
    regs = _registers(f)
    name = access.field.member.name
    context = f.program.entry.context
    if context in ("sys_exit", "raw_exit"):
        if name != regs.result and not (name == "regs" and f.program.target.arch == "aarch64"):
            raise failure(
                span, f"register {name} is not known when a system call returns", "only its result is (PT_REGS_RC)"
            )
        return _result_place(f, ctype)
    arguments = {register: i for i, register in enumerate(regs.args)}
    arguments[_syscall_register(f, regs, 3)] = 3
    index = arguments.get(name)
    if index is None or index >= _MOST:
        raise failure(span, f"register {name} is not known at a system call's tracepoint", "only its arguments are")
    if context == "sys_enter":
        return _argument_place(f, index, ctype, span)
    assert f.ctx is not None
    inner = inner_registers(f, f.ctx)
    return Place(inner, regs.get_offset(_syscall_register(f, regs, index)), ctype, "kernel")


def _argument_place(f: Frame, index: int, ctype: CType, span: Span) -> Place:
    """An argument in the record of the tracepoint syscalls:sys_enter_EVENT."""
    event = f.program.entry.event
    form = f.program.target.tracepoint("syscalls", f"sys_enter_{event}")
    fields = [field for field in form.fields if not field.common and field.name not in ("__syscall_nr", "nr")]
    if index >= len(fields):
        raise failure(span, f"system call {event} has {len(fields)} arguments, and this reads number {index + 1}")
    assert f.ctx is not None
    return Place(f.ctx, fields[index].offset, ctype, "ctx")


def _result_place(f: Frame, ctype: CType) -> Place:
    """The result of the system call, in the record of sys_exit_EVENT or as second argument of the raw tracepoint."""
    assert f.ctx is not None
    if f.program.entry.context == "raw_exit":
        return Place(f.ctx, 8, ctype, "ctx")
    form = f.program.target.tracepoint("syscalls", f"sys_exit_{f.program.entry.event}")
    field = form.get_field("ret")
    return Place(f.ctx, field.offset if field is not None else 16, ctype, "ctx")


def inner_pointer(f: Frame, ctype: CType) -> Scalar:
    """The first argument of a system call's function, once it is taken for a pointer to the caller's registers."""
    assert f.ctx is not None
    if f.program.entry.context == "raw_enter":
        return Scalar(inner_registers(f, f.ctx), ctype, "kernel")
    return Scalar(f.ctx, ctype, "inner")


def is_registers(ctype: CType) -> bool:
    """Tell whether a type is a pointer to struct pt_regs."""
    pointer = strip(ctype)
    target = strip(pointer.target) if isinstance(pointer, Pointer) else None
    return isinstance(target, Struct) and target.name == _REGISTERS

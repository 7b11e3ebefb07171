"""Arguments of helpers and kernel functions, each kind by its own check: see `bpf.helpers` for the kinds, `kfuncs` for those of kernel functions."""

from __future__ import annotations

from . import memory, scalar, stackobjects
from .maprules import check_map
from .problem import Problem
from .state import IN_RCU, TRUSTED, UNTRUSTED, Reg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..helpers import Helper
    from .explore import Walker
    from .state import State

MAX_SIZE = 1 << 29


class Call:
    """One call under way: what its arguments said of each other. `released` is what the call gives back, `made` what it makes on the stack."""

    __slots__ = ("allocated", "helper", "made", "parent", "pointer", "released", "table")

    def __init__(self, helper: Helper) -> None:
        self.helper = helper
        self.table: object = None
        self.allocated = 0
        self.released = 0
        self.parent = 0  # what the result belongs to
        self.pointer: Reg | None = None  # the iterator, timer or kernel pointer that it works on
        self.made: Callable[[], None] | None = None


def check_argument(walker: Walker, state: State, call: Call, index: int, kind: str, following: str) -> None:
    reg = state.regs[index]
    plain = kind.rstrip("?")
    if reg.kind == "none":
        raise Problem(f"argument {index} of bpf_{call.helper.name}, r{index}, was never written")
    if plain in ("mem", "mem_out", "mem_rw"):
        _check_sized(walker, state, call, index, plain, following)
        return
    if kind.endswith("?") and reg.kind == "scalar" and reg.number.const == 0:
        return
    name, _, rest = plain.partition(":")
    check = _ARGUMENTS.get(name)
    if check is None:
        raise Problem(f"bpf_{call.helper.name} takes a {plain}, whose use cannot be shown to be safe here")
    try:
        check(walker, state, call, reg, rest)
    except Problem as problem:
        raise Problem(f"argument {index} of bpf_{call.helper.name}: {problem.message}", problem.wants) from None


def _check_sized(walker: Walker, state: State, call: Call, index: int, kind: str, following: str) -> None:
    """Memory, whose size is the next argument."""
    reg, size = state.regs[index], state.regs[index + 1]
    where = f"bpf_{call.helper.name}"
    if size.kind != "scalar":
        raise Problem(f"argument {index + 1} of {where} must be a number of bytes, not {size}")
    if size.number.smin < 0:
        raise Problem(
            f"the size for {where} may be negative: {size.number}", "use an unsigned size, or compare it with 0 first"
        )
    if size.number.umin == 0 and following == "size":
        raise Problem(f"the size for {where} may be 0: {size.number}", "compare it with 0 first")
    if size.number.umax > MAX_SIZE:
        raise Problem(
            f"the size for {where} is not limited: {size.number}",
            "limit it before the call: compare it, or mask it with &",
        )
    if size.number.const == 0:
        return
    if following == "const_size" and size.number.const is None:
        raise Problem(f"the size for {where} must be known, not {size.number}")
    call.allocated = size.number.umax
    try:
        memory.check_region(walker, state, reg, size.number.umax, write=kind != "mem", fresh=kind == "mem_out")
    except Problem as problem:
        raise Problem(f"argument {index} of {where}: {problem.message}", problem.wants) from None


def _context(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind != "ctx" or reg.off or reg.number.const != 0:
        raise Problem(f"it must be the context as the program got it, not {reg}")


def _map(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind != "map":
        raise Problem(f"it must be a map, not {reg}")
    call.table = reg.thing
    check_map(call.helper.name, reg.thing)  # type: ignore[arg-type]


def _key(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    memory.check_region(walker, state, reg, call.table.key_size, write=False)  # type: ignore[attr-defined]


def _value(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    memory.check_region(walker, state, reg, call.table.value_size, write=False)  # type: ignore[attr-defined]


def _value_out(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    memory.check_region(walker, state, reg, call.table.value_size, write=True, fresh=True)  # type: ignore[attr-defined]


def _number(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    """Any number; an address as a number, too: helpers that read it check it themselves."""


def _size(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    """Checked with the memory before it."""


def _alloc_size(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    size = reg.number.const if reg.kind == "scalar" else None
    if size is None or size > MAX_SIZE:
        raise Problem(f"it must be a known number of bytes, not {reg}")
    call.allocated = size


def _function(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind != "func":
        raise Problem(f"it must be a function, not {reg}")


def _stack_or_null(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if not (reg.kind == "stack" or (reg.kind == "scalar" and reg.number.const == 0)):
        raise Problem(f"it must lead to the stack, or be 0, not {reg}")


def _record(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind != "mem" or reg.ident not in state.held or reg.off or reg.number.const != 0:
        raise Problem(f"it must be what bpf_ringbuf_reserve returned, not {reg}")
    call.released = reg.ident


def _kernel_pointer(least: tuple[int, ...]) -> Callable[[Walker, State, Call, Reg, str], None]:
    """A pointer to a kernel struct that is trusted enough."""

    def check(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
        if reg.kind != "btf" or reg.off or reg.number.const != 0 or reg.thing.name not in rest.split("|"):  # type: ignore[attr-defined]
            wanted = f"a pointer to struct {rest.replace('|', ' or ')}"
            hint = "compare it with null first" if reg.may_be_null else ""
            raise Problem(f"it must be {wanted}, not {reg}", hint)
        if reg.ident not in state.held and reg.size not in least:
            raise Problem(
                f"{reg} was loaded from memory, and may be gone by now",
                "use a pointer that the kernel handed to the program, or one that was acquired",
            )
        call.parent = call.parent or reg.parent

    return check


def _released_pointer(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind != "btf" or reg.ident not in state.held or reg.off or reg.thing.name not in rest.split("|"):  # type: ignore[attr-defined]
        raise Problem(f"it must be a pointer to struct {rest} that was acquired and not yet given back, not {reg}")
    call.released = reg.ident


_SOCKETS = (
    "sock",
    "sock_common",
    "tcp_sock",
    "tcp6_sock",
    "udp6_sock",
    "unix_sock",
    "tcp_timewait_sock",
    "tcp_request_sock",
    "mptcp_sock",
    "inet_sock",
)


def _socket(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind == "object" and reg.thing in ("socket", "sock_common", "tcp_sock"):
        call.parent = reg.ident if reg.ident in state.held else reg.parent
        return
    _kernel_pointer((1, TRUSTED, IN_RCU))(walker, state, call, reg, "|".join(_SOCKETS))


def _released_socket(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind not in ("object", "btf") or reg.ident not in state.held or reg.off:
        raise Problem(f"it must be a socket that was looked up and not yet given back, not {reg}")
    call.released = reg.ident


# What only helpers may touch in a map's value ---------------------------------------------------------------------


def _field(what: str) -> Callable[[Walker, State, Call, Reg, str], None]:
    def check(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
        found = memory.special_at(reg, 0) if reg.kind == "value" else ""
        if found.partition(":")[0] != what:
            raise Problem(f"it must lead to a {what.replace('_', ' ')} in the value of a map, not to {reg}")
        if what in ("spin_lock", "timer") and walker.context.name in _NO_LOCKS:
            raise Problem(
                f"programs of type {walker.context.name} may interrupt whoever holds it, so that they may not use a {what.replace('_', ' ')}"
            )
        call.pointer = reg

    return check


_NO_LOCKS = frozenset(
    ["kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable", "socket_filter"]
)


def _exchanged(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    """What bpf_kptr_xchg puts into the map: null, or what was acquired."""
    assert call.pointer is not None
    wanted = memory.special_at(call.pointer, 0).partition(":")[2]
    _released_pointer(walker, state, call, reg, wanted)


# Dynptrs and iterators --------------------------------------------------------------------------------------------


def _dynptr(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    call.parent = stackobjects.find_dynptr(state, reg).ident


def _new_dynptr(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    stackobjects.check_unused(state, reg)
    origin = "ringbuf" if call.helper.name.startswith("ringbuf") else "local"
    if origin == "local" and not call.helper.name.startswith("dynptr_from_mem"):
        raise Problem("dynptrs over packets cannot be followed here")
    if origin == "local" and state.regs[1].kind != "value":
        raise Problem(f"a dynptr leads into a map's value, not to {state.regs[1]}")
    call.made = lambda: stackobjects.make_dynptr(walker, state, reg, origin)


def _released_dynptr(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    found = stackobjects.find_dynptr(state, reg)
    if found.parent not in state.held:
        raise Problem("it must be a dynptr from bpf_ringbuf_reserve_dynptr that was not given back yet")
    call.released = found.parent
    state.release(found.ident)


def _new_iterator(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    call.made = lambda: stackobjects.make_iterator(walker, state, reg, rest)


def _iterator(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    call.pointer = stackobjects.find_iterator(state, reg, rest)


def _ended_iterator(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    call.released = stackobjects.find_iterator(state, reg, rest).ident


def _constant_string(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind != "value" or not reg.thing.read_only or reg.number.const is None:  # type: ignore[attr-defined]
        raise Problem(f"it must be a string in a read-only map, not {reg}")
    text = reg.thing.initial  # type: ignore[attr-defined]
    if b"\0" not in text[reg.off + scalar.to_signed(reg.number.const) :]:
        raise Problem("the string has no end")


_FIXED = {"strtol": 8, "strtoul": 8, "check_mtu": 4, "kallsyms_lookup_name": 8, "get_func_arg": 8, "get_func_ret": 8}


def _fixed(write: bool, fresh: bool) -> Callable[[Walker, State, Call, Reg, str], None]:
    def check(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
        size = _FIXED.get(call.helper.name, 0)
        if not size:
            raise Problem("how much memory it takes is not known here")
        memory.check_region(walker, state, reg, size, write=write, fresh=fresh)

    return check


_ARGUMENTS: dict[str, Callable[[Walker, State, Call, Reg, str], None]] = {
    "ctx": _context,
    "map": _map,
    "key": _key,
    "value": _value,
    "value_out": _value_out,
    "scalar": _number,
    "size": _size,
    "size0": _size,
    "const_size": _size,
    "alloc_size": _alloc_size,
    "func": _function,
    "stack": _stack_or_null,
    "record": _record,
    "btf": _kernel_pointer((1, TRUSTED, IN_RCU)),
    "trusted": _kernel_pointer((TRUSTED,)),
    "rcu": _kernel_pointer((TRUSTED, IN_RCU)),
    "untrusted": _kernel_pointer((UNTRUSTED, 1, TRUSTED, IN_RCU)),
    "release": _released_pointer,
    "sock": _socket,
    "sock_release": _released_socket,
    "spin_lock": _field("spin_lock"),
    "timer": _field("timer"),
    "kptr": _field("kptr"),
    "exchanged": _exchanged,
    "dynptr": _dynptr,
    "dynptr_out": _new_dynptr,
    "dynptr_release": _released_dynptr,
    "iter_new": _new_iterator,
    "iter": _iterator,
    "iter_end": _ended_iterator,
    "const_str": _constant_string,
    "fixed": _fixed(False, False),
    "fixed_out": _fixed(True, True),
    "fixed_rw": _fixed(True, False),
}

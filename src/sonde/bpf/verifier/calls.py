"""Calls of helpers: the arguments against the prototypes of `bpf.helpers`, the result, and what the program holds from then on."""

from __future__ import annotations

from ..helpers import HELPERS
from . import memory, scalar
from .maprules import check_map
from .problem import Problem
from .state import NONE, UNKNOWN, ZERO, Reg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..helpers import Helper
    from .explore import Walker
    from .state import State

MAX_SIZE = 1 << 29
_CALLBACKS = {
    "loop": 181,
    "for_each_map_elem": 164,
    "timer_set_callback": 170,
    "find_vma": 180,
    "user_ringbuf_drain": 209,
}

# Helpers that may move the packet: what was known of it, and addresses in it, are void afterwards. As `bpf_helper_changes_pkt_data`.
_MOVES_PACKET = frozenset(
    [
        "clone_redirect",
        "l3_csum_replace",
        "l4_csum_replace",
        "lwt_push_encap",
        "lwt_seg6_action",
        "lwt_seg6_adjust_srh",
        "lwt_seg6_store_bytes",
        "msg_pop_data",
        "msg_pull_data",
        "msg_push_data",
        "reserve_hdr_opt",
        "skb_adjust_room",
        "skb_change_head",
        "skb_change_proto",
        "skb_change_tail",
        "skb_pull_data",
        "skb_store_bytes",
        "skb_vlan_pop",
        "skb_vlan_push",
        "store_hdr_opt",
        "tail_call",
        "xdp_adjust_head",
        "xdp_adjust_meta",
        "xdp_adjust_tail",
        "xdp_store_bytes",
    ]
)


class Call:
    """One call under way: what its arguments said of each other."""

    __slots__ = ("allocated", "helper", "released", "table")

    def __init__(self, helper: Helper) -> None:
        self.helper = helper
        self.table: object = None
        self.allocated = 0
        self.released = 0


def call_helper(walker: Walker, state: State, ident: int) -> None:
    """Check a call and put its result into r0. Raises Problem."""
    helper = HELPERS.get(ident)
    if helper is None:
        raise Problem(f"there is no helper {ident}")
    if not walker.allows(helper):
        raise Problem(f"bpf_{helper.name} is not for programs of type {walker.context.name}")
    call = Call(helper)
    for index, kind in enumerate(helper.args):
        following = helper.args[index + 1] if index + 1 < len(helper.args) else ""
        _check_argument(walker, state, call, index + 1, kind, following)
    if helper.name in _CALLBACKS:
        from .callbacks import enter_callback

        if enter_callback(walker, state, call):
            return
    if call.released:
        _release(state, call.released)
    result = _result(walker, state, call)
    for index in range(1, 6):
        state.regs[index] = NONE
    state.regs[0] = result
    if helper.name == "tail_call":
        _leave_by_tail_call(walker, state)
    elif helper.name in _MOVES_PACKET:
        state.forget_packet()


def _leave_by_tail_call(walker: Walker, state: State) -> None:
    """Another program takes the place of the function that runs; that one returns to the caller, if there is one. Raises Problem."""
    if state.held:
        raise Problem("the program may end in this tail call, but holds a ring buffer record", "give it back before")
    if any(frame.callback is not None for frame in state.frames):
        raise Problem("a function that a helper calls may not end in a tail call")
    if len(state.frames) > 1:
        gone = state.copy()
        frame = gone.frames.pop()
        gone.forget_packet()
        gone.regs[:6] = [UNKNOWN] + [NONE] * 5
        walker.push(gone, frame.return_pc)


def _release(state: State, ident: int) -> None:
    """A reference has been given back: nothing that leads there may be used any more."""
    state.held -= {ident}
    state.map_regs(ident, lambda reg: NONE)


# Arguments --------------------------------------------------------------------------------------------------------


def _check_argument(walker: Walker, state: State, call: Call, index: int, kind: str, following: str) -> None:
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


def _object(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind == "btf" and not reg.off and reg.number.const == 0:
        wanted = rest
        if not wanted or reg.thing.name == wanted:  # type: ignore[attr-defined]
            return
    raise Problem(f"it must be a pointer to struct {rest or 'sock'}, not {reg}")


def _constant_string(walker: Walker, state: State, call: Call, reg: Reg, rest: str) -> None:
    if reg.kind != "value" or not reg.thing.read_only or reg.number.const is None:  # type: ignore[attr-defined]
        raise Problem(f"it must be a string in a read-only map, not {reg}")
    text = reg.thing.initial  # type: ignore[attr-defined]
    if b"\0" not in text[reg.off + scalar.to_signed(reg.number.const) :]:
        raise Problem("the string has no end")


_FIXED = {"strtol": 8, "strtoul": 8, "check_mtu": 4, "skb_get_tunnel_key": 0}


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
    "alloc_size": _alloc_size,
    "func": _function,
    "stack": _stack_or_null,
    "record": _record,
    "btf": _object,
    "const_str": _constant_string,
    "fixed": _fixed(False, False),
    "fixed_out": _fixed(True, True),
    "fixed_rw": _fixed(True, False),
}


# Results ----------------------------------------------------------------------------------------------------------

# Limits of numbers that helpers return, beyond "any number": (smallest, largest).
_RESULTS: dict[str, tuple[int, int]] = {
    "get_smp_processor_id": (0, 8191),
    "get_current_comm": (-4095, 0),
    "probe_read": (-4095, 0), "probe_read_user": (-4095, 0), "probe_read_kernel": (-4095, 0),
    "loop": (-4095, 1 << 23),
}  # fmt: skip
# Those that return how many bytes of their size argument they filled: (argument with the size).
_COUNTS = {
    "probe_read_str": 2,
    "probe_read_user_str": 2,
    "probe_read_kernel_str": 2,
    "get_stack": 3,
    "get_task_stack": 3,
    "d_path": 3,
}


def _result(walker: Walker, state: State, call: Call) -> Reg:
    name, kind = call.helper.name, call.helper.result
    plain = kind.rstrip("?")
    null = "?" if kind.endswith("?") else ""
    if plain == "value":
        return _found_value(walker, call)
    if plain in ("mem", "record"):
        ident = walker.new_ident()
        if plain == "record":
            state.held |= {ident}
        return Reg("mem" + null, ZERO, 0, None, call.allocated, ident)
    if plain.startswith("btf:"):
        struct = walker.find_struct(plain[4:])
        return Reg("btf" + null, thing=struct, ident=walker.new_ident()) if struct is not None else UNKNOWN
    if plain in ("socket", "sock_common", "tcp_sock", "percpu_mem"):
        if plain in ("socket",) and name.startswith(("sk_lookup", "skc_lookup")):
            raise Problem(f"the socket that bpf_{name} returns must be given back, which cannot be followed here")
        return Reg("object" + null, thing=plain, ident=walker.new_ident())
    if plain == "void":
        return NONE
    if name in _COUNTS:
        return Reg("scalar", scalar.of_signed_range(-4095, max(state.regs[_COUNTS[name]].number.umax, 0)))
    if name in _RESULTS:
        return Reg("scalar", scalar.of_signed_range(*_RESULTS[name]))
    return Reg("scalar", scalar.UNKNOWN)


def _found_value(walker: Walker, call: Call) -> Reg:
    """What a look-up found. Entry by a known index of an array is never null, but must be compared all the same."""
    table = call.table
    inner = getattr(table, "inner", None)
    if inner is not None:
        return Reg("map?", thing=inner, ident=walker.new_ident())
    return Reg("value?", thing=table, ident=walker.new_ident())

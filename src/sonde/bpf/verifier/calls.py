"""Calls of helpers: the arguments against the prototypes of `bpf.helpers`, the result, and what the program holds from then on."""

from __future__ import annotations

from ..helpers import HELPERS
from . import memory, scalar
from .arguments import Call, check_argument
from .callbacks import enter_callback
from .problem import Problem
from .state import IN_RCU, NONE, TRUSTED, UNKNOWN, ZERO, Reg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..helpers import Helper
    from .explore import Walker
    from .state import State

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


_POISON = 0xBAD2310  # what loaders, libbpf's too, call where CO-RE has no answer
_NO_ANSWER = "what this instruction asks about the kernel's types (CO-RE) has no answer on this kernel"


def call_helper(walker: Walker, state: State, ident: int) -> None:
    """Check a call and put its result into r0. Raises Problem."""
    helper = HELPERS.get(ident)
    if helper is None:
        raise Problem(
            _NO_ANSWER if ident == _POISON else f"there is no helper {ident}",
            "ask first, with bpf_core_field_exists or the like" if ident == _POISON else "",
        )
    if not walker.allows(helper):
        raise Problem(f"bpf_{helper.name} is not for programs of type {walker.context.name}")
    if state.lock is not None and helper.name != "spin_unlock":
        raise Problem(f"bpf_{helper.name} is called while a spin lock is held", "call bpf_spin_unlock before")
    _check_sleeping(state, helper)
    call = Call(helper)
    check_arguments(walker, state, call, helper.args if helper.name != "kptr_xchg" else ("kptr", "exchanged?"))
    if "func" in helper.args:
        enter_callback(walker, state, call)
        return
    finish_call(walker, state, call)
    if helper.name == "tail_call":
        _leave_by_tail_call(walker, state)
    elif helper.name in _MOVES_PACKET:
        state.forget_packet()


def _check_sleeping(state: State, helper: Helper) -> None:
    if "sleeps" in helper.flags and (state.rcu or state.preempt):
        raise Problem(f"bpf_{helper.name} may sleep, which is not allowed where RCU is locked or preemption disabled")


def check_arguments(walker: Walker, state: State, call: Call, kinds: tuple[str, ...]) -> None:
    """Check what a call is given. Raises Problem."""
    for index, kind in enumerate(kinds):
        following = kinds[index + 1] if index + 1 < len(kinds) else ""
        check_argument(walker, state, call, index + 1, kind, following)


def finish_call(walker: Walker, state: State, call: Call) -> None:
    """Do what the call does, and put its result into r0. Raises Problem."""
    if call.helper.name in ("spin_lock", "spin_unlock", "timer_init"):
        _use_field(state, call)
    result = _result(walker, state, call)
    if call.released:
        state.release(call.released)
    if call.made is not None:
        call.made()
    for index in range(1, 6):
        state.regs[index] = NONE
    state.regs[0] = result


def _use_field(state: State, call: Call) -> None:
    """Locks and timers in a map's value."""
    field, name = call.pointer, call.helper.name
    assert field is not None
    if name == "timer_init":
        if field.thing is not call.table:
            raise Problem("the timer is not in the map that bpf_timer_init is given")
        return
    held = state.lock
    if name == "spin_lock":
        if held is not None:
            raise Problem("a spin lock is held already", "call bpf_spin_unlock before")
        state.lock = field
        return
    if held is None:
        raise Problem("no spin lock is held here", "call bpf_spin_lock before, on every path that leads here")
    if held.thing is not field.thing or held.ident != field.ident or held.off != field.off:
        raise Problem("this is another lock than the one that is held")
    state.lock = None


def check_nothing_held(state: State, when: str) -> None:
    """Check that what was taken was given back. Raises Problem."""
    if state.lock is not None:
        raise Problem(f"{when}, but holds a spin lock", "call bpf_spin_unlock on every path")
    if state.rcu or state.preempt:
        what = "an RCU read lock" if state.rcu else "preemption off"
        raise Problem(f"{when}, but holds {what}", "give it back on every path")
    if state.held:
        raise Problem(
            f"{when}, but holds a ring buffer record, or another reference",
            "give it back on every path: bpf_ringbuf_submit or bpf_ringbuf_discard for a record, the release function for what was acquired",
        )


def _leave_by_tail_call(walker: Walker, state: State) -> None:
    """Another program takes the place of the function that runs; that one returns to the caller, if there is one. Raises Problem."""
    check_nothing_held(state, "the program may end in this tail call")
    if any(frame.callback is not None for frame in state.frames):
        raise Problem("a function that a helper calls may not end in a tail call")
    if len(state.frames) > 1:
        gone = state.copy()
        frame = gone.frames.pop()
        gone.forget_packet()
        gone.regs[:6] = [UNKNOWN] + [NONE] * 5
        walker.push(gone, frame.return_pc)


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
        return Reg("mem" + null, ZERO, 0, None, call.allocated, ident, call.parent)
    if plain.startswith("btf"):
        return _found_struct(walker, state, call, plain[4:], null)
    if plain in ("socket", "sock_common", "tcp_sock"):
        ident = walker.new_ident()
        if name.startswith(("sk_lookup", "skc_lookup")):
            state.held |= {ident}
        return Reg("object" + null, thing=plain, ident=ident, parent=call.parent)
    if plain == "percpu_mem":
        raise Problem(f"what bpf_{name} returns cannot be followed here")
    if plain == "void":
        return NONE
    if name in _COUNTS:
        return Reg("scalar", scalar.of_signed_range(-4095, max(state.regs[_COUNTS[name]].number.umax, 0)))
    if name in _RESULTS:
        return Reg("scalar", scalar.of_signed_range(*_RESULTS[name]))
    return Reg("scalar", scalar.UNKNOWN)


def _found_struct(walker: Walker, state: State, call: Call, name: str, null: str) -> Reg:
    """A kernel pointer; one that must be given back where the function acquires it."""
    if call.helper.name == "kptr_xchg":
        assert call.pointer is not None
        name = memory.special_at(call.pointer, 0).partition(":")[2]
    struct = walker.find_struct(name)
    acquires = "acquire" in call.helper.flags or call.helper.name == "kptr_xchg"
    if struct is None:
        if acquires or null:
            raise Problem(f"struct {name}, to which bpf_{call.helper.name} returns a pointer, is not known here")
        return UNKNOWN
    ident = walker.new_ident()
    if acquires:
        state.held |= {ident}
    trust = IN_RCU if "in_rcu" in call.helper.flags else TRUSTED
    return Reg("btf" + null, thing=struct, size=trust, ident=ident, parent=0 if acquires else call.parent)


def _found_value(walker: Walker, call: Call) -> Reg:
    """What a look-up found. Entry by a known index of an array is never null, but must be compared all the same."""
    table = call.table
    inner = getattr(table, "inner", None)
    if inner is not None:
        return Reg("map?", thing=inner, ident=walker.new_ident())
    return Reg("value?", thing=table, ident=walker.new_ident())

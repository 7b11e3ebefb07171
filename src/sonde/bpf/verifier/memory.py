"""Loads and stores: for each kind of pointer what lies where, who may read it, and what a load gives."""

from __future__ import annotations

from ..isa import MAX_STACK_BYTES
from . import scalar
from .problem import Problem
from .state import (
    IN_RCU,
    INVALID,
    MISC,
    OPAQUE,
    OPAQUE_KINDS,
    PLAIN,
    TRUSTED,
    UNTRUSTED,
    UNWRITTEN,
    ZEROS,
    Frame,
    Reg,
    kinds_of,
    low_bytes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .explore import Walker
    from .state import State

MAX_OFFSET = 1 << 29  # pointer arithmetic beyond this is refused, as in the kernel


def check_bounds(reg: Reg, off: int, size: int, limit: int, what: str) -> None:
    """Check that off, off + size of `reg` lie within 0..limit whatever its variable part is. Raises Problem."""
    low, high = reg.off + off + reg.number.smin, reg.off + off + reg.number.smax
    if reg.number.smin < 0 and reg.number.const is None and low < 0:
        raise Problem(
            f"the offset into {what} may be negative: {reg.number}", "compare it with 0, or use an unsigned type"
        )
    if low < 0:
        raise Problem(f"{size} bytes at offset {low} of {what} are below its start")
    if high + size > limit:
        where = f"offset {high}" if low == high else f"an offset of up to {high}"
        raise Problem(f"{size} bytes at {where} of {what} are beyond its end: it has {limit}", _hint(reg))


def _hint(reg: Reg) -> str:
    return "" if reg.number.const is not None else "limit the index before it is used: compare it, or mask it with &"


def check_alignment(reg: Reg, off: int, size: int) -> None:
    """Check that reg + off is a multiple of `size`, as atomic operations need it. Raises Problem."""
    low_bits = size - 1
    known = not reg.number.bits[1] & low_bits
    if not known or (reg.off + off + reg.number.bits[0]) & low_bits:
        raise Problem(f"an atomic operation on {size} bytes needs an address at a multiple of {size}")


# Loads and stores -------------------------------------------------------------------------------------------------


def load(walker: Walker, state: State, reg: Reg, off: int, size: int, *, signed: bool = False) -> Reg:
    """Return what a load of `size` bytes at reg + off gives. Raises Problem."""
    if reg.kind == "stack":
        return _load_stack(walker, state, reg, off, size)
    if reg.kind == "ctx":
        return _load_context(walker, reg, off, size)
    if reg.kind == "btf":
        return _load_struct(walker, state, reg, off, size)
    if reg.kind == "object" and reg.thing == "socket" and reg.number.const == 0:
        return _load_socket(reg.off + off, size)
    if reg.kind == "value" and size == 8:
        kept = load_kernel_pointer(walker, reg, off)
        if kept is not None:
            return kept
    check_access(walker, state, reg, off, size, write=False)
    return Reg("scalar", scalar.of_size(size))


_SOCKET_BYTES = 80  # of struct bpf_sock


def _load_socket(place: int, size: int) -> Reg:
    """A field of struct bpf_sock."""
    if place < 0 or place % size or size > 4 or place + size > _SOCKET_BYTES:
        raise Problem(f"struct bpf_sock has no {size} bytes at {place}")
    return Reg("scalar", scalar.of_size(size))


def special_at(reg: Reg, off: int) -> str:
    """What only helpers may touch at this very place of a map's value: "spin_lock", "timer", "kptr:NAME" …; "" for nothing."""
    if reg.number.const is None:
        return ""
    place = reg.off + off + scalar.to_signed(reg.number.const)
    return next((what for start, _, what in reg.thing.special if start == place), "")  # type: ignore[attr-defined]


def load_kernel_pointer(walker: Walker, reg: Reg, off: int) -> Reg | None:
    """What the program finds where a map's value keeps a kernel pointer: one that may be gone, or null; loads through it read zero then."""
    kind, _, name = special_at(reg, off).partition(":")
    struct = walker.find_struct(name) if kind in ("kptr", "kptr_untrusted") else None
    return None if struct is None else Reg("btf", thing=struct, size=UNTRUSTED)


def store(walker: Walker, state: State, reg: Reg, off: int, size: int, value: Reg) -> None:
    """Store `value`. Raises Problem."""
    if reg.kind == "stack":
        _store_stack(state, reg, off, size, value)
        return
    if reg.kind == "ctx":
        place = _constant_offset(reg, off)
        found = walker.context.access(place, size, True)
        if isinstance(found, str):
            raise Problem(found)
        return
    check_access(walker, state, reg, off, size, write=True)


def check_access(walker: Walker, state: State, reg: Reg, off: int, size: int, *, write: bool) -> None:
    """Check that `size` bytes at reg + off may be read, or written. Raises Problem."""
    if reg.may_be_null:
        raise Problem(f"{reg} is used without a check", "compare it with null first, and use it only where it is not")
    check = _CHECKS.get(reg.kind)
    if check is None:
        what = "a number" if reg.kind == "scalar" else str(reg)
        raise Problem(
            f"{what} is no address that may be {'written' if write else 'read'} directly", _instead(reg, write)
        )
    check(walker, state, reg, off, size, write)


def _instead(reg: Reg, write: bool) -> str:
    return (
        "" if write or reg.kind != "scalar" else "read other memory with bpf_probe_read_kernel or bpf_probe_read_user"
    )


def _check_value(walker: Walker, state: State, reg: Reg, off: int, size: int, write: bool) -> None:
    table = reg.thing
    check_bounds(reg, off, size, table.value_size, f"a value of map {table.name}")  # type: ignore[attr-defined]
    if write and table.read_only:  # type: ignore[attr-defined]
        raise Problem(f"map {table.name} is read-only for programs")  # type: ignore[attr-defined]
    for start, end, what in table.special:  # type: ignore[attr-defined]
        first = reg.off + off + reg.number.smin
        if first < end and reg.off + off + reg.number.smax + size > start:
            what = what.partition(":")[0].replace("_", " ")
            raise Problem(f"the {what} in map {table.name} may only be used through its helpers")  # type: ignore[attr-defined]


def _check_memory(walker: Walker, state: State, reg: Reg, off: int, size: int, write: bool) -> None:
    if write and reg.thing == "ro":
        raise Problem("this memory may only be read")
    check_bounds(reg, off, size, reg.size, "this memory")


def _check_packet(walker: Walker, state: State, reg: Reg, off: int, size: int, write: bool) -> None:
    if reg.off + off < 0 or reg.number.smin < 0:
        raise Problem("the offset into the packet may be negative")
    if reg.off + off + size > reg.size:
        wanted = reg.off + off + size
        raise Problem(
            f"byte {wanted} of the packet may not be there: {reg.size} bytes are known to be",
            "compare with data_end first: if (data + N > data_end) return …",
        )


def _check_stack(walker: Walker, state: State, reg: Reg, off: int, size: int, write: bool) -> None:
    _stack_range(reg, off, size)


_CHECKS = {
    "value": _check_value,
    "mem": _check_memory,
    "packet": _check_packet,
    "packet_meta": _check_packet,
    "stack": _check_stack,
}


def _constant_offset(reg: Reg, off: int) -> int:
    number = reg.number.const
    if number is None:
        raise Problem(f"the offset into the context must be known, not {reg.number}")
    return reg.off + off + scalar.to_signed(number)


def _load_context(walker: Walker, reg: Reg, off: int, size: int) -> Reg:
    found = walker.context.access(_constant_offset(reg, off), size, False)
    if isinstance(found, str):
        raise Problem(found)
    return found.change(ident=walker.new_ident()) if found.may_be_null else found


def _load_struct(walker: Walker, state: State, reg: Reg, off: int, size: int) -> Reg:
    """A member of a kernel struct: loads that fault read zero, so that only the types need to be right."""
    from ...debuginfo.ctype import Array, Pointer, Struct, strip

    place = _constant_offset(reg, off)
    struct = reg.thing
    assert isinstance(struct, Struct)
    if place < 0 or place + size > struct.size:
        raise Problem(f"struct {struct.name} has {struct.size} bytes; {size} at {place} are not in it")
    ctype: object = struct
    owner = label = ""
    while isinstance(ctype, (Struct, Array)):
        if isinstance(ctype, Array):
            element = strip(ctype.element)
            if not element.size:
                break
            place %= element.size
            ctype = element
            continue
        inside = [m for m in ctype.members if m.offset <= place and place < m.offset + max(_size_of(m.ctype), 1)]
        if not inside or (ctype.kind == "union" and len(ctype.members) > 1):  # of one: made to be 64 bits wide
            return Reg("scalar", scalar.of_size(size))
        member = inside[-1]
        place -= member.offset
        owner, label, ctype = ctype.name, member.name, strip(member.ctype)
    if isinstance(ctype, Pointer) and size == 8 and place == 0:
        target = strip(ctype.target)
        if isinstance(target, Struct) and target.name and ctype.tag in ("", "rcu"):
            return walked(walker, state, reg, target, f"{owner}.{label}", ctype.tag)
    return Reg("scalar", scalar.of_size(size))


# Members whose pointers are as trustworthy as what they are read from, under RCU or altogether (the kernel's BTF_TYPE_SAFE_…).
_SAFE_IN_RCU = frozenset(["task_struct.cpus_ptr", "task_struct.real_parent", "task_struct.group_leader", "task_struct.cgroups",
                          "cgroup.kn", "css_set.dfl_cgrp", "cgroup_subsys_state.cgroup"])  # fmt: skip
_SAFE_OR_NULL = frozenset(["mm_struct.exe_file", "sk_buff.sk", "request_sock.sk"])
_SAFE = frozenset(["bpf_iter_meta.seq", "bpf_iter__task.meta", "bpf_iter__task.task", "linux_binprm.file", "file.f_inode",
                   "dentry.d_inode", "file.f_path"])  # fmt: skip


def walked(walker: Walker, state: State, reg: Reg, struct: object, member: str, tag: str) -> Reg:
    """A pointer to a struct that was loaded through another one: how far it may be trusted. As `check_ptr_to_btf_access` of the kernel."""
    trust = reg.size
    if trust in (TRUSTED, IN_RCU):
        if member in _SAFE:
            return Reg("btf", thing=struct, size=TRUSTED, parent=reg.parent)
        if walker.sleepable and not state.rcu:
            trust = UNTRUSTED
        elif member in _SAFE_IN_RCU:
            return Reg("btf", thing=struct, size=IN_RCU)
        elif member in _SAFE_OR_NULL or tag == "rcu":
            return Reg("btf?", thing=struct, size=IN_RCU, ident=walker.new_ident())
        else:
            trust = PLAIN
    return Reg("btf", thing=struct, size=trust)


def _size_of(ctype: object) -> int:
    from ...debuginfo.ctype import sizeof

    return sizeof(ctype)  # type: ignore[arg-type]


# The stack --------------------------------------------------------------------------------------------------------


def _stack_range(reg: Reg, off: int, size: int) -> tuple[int, int]:
    """First and last possible offset from the top of the frame. Raises Problem."""
    number = reg.number.const
    if number is not None:
        low = high = reg.off + off + scalar.to_signed(number)
    else:
        if reg.number.smax > MAX_OFFSET or reg.number.smin < -MAX_OFFSET:
            raise Problem(
                f"the offset into the stack is not limited: {reg.number}", "limit the index before it is used"
            )
        low, high = reg.off + off + reg.number.smin, reg.off + off + reg.number.smax
    if low < -MAX_STACK_BYTES or high + size > 0:
        at = f"r10{low:+d}" if low == high else f"r10{low:+d} to r10{high:+d}"
        raise Problem(f"{size} bytes at {at} are not on the stack, which has {MAX_STACK_BYTES} bytes below r10")
    return low, high


def read_bytes(frame: Frame, off: int, size: int) -> list[int]:
    """The kinds of the bytes at r10 + off."""
    return [_byte(frame, at) for at in range(off, off + size)]


def _byte(frame: Frame, off: int) -> int:
    return kinds_of(frame.slots.get((-off - 1) // 8, UNWRITTEN))[off % 8]


def refuse_opaque(kinds: list[int], low: int) -> None:
    """Raise Problem where bytes of the stack belong to a dynptr or an iterator."""
    if OPAQUE in kinds:
        raise Problem(
            f"r10{low + kinds.index(OPAQUE):+d} belongs to a dynptr or an iterator, which only its helpers may touch"
        )


def _load_stack(walker: Walker, state: State, reg: Reg, off: int, size: int) -> Reg:
    low, high = _stack_range(reg, off, size)
    frame = state.frames[reg.size]
    if low == high and low % 8 == 0 and size == 8:
        kept = frame.slots.get((-low - 1) // 8)
        if isinstance(kept, Reg) and kept.kind not in OPAQUE_KINDS and kept.kind != "part":
            return kept
    kinds = read_bytes(frame, low, high - low + size)
    refuse_opaque(kinds, low)
    if INVALID in kinds and not walker.uninitialised_stack:
        raise Problem(f"r10{low + kinds.index(INVALID):+d} is read, but was never written")
    pointer = _pointer_among(frame, low, high + size)
    if pointer is not None and not (low == high and size < 8 and pointer.kind == "scalar"):
        return Reg("scalar", scalar.of_size(size))
    if low == high:
        number = low_bytes(frame.slots.get((-low - 1) // 8, UNWRITTEN), size) if low % 8 == 0 else None
        if number is not None:
            return Reg("scalar", number)
        if all(kind == ZEROS for kind in kinds):
            return Reg("scalar", scalar.const(0))
    return Reg("scalar", scalar.of_size(size))


def _pointer_among(frame: Frame, low: int, end: int) -> Reg | None:
    """A stored pointer that some of the bytes belong to: reading a part of it gives a number."""
    for at in range(low, end):
        kept = frame.slots.get((-at - 1) // 8)
        if isinstance(kept, Reg) and kept.is_pointer:
            return kept
    return None


def _store_stack(state: State, reg: Reg, off: int, size: int, value: Reg) -> None:
    low, high = _stack_range(reg, off, size)
    frame = state.frames[reg.size]
    if any(kept.kind in OPAQUE_KINDS for kept in _kept_in(frame, low, high + size)):
        give_up(state, frame, low, high + size, certain=low == high)
    if value.kind == "stack" and value.size > reg.size:
        raise Problem(
            "an address of the function's own stack may not be left on its caller's: it is gone when it returns"
        )
    if low == high and low % 8 == 0 and size == 8 and value.kind != "none":
        frame.slots[(-low - 1) // 8] = value
        return
    if value.is_pointer and (size != 8 or low == high):
        raise Problem(f"{value} must be stored whole, at a multiple of 8")
    if low == high:
        zero = (
            value.kind == "scalar" and value.number.const is not None and value.number.const & (1 << 8 * size) - 1 == 0
        )
        for at in range(low, low + size):
            set_byte(frame, at, ZEROS if zero else MISC)
        if low % 8 == 0 and size < 8 and value.kind == "scalar":
            number = scalar.and_(value.number, scalar.const((1 << 8 * size) - 1))
            slot = (-low - 1) // 8
            frame.slots[slot] = Reg("part", number, thing=kinds_of(frame.slots[slot]), size=size)
        return
    for at in range(low, high + size):  # one of them: what may have been overwritten is anything
        slot = (-at - 1) // 8
        kept = frame.slots.get(slot, UNWRITTEN)
        if isinstance(kept, Reg) and kept.is_pointer:
            frame.slots[slot] = bytes([MISC]) * 8
        elif _byte(frame, at) != INVALID:
            set_byte(frame, at, MISC)


def _kept_in(frame: Frame, low: int, end: int) -> list[Reg]:
    """The registers stored in the slots of some bytes."""
    found = (frame.slots.get(slot) for slot in range((-end) // 8, (-low - 1) // 8 + 1))
    return [kept for kept in found if isinstance(kept, Reg)]


def give_up(state: State, frame: Frame, low: int, end: int, *, certain: bool = True) -> None:
    """Dynptrs in some bytes of the stack are overwritten. Raises Problem for those that must be given back, and for iterators."""
    for kept in _kept_in(frame, low, end):
        if kept.kind == "iter" or (kept.kind == "dynptr" and (kept.parent in state.held or not certain)):
            raise Problem(f"{kept} on the stack would be overwritten before it was given back")
        if kept.kind == "dynptr":
            state.release(kept.ident)


def set_byte(frame: Frame, off: int, kind: int) -> None:
    """Note what a byte of the stack is from now on."""
    slot = (-off - 1) // 8
    kept = frame.slots.get(slot, UNWRITTEN)
    made = bytearray(kinds_of(kept))
    made[off % 8] = kind
    if isinstance(kept, Reg) and kept.kind == "part" and off % 8 >= kept.size:
        frame.slots[slot] = Reg("part", kept.number, thing=bytes(made), size=kept.size)
    else:
        frame.slots[slot] = bytes(made)


# Memory that helpers are given ------------------------------------------------------------------------------------


def check_region(walker: Walker, state: State, reg: Reg, size: int, *, write: bool, fresh: bool = False) -> None:
    """Check that a helper may read, or write, `size` bytes from `reg` on; `fresh`: they need not have been written before.

    Bytes of the stack that a helper may write are anything afterwards. Raises Problem.
    """
    if size == 0:
        return
    if reg.kind != "stack":
        check_access(walker, state, reg, 0, size, write=write)
        return
    low, high = _stack_range(reg, 0, size)
    walker.note_use(reg, 0, size)
    frame = state.frames[reg.size]
    kinds = read_bytes(frame, low, high - low + size)
    refuse_opaque(kinds, low)
    if not fresh and INVALID in kinds and not walker.uninitialised_stack:
        raise Problem(
            f"r10{low + kinds.index(INVALID):+d} is handed to a helper, but was never written",
            "initialise the whole variable, padding too: struct s x = {};",
        )
    if write:
        for at in range(low, high + size):
            if low == high or kinds[at - low] != INVALID or not fresh:
                set_byte(frame, at, MISC)

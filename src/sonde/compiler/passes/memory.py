"""What instructions do to memory: which place a pointer names, what calls read and write, what may be the same.

A place is a root and a constant offset from it (None: unknown). Roots are slots (`alloca`), the data of a map, or any other
pointer value. A slot whose address is only ever used to access it, or handed to helpers, is private: nothing else
can reach it.
"""

from __future__ import annotations

from ...bpf.helpers import HELPERS
from ..ir import BTF, CTX, MAP, MEM, PACKET, Const, Inst

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.object import MapSpec
    from ..ir import Block, Function, Value

    Root = Value | tuple[str, str]
    Place = tuple[Root, int | None]
    Access = tuple[Root, int | None, int | None]  # root, offset, bytes; None: unknown

_SEPARATE = frozenset([MAP, MEM, CTX, PACKET, BTF])  # kinds of memory that never overlap
_READ = frozenset(["key", "value", "mem", "fixed", "const_str", "record", "dynptr"])
_WRITTEN = frozenset(["mem_out", "fixed_out", "value_out"])
_HARMLESS = frozenset(["ctx", "map", "size", "size0", "alloc_size", "percpu", "sock", "sock_release"])
_SIZED = frozenset(["mem", "mem_out", "mem_rw"])
# These write all bytes, always; get_current_comm does not in Linux 6.1.
_WHOLE = frozenset(["probe_read", "probe_read_kernel", "probe_read_user"])
_CHANGE_MAPS = frozenset(
    ["map_update_elem", "map_delete_elem", "map_push_elem", "map_pop_elem", "kptr_xchg", "spin_lock"]
)
_KEEP_CONTEXT = frozenset(["perf_event_output", "get_stackid", "get_stack", "get_func_ip", "get_attach_cookie",
                           "get_func_arg", "get_func_ret", "get_func_arg_cnt", "override_return"])  # fmt: skip


def place_of(p: Value) -> Place:
    """Return what a pointer is computed from, and its distance from there."""
    offset: int | None = 0
    while isinstance(p, Inst):
        if p.op == "ptradd":
            step = p.args[1]
            if isinstance(step, Const) and offset is not None:
                offset += step.imm - (1 << 64) if step.imm >> 63 == 1 else step.imm
            else:
                offset = None
        elif p.op != "cast":
            break
        p = p.args[0]
    if isinstance(p, Inst) and p.op in ("map_value", "percpu_value"):
        return (p.op, p.symbol), None if offset is None else offset + p.imm
    return p, offset


class Slots:
    """The slots of a function: `private` ones are reached through their own address only."""

    def __init__(self, function: Function) -> None:
        allocas = [i for i in function.blocks[0].insts if i.op == "alloca"]
        self.private: set[Value] = set(allocas)
        self.slot_of: dict[Value, Inst] = {a: a for a in allocas}  # address -> the slot it lies in
        if allocas:
            self._find_escapes(function.blocks)

    def _find_escapes(self, blocks: list[Block]) -> None:
        private, slot_of = self.private, self.slot_of
        for block in blocks:
            for inst in block.insts:
                op = inst.op
                for i, a in enumerate(inst.args):
                    slot = slot_of.get(a)
                    if slot is None:
                        continue
                    if op in ("ptradd", "cast") and not i:
                        slot_of[inst] = slot
                    elif not _stays_private(inst, i):
                        private.discard(slot)
            end = block.end
            assert end is not None
            for a in (*end.args, *(a for _, arguments in end.targets for a in arguments)):
                if a in slot_of:
                    private.discard(slot_of[a])


def _stays_private(inst: Inst, argument: int) -> bool:
    op = inst.op
    if op in ("load", "memset", "call", "callsub", "kfunc", "eq", "ne"):
        return True
    return op == "memcpy" or (op in ("store", "atomic") and argument == 0)


class Effects:
    """What a call reads and writes. `everything`: it may reach all memory; `maps`, `context`: it may change those."""

    __slots__ = ("context", "everything", "maps", "reads", "whole", "writes")

    def __init__(self) -> None:
        self.reads: list[Access] = []
        self.writes: list[Access] = []
        self.everything = False
        self.maps = False
        self.context = False
        self.whole = False  # all bytes of `writes` are written, whatever happens


def effects_of(inst: Inst, maps: dict[str, MapSpec]) -> Effects:
    """Return the effects of `call`, `callsub`, `kfunc`, `tailcall`."""
    effects = Effects()
    helper = HELPERS.get(inst.symbol) if inst.op == "call" else None
    if helper is None or helper.variadic:
        effects.everything = helper is None
        effects.context = helper is None
        effects.reads = [(place_of(a)[0], None, None) for a in inst.args]
        effects.writes = list(effects.reads) if helper is None else []
        return effects
    effects.maps = inst.symbol in _CHANGE_MAPS
    effects.whole = inst.symbol in _WHOLE
    spec = _map_of(inst, maps)
    for i, (argument, kind) in enumerate(zip(inst.args, helper.args)):
        kind = kind.rstrip("?")
        if kind == "ctx" and helper.has_effect and inst.symbol not in _KEEP_CONTEXT:
            effects.context = True
        if kind in _HARMLESS or isinstance(argument, Const):
            continue
        access = (*place_of(argument), _size_of(kind, inst, i, spec))
        if kind in _READ:
            effects.reads.append(access)
        elif kind in _WRITTEN:
            effects.writes.append(access)
        elif kind == "scalar" or kind.startswith("btf"):
            effects.reads.append((access[0], None, None))
        else:
            effects.reads.append((access[0], None, None))
            effects.writes.append((access[0], None, None))
            effects.everything |= kind != "mem_rw" and kind != "fixed_rw"
    return effects


def _map_of(inst: Inst, maps: dict[str, MapSpec]) -> MapSpec | None:
    for a in inst.args:
        if isinstance(a, Inst) and a.op == "map":
            return maps.get(a.symbol)
    return None


def _size_of(kind: str, inst: Inst, index: int, spec: MapSpec | None) -> int | None:
    if kind in _SIZED and index + 1 < len(inst.args):
        size = inst.args[index + 1]
        return size.imm if isinstance(size, Const) else None
    if spec is not None and kind == "key":
        return spec.key_size
    if spec is not None and kind in ("value", "value_out"):
        return spec.value_size
    return None


def may_overlap(a: Root, b: Root, private: set[Value]) -> bool:
    """Tell whether memory reached from two different roots may be the same."""
    if a in private or b in private:
        return False
    if isinstance(a, tuple) and isinstance(b, tuple):
        return a == b
    if _is_slot(a) and _is_slot(b):
        return False
    one, other = _space_of(a), _space_of(b)
    if one != other:
        return not (one in _SEPARATE and other in _SEPARATE) and not (
            (_is_slot(a) and other in _SEPARATE) or (_is_slot(b) and one in _SEPARATE)
        )
    return not (one == MEM and _is_record(a) and _is_record(b))


def _space_of(root: Root) -> str:
    return MAP if isinstance(root, tuple) else root.type


def _is_slot(root: Root) -> bool:
    return isinstance(root, Inst) and root.op == "alloca"


def _is_record(root: Root) -> bool:
    return isinstance(root, Inst) and root.op == "call"

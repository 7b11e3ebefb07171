"""Follows every path of a program, with what is known at each instruction, and stops at the first thing that is not safe.

A path ends at an exit, or where it comes to a state that an earlier path has been through with no less possibilities. An instruction whose condition
is known goes one way only. Loops are followed round by round, as in the kernel, up to a limit of instructions in all.
"""

from __future__ import annotations

from functools import cache

from ..flow import callee, jump_target, split_blocks, split_functions
from ..isa import ACCESS_BYTES, CALL, EXIT, GOTOL, JA, LDDW, MAX_STACK_BYTES, MAY_GOTO, Insn, get_op
from . import demand, memory, scalar
from .arithmetic import identified, operate
from .branches import branch
from .callbacks import MAX_FRAMES, leave_callback
from .calls import call_helper, check_nothing_held
from .kfuncs import Kfunc, call_kfunc
from .problem import Problem
from .stackobjects import iterator_at
from .stackuse import find_uses
from .state import NONE, PLAIN, UNKNOWN, Frame, Reg, State, contains
from .visited import Node, Visited, is_of_little_use, known_numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...debuginfo.ctype import CType, Struct
    from ..helpers import Helper
    from .contexts import Context

MAX_INSNS = 1_000_000
_EAGER = 10_000  # instructions that are followed in the simple way at first
_NODE_DISTANCE = 8  # instructions from one remembered state to the next
_NODE_DISTANCE_IN_LOOPS = 32  # rounds of a loop differ in its counter: few states answer for others
_EXACT = (0x3FF, 0x3FF, (1 << 64) - 1, (1 << 64) - 1)


class Walker:
    """One verification. `pc` is the instruction under examination; what the checks call is in the second part."""

    def __init__(
        self,
        insns: Sequence[Insn],
        context: Context,
        maps: Mapping[int, object],
        *,
        allows: Callable[[Helper], bool],
        find_struct: Callable[[str], Struct | None],
        kfuncs: Mapping[int, Kfunc] | None = None,
        symbols: Mapping[int, CType | None] | None = None,
        sleepable: bool = False,
        uninitialised_stack: bool = False,
        max_insns: int = MAX_INSNS,
        eager: int = _EAGER,
        trace: Callable[[int, State], object] | None = None,
    ) -> None:
        self.context = context
        self.maps = maps
        self.allows = allows
        self.find_struct = cache(find_struct)  # one object for each, by which pointers are compared
        self.kfuncs = kfuncs or {}
        self.symbols = symbols or {}
        self.sleepable = sleepable
        self.uninitialised_stack = uninitialised_stack
        self.max_insns = max_insns
        self.eager = eager
        self.trace = trace
        self.bodies = split_functions(insns)
        self.insns = {pc: insn for body in self.bodies.values() for pc, insn in body}
        self.rounds_begin = {
            pc for pc, insn in self.insns.items() if insn.opcode == MAY_GOTO or self._is_step(pc, insn)
        }
        self.loop_ends: set[int] = set()  # where a loop is left, after any number of rounds
        self.joins = self._find_joins()
        self.pc = 0
        self.next_pc = 0
        self.processed = 0
        self.unbounded = False
        self.helpers: set[str] = set()
        self.used_maps: set[str] = set()
        self.depths: dict[int, int] = {}  # first pc of a function to the bytes of its stack
        self.places: set[tuple[int, int, int]] = set()  # function, first and last byte of its stack that was used
        self.decided: set[int] = set()  # conditional jumps that went one way only
        self.state = State()
        self._idents = 0
        self.restarts = 0
        self._begin()

    def _begin(self) -> None:
        """Start anew."""
        self.restarts += 1
        self.demand: dict[int, tuple[int, int, int, int]] = {}
        self.states = 0
        self.longest = 0
        self._node: Node | None = None
        self._since = 0
        self._visited: dict[int, Visited] = {}
        first = State()
        first.regs[1] = Reg("ctx")
        self._pending: list[tuple[State, int, Node | None]] = [(first, 0, None)]

    def _find_joins(self) -> set[int]:
        """Where paths may meet: targets of jumps, ends of loops, starts of functions, returns of calls."""
        joins = set(self.bodies)
        for body in self.bodies.values():
            for pc, insn in body:
                target = jump_target(pc, insn)
                if target is not None:
                    joins.add(target)
                    if target <= pc and insn.opcode not in (JA, GOTOL):
                        self.loop_ends.add(pc + 1)
                if insn.opcode == CALL and insn.src == 1:
                    joins.add(pc + 1)
        return joins | self.rounds_begin | self.loop_ends

    def _is_step(self, pc: int, insn: Insn) -> bool:
        """Whether it is a call that makes a step of an iterator."""
        if insn.opcode != CALL or insn.src != 2:
            return False
        kfunc = self.kfuncs.get(pc)
        return kfunc is not None and kfunc.name.startswith("iter_") and kfunc.name.endswith("_next")

    # the walk -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Follow all paths. Raises Problem; `pc` and `state` then say where."""
        for pc, body in self.bodies.items():
            self.pc = pc
            self._check_reachable(body)
        calls = {entry: self._find_calls(body) for entry, body in self.bodies.items()}
        for entry in calls:
            self._check_recursion(entry, calls, ())
        lower: frozenset[int] = frozenset()
        while True:
            self._find_uses(lower)
            self.demand = demand.analyse_all(self.bodies, self.uses)
            if not self._follow(min(self.eager, self.max_insns)):
                self._follow_again()
            if self.lower <= lower:
                break
            lower |= self.lower  # what was taken for positive was not: once more, knowing it
            self._begin()
        self._check_depth(calls)

    def _find_uses(self, lower: frozenset[int]) -> None:
        """Find how functions use their stacks. `lower`: where indices were found to be negative."""
        self.lower: set[int] = set()
        self.uses = {entry: find_uses(body, self.maps, lower) for entry, body in self.bodies.items()}
        self.lows = {pc: low for use in self.uses.values() if use is not None for pc, low in use.lows.items()}

    def _follow(self, limit: int) -> bool:
        """Follow all paths, up to so many instructions together. Returns whether that was enough."""
        limit += self.processed
        while self._pending:
            self.state, pc, self._node = self._pending.pop()
            self._since = _NODE_DISTANCE_IN_LOOPS  # where two ways part is a good place to remember
            self._path(pc, limit)
            if self.processed > limit:
                return False
        return True

    def _follow_again(self) -> None:
        """Where there are many paths: take it that the numbers of a condition do not matter when both ways are followed anyway.

        Where that turns out to be wrong of a condition, all is followed once more, knowing it.
        """
        decided: frozenset[int] = frozenset()
        while True:
            self._begin()
            self.demand = demand.analyse_all(self.bodies, self.uses, decided)
            self.decided = set()
            if not self._follow(self.max_insns):  # with more conditions it would only take longer
                raise Problem(
                    f"more than {self.max_insns} instructions were followed on all paths together",
                    "make loops shorter, or use bpf_loop",
                )
            if self.decided <= decided:
                return
            decided |= self.decided

    def _find_calls(self, body: list[tuple[int, Insn]]) -> dict[int, int]:
        """The functions that one calls, or has a helper call, and a pc where it does."""
        found = ((callee(pc, insn), pc) for pc, insn in body)
        return {entry: pc for entry, pc in found if entry is not None}

    def _check_recursion(self, entry: int, calls: dict[int, dict[int, int]], above: tuple[int, ...]) -> None:
        for other, pc in calls[entry].items():
            if other in (*above, entry):
                self.pc = pc
                raise Problem("a function calls itself, by this call", "a loop, or bpf_loop, can do the same")
            self._check_recursion(other, calls, (*above, entry))

    def _check_reachable(self, body: list[tuple[int, Insn]]) -> None:
        blocks = split_blocks(body)
        reached, waiting = set(), [body[0][0]]
        while waiting:
            pc = waiting.pop()
            if pc not in reached and pc in blocks:
                reached.add(pc)
                waiting += [blocks[pc].target, blocks[pc].next]
        for pc in blocks:
            if pc not in reached:
                self.pc = pc
                raise Problem("no way leads to this instruction")

    def _path(self, pc: int, limit: int) -> None:
        while pc >= 0:
            self.pc = pc
            if pc in self.joins and self._seen(pc):
                return
            self.processed += 1
            if self.processed > limit:
                return
            state = self.state
            state.frames[-1].entering = False
            if self.trace is not None:
                self.trace(pc, state)
            insn = self.insns[pc]
            state.steps += 1
            self._since += 1
            self.next_pc = pc + insn.slots
            self._step(insn)
            pc = self.next_pc
        self._end(self.state.steps)

    def _end(self, steps: int) -> None:
        """A path has come to its end, `steps` instructions from the start."""
        self.longest = max(self.longest, steps)
        node = self._node
        alive = True
        while node is not None:
            node.reach = max(node.reach, steps)
            if alive:
                node.branches -= 1
                alive = node.branches == 0
                if alive:
                    node.place.open -= 1
            node = node.parent

    def _seen(self, pc: int) -> bool:
        """Whether an earlier path answers for this one. Remembers the state otherwise."""
        state = self.state
        if state.lonely:
            return False
        frame = state.frame
        converging = frame.entering or pc in self.rounds_begin
        visited = self._visited.setdefault(pc, Visited())
        known = known_numbers(state, self._live)
        looping = visited.open > 0
        remembered, mark = None, 0
        for nodes in visited.candidates(known):
            for node in nodes[::-1]:
                if node.branches and not (converging and self._is_further(node.state)):
                    if remembered is None:
                        remembered = self._remembered()
                        mark = hash(tuple(remembered.regs))
                    if state.turns == node.state.turns and mark == node.mark and _same(node.state, remembered):
                        raise Problem("the program comes back here with nothing changed: the loop never ends")
                    continue
                if contains(node.state, state, self._live):
                    node.hits += 1
                    self._end(state.steps + node.reach - node.state.steps)
                    return True
                node.misses += 1
                if is_of_little_use(node):
                    nodes.remove(node)
        distance = 1 if pc in self.loop_ends else _NODE_DISTANCE_IN_LOOPS if looping else _NODE_DISTANCE
        if self._since >= distance or converging:
            self._since = 0
            self.states += 1
            self._node = Node(remembered or self._remembered(), self._node, visited)
            visited.add(self._node, known)
        return False

    def _is_further(self, old: State) -> bool:
        """Whether this path came from `old`, still under way, to the next round of a loop that ends by itself."""
        state = self.state
        if state.frame.entering:  # of one and the same call
            return bool(old.frames) and old.frame.callback is state.frame.callback
        if self.insns[self.pc].opcode == MAY_GOTO:
            return state.rounds > old.rounds
        return iterator_at(old) == iterator_at(state) != 0

    def _remembered(self) -> State:
        """A copy of the state, in which equal numbers are only marked as such where that can matter: at two places or more."""
        made = self.state.copy()
        counts: dict[int, int] = {}
        places = [(frame, *self._live(frame)) for frame in made.frames]
        for frame, registers, _, slots, _ in places:
            for index, reg in enumerate(frame.regs[:10]):
                if not registers >> index & 1:
                    frame.regs[index] = NONE
                elif reg.ident:
                    counts[reg.ident] = counts.get(reg.ident, 0) + 1
            for slot, kept in frame.slots.items():
                if slots >> slot & 1 and isinstance(kept, Reg) and kept.ident:
                    counts[kept.ident] = counts.get(kept.ident, 0) + 1
        single = {ident for ident, count in counts.items() if count == 1}
        for frame, *_ in places if single else ():
            frame.regs = [
                Reg("scalar", r.number) if r.ident in single and r.kind == "scalar" else r for r in frame.regs
            ]
            for slot, kept in frame.slots.items():
                if isinstance(kept, Reg) and kept.kind == "scalar" and kept.ident in single:
                    frame.slots[slot] = Reg("scalar", kept.number)
        return made

    def _live(self, frame: Frame) -> tuple[int, int, int, int]:
        """What matters in a frame: at the present instruction in the innermost, behind the call in the others."""
        frames = self.state.frames
        pc = self.pc if frame.number == len(frames) - 1 else frames[frame.number + 1].return_pc
        masks = self.demand.get(pc, _EXACT)
        if frame.number == len(frames) - 1:
            return masks
        return masks[0] & ~0x3F, masks[1] & ~0x3F, _EXACT[2], _EXACT[3]

    # what checks call -----------------------------------------------------------------------------------------

    def new_ident(self) -> int:
        """A number that nothing else has."""
        self._idents += 1
        return self._idents

    def push(self, state: State, pc: int) -> None:
        """Follow another path later."""
        if self._node is not None:
            self._node.branches += 1
        self._pending.append((state, pc, self._node))

    def go(self, pc: int) -> None:
        """Go on at `pc` after this instruction."""
        self.next_pc = pc

    def stop(self) -> None:
        """End this path here."""
        self.next_pc = -1

    # instructions ---------------------------------------------------------------------------------------------

    def read(self, index: int) -> Reg:
        """Return a register. Raises Problem when it was never written."""
        reg = self.state.regs[index]
        if reg.kind == "none":
            raise Problem(f"r{index} is read, but was never written on this path")
        return reg

    def write(self, index: int, reg: Reg) -> None:
        """Set a register. Raises Problem for r10."""
        if index == 10:
            raise Problem("r10, the frame pointer, may only be read")
        self.state.regs[index] = reg

    def _step(self, insn: Insn) -> None:
        class_ = insn.opcode & 7
        if class_ in (4, 7):
            operate(self, insn)
        elif class_ == 1:
            self._load(insn, self.read(insn.src))
        elif class_ in (2, 3):
            self._store(insn)
        elif class_ == 0:
            self._wide(insn) if insn.opcode == LDDW else self._packet_load(insn)
        elif insn.opcode == EXIT:
            self._exit()
        elif insn.opcode & ~8 == CALL:
            self._call(insn)
        elif insn.opcode in (JA, GOTOL):
            target = jump_target(self.pc, insn)
            assert target is not None
            self.go(target)
        elif insn.opcode == MAY_GOTO:
            self._may_goto(insn)
        else:
            branch(self, insn)

    def _load(self, insn: Insn, base: Reg) -> None:
        size = ACCESS_BYTES[insn.opcode & 0x18]
        signed = insn.opcode & 0xE0 == 0x80
        self.note_use(base, insn.off, size)
        found = memory.load(self, self.state, base, insn.off, size)
        if signed:
            found = Reg(
                "scalar",
                scalar.sign_extend(found.number, 8 * size)
                if found.kind == "scalar"
                else scalar.of_size(size, signed=True),
            )
        self.write(insn.dst, found)

    def _store(self, insn: Insn) -> None:
        if insn.opcode == 0xC2:
            raise Problem("nospec is an instruction that only the kernel's own passes write")
        base, size = self.read(insn.dst), ACCESS_BYTES[insn.opcode & 0x18]
        if insn.opcode & 0xE7 == 0xC3:
            self._atomic(insn, size)
            return
        self.note_use(base, insn.off, size)
        value = Reg("scalar", scalar.const(insn.imm)) if insn.opcode & 7 == 2 else self.read(insn.src)
        if value.is_pointer and base.kind == "ctx":
            raise Problem(f"{value} may not be stored into the context")
        if size == 8 and base.kind == "stack" and insn.opcode & 7 == 3:
            value = identified(self, insn.src, value)
        memory.store(self, self.state, base, insn.off, size, value)

    def _atomic(self, insn: Insn, size: int) -> None:
        op = get_op(insn)
        assert op is not None
        if op.name.startswith("acquire"):
            memory.check_alignment(self.read(insn.src), insn.off, size)
            self._load(Insn(0x61 | insn.opcode & 0x18, insn.dst, insn.src, insn.off), self.read(insn.src))
            return
        base, value = self.read(insn.dst), self.read(insn.src)
        self.note_use(base, insn.off, size)
        if op.name.startswith("release"):
            memory.check_alignment(base, insn.off, size)
            memory.store(self, self.state, base, insn.off, size, value)
            return
        if base.kind not in ("value", "stack", "mem"):
            raise Problem(f"atomic operations work on map values, the stack and ring buffer records, not on {base}")
        if value.is_pointer:
            raise Problem(f"{value} may not take part in an atomic operation")
        memory.check_alignment(base, insn.off, size)
        memory.load(self, self.state, base, insn.off, size)
        compares = op.name.startswith("cmpxchg")
        if compares:
            self.read(0)
        if base.kind == "stack":
            memory.store(self, self.state, base, insn.off, size, Reg("scalar", scalar.UNKNOWN))
        else:
            memory.check_access(self, self.state, base, insn.off, size, write=True)
        if insn.imm & 1:
            self.write(0 if compares else insn.src, Reg("scalar", scalar.of_size(size)))

    def note_use(self, base: Reg, off: int, size: int) -> None:
        """Note which bytes of the stack are used, and how deep it is, when `base` leads there."""
        if base.kind == "stack":
            low = base.off + off + max(base.number.smin, -MAX_STACK_BYTES)
            high = base.off + off + min(base.number.smax, MAX_STACK_BYTES)
            entry = self.state.frames[base.size].entry
            self.depths[entry] = max(self.depths.get(entry, 0), -low)
            if low < self.lows.get(self.pc, low):
                self.lower.add(self.pc)
            self.places.add((entry, low, min(high + size, 0)))

    def _wide(self, insn: Insn) -> None:
        low, high = insn.imm & 0xFFFFFFFF, insn.imm >> 32
        if insn.src == 0:
            self.write(insn.dst, Reg("scalar", scalar.const(insn.imm)))
        elif insn.src == 4:
            self.write(insn.dst, Reg("func", thing=callee(self.pc, insn)))
        elif insn.src in (1, 2, 5, 6):
            table = self.maps.get(low)
            if table is None:
                raise Problem(f"there is no map number {low}")
            self.used_maps.add(table.name)  # type: ignore[attr-defined]
            if insn.src in (1, 5):
                self.write(insn.dst, Reg("map", thing=table))
                return
            if table.kind != "array" or high >= table.value_size:  # type: ignore[attr-defined]
                raise Problem(f"map {table.name} has no byte {high} that can be had directly")  # type: ignore[attr-defined]
            self.write(insn.dst, Reg("value", off=high, thing=table))
        elif insn.src == 3 and self.pc in self.symbols:
            self.write(insn.dst, _variable(self.symbols[self.pc]))
        else:
            raise Problem("addresses of kernel variables cannot be followed here")

    def _packet_load(self, insn: Insn) -> None:
        if not self.context.packet_loads:
            raise Problem(f"programs of type {self.context.name} have no packet to load from")
        if self.state.regs[6].kind != "ctx":
            raise Problem("r6 must be the context for a packet load", "r6 = r1 at the start")
        check_nothing_held(self.state, "a packet load may end the program")
        if len(self.state.frames) > 1:
            raise Problem("a packet load may end the program, and must be in its main function")
        if insn.opcode & 0xE0 == 0x40 and self.read(insn.src).kind != "scalar":
            raise Problem(f"the offset of a packet load must be a number, not {self.read(insn.src)}")
        for index in range(1, 6):
            self.state.regs[index] = NONE
        self.write(0, Reg("scalar", scalar.of_size(ACCESS_BYTES[insn.opcode & 0x18])))

    def _may_goto(self, insn: Insn) -> None:
        """Goes on, or leaves the loop; numbers may be others in each round, which the loop must stand."""
        target = jump_target(self.pc, insn)
        assert target is not None
        self.unbounded = True
        self.state.widen(self.pc)
        left = self.state.copy()
        left.lonely = True  # it may go on leaving for ever, and that must not be taken for what goes on in rounds
        self.push(left, target)
        self.state.rounds += 1
        self.state.lonely = False

    # calls ----------------------------------------------------------------------------------------------------

    def _call(self, insn: Insn) -> None:
        if insn.opcode != CALL:
            raise Problem("calls through a register cannot be followed")
        if insn.src == 0:
            from ..helpers import HELPERS

            helper = HELPERS.get(insn.imm)
            if helper is not None:
                self.helpers.add(helper.name)
            call_helper(self, self.state, insn.imm)
        elif insn.src == 1:
            self._enter(self.pc + 1 + insn.imm)
        else:
            call_kfunc(self, self.state, self.pc)

    def _enter(self, entry: int) -> None:
        state = self.state
        if len(state.frames) >= MAX_FRAMES:
            raise Problem(f"calls are nested more than {MAX_FRAMES} deep")
        frame = Frame(len(state.frames), entry, self.pc + 1)
        frame.regs[1:6] = state.regs[1:6]
        state.frames.append(frame)
        self.go(entry)

    def _exit(self) -> None:
        state = self.state
        if len(state.frames) == 1 and self.context.silent and state.regs[0].kind == "none":
            self._leave_program(Reg("scalar"))
            return
        result = self.read(0)
        frame = state.frame
        if len(state.frames) == 1 and frame.callback is None:
            self._leave_program(result)
            return
        if frame.callback is not None:
            leave_callback(self, state)
            return
        if result.kind == "stack" and result.size == frame.number:
            raise Problem("the function returns an address of its own stack, which is gone then")
        state.frames.pop()
        state.regs[0] = result
        for index in range(1, 6):
            state.regs[index] = NONE
        self.go(frame.return_pc)

    def _leave_program(self, result: Reg) -> None:
        check_nothing_held(self.state, "the program ends")
        if result.kind != "scalar":
            raise Problem(f"the program returns {result}, not a number")
        limits = self.context.returns
        if limits is not None and not (limits[0] <= result.number.smin and result.number.smax <= limits[1]):
            raise Problem(f"a program of type {self.context.name} returns {limits[0]} to {limits[1]}, not {result}")
        self.stop()

    def _check_depth(self, calls: dict[int, dict[int, int]]) -> None:
        """All frames that may be on the stack at once have 512 bytes together."""
        self.stack_bytes = _deepest(0, calls, self.depths)
        if self.stack_bytes > MAX_STACK_BYTES:
            self.pc = 0
            raise Problem(
                f"the functions that call each other use {self.stack_bytes} bytes of stack together; there are {MAX_STACK_BYTES}"
            )

    stack_bytes = 0


def _deepest(entry: int, calls: dict[int, dict[int, int]], depths: dict[int, int]) -> int:
    own = max(depths.get(entry, 0), 1 if entry else 0) + 31 & ~31
    return own + max((_deepest(other, calls, depths) for other in calls[entry]), default=0)


def _variable(ctype: CType | None) -> Reg:
    """The address of a variable of the kernel; of one without a type, a number."""
    from ...debuginfo.ctype import Struct, sizeof, strip

    if ctype is None:
        return UNKNOWN
    inner = strip(ctype)
    if isinstance(inner, Struct):
        return Reg("btf", thing=inner, size=PLAIN)
    return Reg("mem", thing="ro", size=sizeof(inner))


def _same(a: State, b: State) -> bool:
    """Whether two states are one."""
    return contains(a, b, _all) and contains(b, a, _all)


def _all(frame: Frame) -> tuple[int, int, int, int]:
    return _EXACT

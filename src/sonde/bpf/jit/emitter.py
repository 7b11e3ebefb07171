"""What all back ends of the JIT share: which instruction takes which way, and where code and jumps come to lie.

The bytes of a plain instruction depend on nothing but its fields, so they are remembered from one program to the next.
"""

from __future__ import annotations

from ...errors import FeatureError
from ..flow import jump_target
from ..isa import BPF_IND, CALL, EXIT, GOTOL, JA, LDDW, MAY_GOTO, Insn, get_op
from ..maps.machine import NO_MAP
from .code import CodeReloc, Function, MachineCode
from .maps import CPU_NUMBER, find_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..maps.layout import MapLayout
    from .maps import MapPlan

MAY_GOTO_LIMIT = 1 << 23  # rounds that may_goto allows, as in the kernel
_REMEMBER = 20_000  # instructions, about 2 MB
Known = dict[object, "tuple[bytes, frozenset[int]]"]


class Jump:
    """A jump whose length is not known yet: `kind` "jump", conditional when `condition` >= 0, or "call" of a local function.

    Conditions are the CPU's numbers.
    """

    __slots__ = ("condition", "kind", "long", "target")

    def __init__(self, kind: str, target: int, condition: int = -1) -> None:
        self.kind = kind
        self.target = target
        self.condition = condition
        self.long = False


class Emitter:
    """Emits the functions of one program. A back end fills in what raises NotImplementedError here."""

    arch = ""

    def __init__(self) -> None:
        self.parts: list[bytes | Jump] = []
        self.marks: list[tuple[int, int]] = []  # (number of the part, pc)
        self.relocs: list[tuple[int, int, str, int, int]] = []  # part, byte in it, kind, value, addend
        self.places: dict[int, int] = {}  # pc to the part that its code begins with
        self.entries: dict[int, int] = {}  # first pc of a function to the part that its entry begins with
        self.function: Function
        self.plan: MapPlan | None = None
        self.alone: frozenset[int] = frozenset()
        self.planned: dict[int, int] = {}  # pc of a call that needs no helper, to the number of its map
        self.routines: dict[
            tuple[MapLayout, int], int
        ] = {}  # routines behind the code, to the numbers that calls of them have as goals
        self.changed: set[int] = set()  # registers of the CPU that do not keep their value

    # what a back end knows ------------------------------------------------------------------------------------

    def remembered(self) -> Known:
        """The bytes of plain instructions translated before, and what they disturb."""
        raise NotImplementedError

    def prologue(self) -> bytes:
        """The entry of the current function."""
        raise NotImplementedError

    def leave(self) -> bytes:
        """Restore what the prologue saved, and return."""
        raise NotImplementedError

    def plain(self, insn: Insn, name: str) -> bytes:
        """An instruction that needs nothing from outside and goes nowhere. Raises FeatureError."""
        raise NotImplementedError

    def unlocked(self, code: bytes) -> bytes:
        """An atomic operation that one CPU alone carries out: whatever interrupts it there must still not come in between."""
        return code

    def compare(self, insn: Insn, name: str) -> int:
        """Emit the comparison of a conditional jump; return the condition to jump on."""
        raise NotImplementedError

    def count_down(self) -> int:
        """Emit the counting of may_goto; return the condition of being at the end."""
        raise NotImplementedError

    def call_register(self, register: int) -> None:
        """Call the address in one of eBPF's registers."""
        raise NotImplementedError

    def call_outside(self, kind: str, value: int) -> None:
        """Call a function by relocation: r1 to r5 are its arguments, r0 its result."""
        raise NotImplementedError

    def in_place(self, layout: MapLayout, helper: int) -> bool:
        """Emit a helper of a map of the plan where it is called: arguments in r1 to r4, the result to r0. False: a routine is to do it."""
        return False

    def routine(self, layout: MapLayout, helper: int) -> None:
        """Emit the routine of a helper: a C function of the helper's arguments."""
        raise NotImplementedError

    def cpu_number(self) -> None:
        """Load the number of the running CPU into r0."""
        raise NotImplementedError

    def disturbs(self, insn: Insn) -> frozenset[int]:
        """The CPU's registers that an instruction changes and that nobody restores at the end."""
        raise NotImplementedError

    def tail_call(self) -> None:
        """Have helper 12 find the entry of the other program; unless it says 0, give up the frame and go there with r1 as it was."""
        raise NotImplementedError

    def load_address(self, register: int, kind: str, value: int, addend: int) -> None:
        """Load an address into one of eBPF's registers by relocation."""
        raise NotImplementedError

    def packet(self, register: int, imm: int, size: int) -> None:
        """A packet load at register + imm (register -1: none), through a function; outside of the packet return 0."""
        raise NotImplementedError

    def reaches(self, jump: Jump, distance: int) -> bool:
        """Whether the short form of a jump reaches `distance` bytes from its start."""
        raise NotImplementedError

    def size_of(self, jump: Jump) -> int:
        """The bytes of a jump in its present form."""
        raise NotImplementedError

    def render(self, jump: Jump, distance: int) -> bytes:
        """The bytes of a jump over `distance` bytes from its start."""
        raise NotImplementedError

    def pool(self) -> None:
        """Emit what stands behind the code and the routines."""

    def settle(self, starts: list[int]) -> bool:
        """Fill in what depends on where the parts lie; True when that moved something, to be asked again."""
        return False

    # a program ------------------------------------------------------------------------------------------------

    def emit(
        self, functions: list[Function], plan: MapPlan | None = None, alone: frozenset[int] = frozenset()
    ) -> MachineCode:
        """Translate the functions of a program, the main one first."""
        self.plan = plan
        self.alone = alone
        for function in functions:
            if plan is not None:
                self.planned.update(find_calls(function.body, function.leaders, plan))
            self._emit_function(function)
        for (layout, helper), goal in self.routines.items():
            self.entries[goal] = len(self.parts)
            self.marks.append((len(self.parts), -1))
            self.routine(layout, helper)
        self.pool()
        return self._finish()

    def add(self, code: bytes) -> None:
        """Append code to the current instruction."""
        if code:
            self.parts.append(code)

    def reloc(self, byte: int, kind: str, value: int, addend: int = 0) -> None:
        """Note that 8 bytes of the next part, from `byte` on, take an address."""
        self.relocs.append((len(self.parts), byte, kind, value, addend))

    def _emit_function(self, function: Function) -> None:
        self.function = function
        self.entries[function.pc] = len(self.parts)
        self.marks.append((len(self.parts), -1 if function.pc == 0 else function.pc))
        self.add(self.prologue())
        for pc, insn in function.body:
            self.places[pc] = len(self.parts)
            self.marks.append((len(self.parts), pc))
            self._instruction(pc, insn)

    def _instruction(self, pc: int, insn: Insn) -> None:
        opcode = insn.opcode
        target = jump_target(pc, insn)
        if target is not None or opcode & 7 == 5 or opcode & 0xE7 in (0x20, 0x40):
            self.changed |= self.disturbs(insn)
        if target is not None:
            self._jump(insn, target)
        elif opcode == EXIT:
            self.add(self.leave())
        elif opcode & ~8 == CALL:
            self._call(pc, insn)
        elif opcode == LDDW and insn.src:
            self._wide(pc, insn)
        elif opcode & 7 == 0 and opcode != LDDW:
            size = {0x00: 4, 0x08: 2, 0x10: 1}[opcode & 0x18]
            self.packet(insn.src if opcode & 0xE0 == BPF_IND else -1, insn.imm, size)
        else:
            self._plain(insn, pc in self.alone)

    def _plain(self, insn: Insn, alone: bool = False) -> None:
        key = (insn.opcode, insn.dst, insn.src, insn.off, insn.imm)
        known = self.remembered()
        found = known.get(key)
        if found is None:
            op = get_op(insn)
            assert op is not None
            found = (self.plain(insn, op.name), self.disturbs(insn))
            if len(known) < _REMEMBER:
                known[key] = found
        code, changed = found
        self.changed |= changed
        self.add(self.unlocked(code) if alone else code)

    def _jump(self, insn: Insn, target: int) -> None:
        if insn.opcode in (JA, GOTOL):
            condition = -1
        elif insn.opcode == MAY_GOTO:
            condition = self.count_down()
        else:
            op = get_op(insn)
            assert op is not None
            condition = self.compare(insn, op.name)
        self.parts.append(Jump("jump", target, condition))

    def _call(self, pc: int, insn: Insn) -> None:
        if insn.opcode != CALL:
            self.call_register(insn.dst)
        elif insn.src == 1:
            self.parts.append(Jump("call", pc + 1 + insn.imm))
        elif insn.src == 2:
            self.call_outside("kfunc", insn.imm)
        elif insn.imm == 12:
            self.tail_call()
        elif pc in self.planned:
            self._planned(self.planned[pc], insn.imm)
        else:
            self.call_outside("helper", insn.imm)

    def _planned(self, number: int, helper: int) -> None:
        """A call that needs no helper."""
        if helper == CPU_NUMBER:
            self.cpu_number()
            return
        assert self.plan is not None
        layout = self.plan.layouts.get(number, NO_MAP)
        if not self.in_place(layout, helper):
            goal = self.routines.setdefault((layout, helper), -2 - len(self.routines))
            self.parts.append(Jump("call", goal))

    def _wide(self, pc: int, insn: Insn) -> None:
        """Addresses of maps, of their values and of local functions."""
        self.changed |= self.disturbs(insn)
        low = insn.imm & 0xFFFFFFFF
        if insn.src in (1, 5):
            self.load_address(insn.dst, "map", low, 0)
        elif insn.src in (2, 6):
            self.load_address(insn.dst, "map_value", low, insn.imm >> 32)
        elif insn.src == 4:
            self.load_address(insn.dst, "function", pc + 1 + low - (low >> 31 << 32), 0)
        else:
            raise FeatureError("kernel variables are only in the kernel", feature="jit:lddw_btf")

    # the end --------------------------------------------------------------------------------------------------

    def _finish(self) -> MachineCode:
        """Settle the lengths of jumps: all begin short, and those that do not reach grow until all do."""
        jumps = [(index, part) for index, part in enumerate(self.parts) if isinstance(part, Jump)]
        starts = self._place()
        while True:
            grown = False
            for index, jump in jumps:
                if not jump.long and not self.reaches(jump, starts[self._goal(jump)] - starts[index]):
                    jump.long = grown = True
            if not grown and not self.settle(starts):
                break
            starts = self._place()
        for index, jump in jumps:
            self.parts[index] = self.render(jump, starts[self._goal(jump)] - starts[index])
        text = b"".join(self.parts)  # type: ignore[arg-type]
        relocs = [
            CodeReloc(starts[part] + byte, kind, starts[self.entries[value]] if kind == "function" else value, addend)
            for part, byte, kind, value, addend in self.relocs
        ]
        marks = tuple((starts[part], pc) for part, pc in self.marks)
        return MachineCode(self.arch, text, tuple(relocs), marks, frozenset(self.changed))

    def _goal(self, jump: Jump) -> int:
        """The part that a jump leads to: of a call the entry, else the instruction."""
        return (self.entries if jump.kind == "call" else self.places)[jump.target]

    def _place(self) -> list[int]:
        starts, at = [], 0
        for part in self.parts:
            starts.append(at)
            at += self.size_of(part) if isinstance(part, Jump) else len(part)
        starts.append(at)
        return starts

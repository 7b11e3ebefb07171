"""The interpreter: runs eBPF in this process, with every access to memory checked. The reference that the JITs are held to.

A `Program` is machine code turned into Python once (`pycode`); a `Machine` holds what it runs on: memory, helpers, maps. Any access outside a
region, a write to what is read-only, too many steps or an unknown helper is a RunError that names the instruction. What the verifier would refuse is
not refused here: it runs until it does harm, so that the verifier can be tested against it.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError

from ..errors import FormatError, RunError
from .flow import split_functions
from .isa import (
    ACCESS_BYTES,
    BPF_ATOMIC,
    BPF_LDX,
    BPF_MEM,
    BPF_MEMSX,
    MAX_CALL_FRAMES,
    MAX_STACK_BYTES,
    MAX_TAIL_CALLS,
    Insn,
    decode,
    iter_pcs,
)
from .memory import Memory, describe_fault
from .pycode import Function, translate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from .maps import SharedMap
    from .runtime.world import World

    # helper(machine, r1, r2, r3, r4, r5) -> r0
    HelperFunction = Callable[["Machine", int, int, int, int, int], int]
    Trace = Callable[[int, tuple[int, ...]], object]  # trace(pc, registers r0 to r10)

M = 0xFFFFFFFFFFFFFFFF
DEFAULT_STEPS = 1_000_000
MAY_GOTO_LIMIT = 1 << 23

_FAULTS = (KeyError, IndexError, StructError, TypeError)
_ACCESSES = frozenset([BPF_MEM, BPF_MEMSX, BPF_ATOMIC])


def _sdiv(a: int, b: int, top: int) -> int:
    """Signed division toward zero of unsigned representations; by zero: 0. The smallest number by -1 is itself."""
    if not b:
        return 0
    x, y = (a ^ top) - top, (b ^ top) - top
    quotient = abs(x) // abs(y)
    return (quotient if (x < 0) == (y < 0) else -quotient) & (top << 1) - 1


def _smod(a: int, b: int, top: int) -> int:
    """The remainder that belongs to `_sdiv`, with the sign of the dividend; by zero: the dividend."""
    if not b:
        return a
    x, y = (a ^ top) - top, (b ^ top) - top
    rest = abs(x) % abs(y)
    return (-rest if x < 0 else rest) & (top << 1) - 1


def _swapper(size: int) -> Callable[[int], int]:
    return lambda value: int.from_bytes(value.to_bytes(size, "little"), "big")


_GLOBALS: dict[str, object] = {"sdiv": _sdiv, "smod": _smod}
for _size, _code in ((2, "H"), (4, "I"), (8, "Q")):
    _GLOBALS[f"u{_size * 8}"] = Struct("<" + _code).unpack_from
    _GLOBALS[f"p{_size * 8}"] = Struct("<" + _code).pack_into
    _GLOBALS[f"swap{_size * 8}"] = _swapper(_size)


class Program:
    """Machine code, ready to run on any Machine. `name` appears in messages."""

    def __init__(self, code: bytes | Sequence[Insn], name: str = "program") -> None:
        """Decode and check the shape. Raises FormatError, naming the pc, for unknown instructions, and jumps and calls to nowhere."""
        self.name = name
        self.insns = decode(code) if isinstance(code, bytes) else list(code)
        if not self.insns:
            raise FormatError(f"{name} has no instructions")
        self.bodies = split_functions(self.insns)
        self._file = f"<bpf {name} {id(self):#x}>"
        self._plain: dict[int, Callable[..., int]] = {}
        self._traced: dict[int, Callable[..., int]] = {}
        self._lines: dict[str, dict[int, int]] = {}
        self._find(0, False)

    def _find(self, pc: int, traced: bool) -> Callable[..., int]:
        """The Python function of the function that begins at `pc`."""
        functions = self._traced if traced else self._plain
        found = functions.get(pc)
        if found is None:
            made = translate(pc, self.bodies[pc], traced=traced)
            found = functions[pc] = self._compile(made, traced)
        return found

    def _compile(self, made: Function, traced: bool) -> Callable[..., int]:
        file = f"{self._file}{made.pc}{' traced' if traced else ''}"
        self._lines[file] = made.lines
        space = dict(_GLOBALS)
        exec(compile(made.source, file, "exec"), space)
        found: Callable[..., int] = space[f"f{made.pc}"]  # type: ignore[assignment]
        return found

    def find_pc(self, traceback: TracebackType | None) -> tuple[int, dict[str, int]]:
        """Return the pc that the innermost frame of a traceback was at, and its registers; (-1, {}) for frames not ours."""
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        if traceback is None:
            return -1, {}
        lines = self._lines.get(traceback.tb_frame.f_code.co_filename)
        return (-1, {}) if lines is None else (_line_pc(lines, traceback.tb_lineno), traceback.tb_frame.f_locals)


def _line_pc(lines: dict[int, int], line: int) -> int:
    while line and line not in lines:
        line -= 1
    return lines.get(line, -1)


class Machine:
    """What a program runs on. Helpers are found by their number, kernel functions by their BTF id.

    `maps` are by the number that a wide load has (a descriptor or an index); a map is any object, which helpers get by its address.
    `world` answers what helpers ask of the system around the program.
    """

    def __init__(
        self,
        helpers: Mapping[int, HelperFunction] | None = None,
        *,
        maps: Mapping[int, object] | None = None,
        kfuncs: Mapping[int, HelperFunction] | None = None,
        memory: Memory | None = None,
        world: World | None = None,
    ) -> None:
        if world is None:
            from .runtime.world import World

            world = World()
        self.world = world
        self.records: dict[int, tuple[SharedMap, int]] = {}
        self._places: dict[tuple[int, int, int], int] = {}
        self.memory = memory or Memory()
        self.helpers = _Helpers(helpers or {})
        self.kfuncs = dict(kfuncs or {})
        self.left = 0
        self.trace: Trace | None = None
        self.packet_data: bytes | bytearray | memoryview = b""
        self._program: Program | None = None
        self._depth = 0
        self._tail_calls = 0
        self._loops = MAY_GOTO_LIMIT
        self._stacks = [bytearray(MAX_STACK_BYTES) for _ in range(MAX_CALL_FRAMES)]
        self._frames = [self.memory.add(stack) + MAX_STACK_BYTES for stack in self._stacks]
        self._objects: dict[int, tuple[object, int]] = {}  # by id; the object is kept, so that its id stays its own
        self._maps = {number: (thing, self.map_address(thing)) for number, thing in (maps or {}).items()}
        self._functions: dict[tuple[int, int], int] = {}

    # running --------------------------------------------------------------------------------------------------

    def run(self, program: Program, context: int = 0, *, steps: int = DEFAULT_STEPS, trace: Trace | None = None) -> int:
        """Run a program with `context` in r1 and return r0.

        `trace(pc, registers)` is called before each instruction. Raises RunError; the memory stays as the program left it.
        """
        self.left, self.trace = steps, trace
        self._depth = self._tail_calls = 0
        self._loops = MAY_GOTO_LIMIT
        return self._start(program, context)

    def _start(self, program: Program, context: int) -> int:
        before, self._program = self._program, program
        depth = self._depth
        try:
            return self.enter(0, context)
        except _FAULTS as error:
            raise self._fault(program, error) from None
        except RunError as error:
            if error.pc >= 0:
                raise
            pc = _pc_of(program, error.__traceback__)
            raise RunError(error.message, pc=pc, address=error.address, hint=error.hint) from None
        finally:
            self._program, self._depth = before, depth

    def enter(self, pc: int, *args: int) -> int:
        """Call the function of the running program that begins at `pc`, as helpers with callbacks do. Raises RunError."""
        program, depth = self._program, self._depth
        assert program is not None
        if depth >= MAX_CALL_FRAMES:
            raise RunError(f"calls are nested more than {MAX_CALL_FRAMES} deep")
        self._depth = depth + 1
        stack = self._stacks[depth]
        stack[:] = bytes(MAX_STACK_BYTES)
        r1, r2, r3, r4, r5 = (*args, 0, 0, 0, 0, 0)[:5]
        found = program._find(pc, self.trace is not None)(self, r1, r2, r3, r4, r5, stack, self._frames[depth])
        self._depth = depth
        return found

    def call_address(self, address: int, *args: int) -> int:
        """Call the function that `function_address` gave this address, for helpers with callbacks. Raises RunError."""
        pc = self.memory.get_object(address)
        if not isinstance(pc, _FunctionAt):
            raise RunError(f"{address:#x} is no function", address=address)
        return self.enter(pc.pc, *args)

    def _fault(self, program: Program, error: BaseException) -> BaseException:
        pc, registers = program.find_pc(error.__traceback__)
        if pc < 0:
            return error  # a fault of a helper's own making
        insn = next(i for at, i in iter_pcs(program.insns) if at == pc)
        if insn.opcode & 0xE0 not in _ACCESSES or insn.opcode & 7 in (4, 5, 6, 7):
            return RunError(f"cannot be carried out: {error}", pc=pc)
        base = insn.src if insn.opcode & 7 == BPF_LDX or insn.imm == 0x100 else insn.dst
        size = ACCESS_BYTES[insn.opcode & 0x18]
        address = (registers[f"r{base}"] + insn.off) & M
        if isinstance(error, TypeError):
            return RunError(f"{size} bytes at {address:#x} may not be written", pc=pc, address=address)
        return RunError(describe_fault(self.memory, address, size), pc=pc, address=address)

    # what generated code calls --------------------------------------------------------------------------------

    def stop(self) -> None:
        """The steps are used up."""
        raise RunError("the program ran longer than it may", hint="raise the number of steps, if it does end")

    def expired(self) -> bool:
        """Whether may_goto leaves the loop."""
        self._loops -= 1
        return self._loops < 0

    def cast(self, value: int, spaces: int) -> int:
        """Address space casts: there is one space here."""
        return value

    def wide(self, kind: int, low: int, high: int) -> int:
        """What a wide load stands for: a map (1, 5), or a place in the value of a map with one entry (2, 6)."""
        if kind not in (1, 2, 5, 6) or low not in self._maps:
            raise RunError(f"no map has the number {low}" if kind in (1, 2, 5, 6) else "kernel variables are not there")
        thing, address = self._maps[low]
        if kind in (1, 5):
            return address
        value_address: Callable[[int], int] | None = getattr(thing, "value_address", None)
        if value_address is not None:
            return value_address(0) + high
        if getattr(getattr(thing, "shape", None), "kind", "") != "array":
            raise RunError("the map has no direct values")
        table: SharedMap = thing  # type: ignore[assignment]
        return self.place(table, table.find_at(bytes(4), 0), table.padded_size * table.max_entries) + high

    def map_at(self, address: int) -> object:
        """Return the map that a program's pointer stands for. Raises RunError."""
        found = self.memory.get_object(address)
        if found is None:
            raise RunError(f"{address:#x} is no map", address=address)
        return found

    def map_address(self, table: object) -> int:
        """Return the pointer that stands for a map, or for anything that programs only hand to helpers."""
        found = self._objects.get(id(table))
        if found is None:
            found = self._objects[id(table)] = (table, self.memory.add_object(table))
        return found[1]

    def place(self, table: SharedMap, offset: int, size: int) -> int:
        """Return the address of `size` bytes of a map's memory: the same each time. Values of read-only maps cannot be written."""
        key = (id(table), offset, size)
        found = self._places.get(key)
        if found is None or found >> 32 not in self.memory.regions:
            self.map_address(table)  # keeps it
            view = table.region.data[offset : offset + size]
            found = self._places[key] = self.memory.add(view.toreadonly() if table.shape.read_only else view)
        return found

    def lend(self, data: bytes) -> int:
        """Put bytes into memory for the time of a callback; return their address."""
        return self.memory.add(bytearray(data))

    def give_back(self, address: int) -> None:
        """Take lent bytes, or a record, out of the memory."""
        self.memory.remove(address)

    def function_address(self, pc: int) -> int:
        """The address of a function of the running program."""
        key = (id(self._program), pc)
        if key not in self._functions:
            self._functions[key] = self.memory.add_object(_FunctionAt(pc))
        return self._functions[key]

    def packet(self, offset: int, size: int) -> int:
        """Bytes of the packet in network order, or -1 beyond its end."""
        if offset + size > len(self.packet_data):
            return -1
        return int.from_bytes(bytes(self.packet_data[offset : offset + size]), "big")

    def kfunc(self, ident: int, off: int) -> HelperFunction:
        """The kernel function of a BTF id."""
        found = self.kfuncs.get(ident)
        if found is None:
            raise RunError(f"kernel function {ident} is not there")
        return found

    def tail_call(self, context: int, table: int, index: int) -> int | None:
        """Run another program in place of this one; None when there is none, or too many came before."""
        get_program = getattr(self.map_at(table), "get_program", None)
        if get_program is None:
            raise RunError("a tail call needs a program array", address=table)
        program: Program | None = get_program(index & 0xFFFFFFFF)
        if program is None or self._tail_calls >= MAX_TAIL_CALLS:
            return None
        self._tail_calls += 1
        self._depth -= 1  # the stack of the caller is given up
        try:
            return self._start(program, context)
        finally:
            self._depth += 1


class _FunctionAt:
    __slots__ = ("pc",)

    def __init__(self, pc: int) -> None:
        self.pc = pc


class _Helpers(dict[int, "HelperFunction"]):
    def __missing__(self, number: int) -> HelperFunction:
        from .helpers import HELPERS

        helper = HELPERS.get(number)
        raise RunError(f"helper {f'bpf_{helper.name}' if helper else number} is not there")


def _pc_of(program: Program, traceback: TracebackType | None) -> int:
    """The pc of the innermost frame that is the program's code."""
    found = -1
    while traceback is not None:
        lines = program._lines.get(traceback.tb_frame.f_code.co_filename)
        if lines is not None:
            found = _line_pc(lines, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found

"""The intermediate representation: a typed SSA with block parameters.

A `Module` holds functions, maps and nothing of any source language. Mutable variables of a source language
are `alloca` slots with loads and stores; the pass `promote` turns them into values. A block takes parameters (in place of phi
nodes), and every jump passes arguments for them.

Types are interned strings: i1 i8 i16 i32 i64, and pointers with their address space:

  ptr.stack    a stack slot, or wide scratch (the compiler decides which)
  ptr.map      map value memory: direct loads and stores, checked by the verifier
  ptr.mem      ring buffer records and other memory that a helper returned with a known size
  ptr.ctx      the program's context
  ptr.packet   packet data
  ptr.btf      a kernel pointer that the verifier trusts by its BTF type: direct loads, a fault reads zero
  ptr.kernel, ptr.user   a bare address: only helpers may read it
  ptr.mapobj   a map itself, as an argument for helpers
  ptr.func     a function, as an argument for helpers that call back

Values are 64-bit registers; an iN value has its upper bits undefined unless an extension made them. Arithmetic is
done in the width of its type.

op                          args              attrs                      result
const                       -                 imm                        iN or ptr (0: null; other: bare address)
add sub mul and or xor shl lshr ashr udiv sdiv umod smod   a, b          type of a
neg bswap                   a                                            type of a
eq ne ult ule ugt uge slt sle sgt sge    a, b                            i1
zext sext trunc             a                                            the new type
cast                        a                                            another pointer space, ptr <-> i64: no code
ptradd                      p, offset(i64)                               type of p
alloca                      -                 size, align, name          ptr.stack (entry block only; contents undefined)
load                        p                 offset, size in type       iN or ptr; volatile
store                       p, v              offset                     none; volatile
memcpy                      dst, src          size, offset, src_offset, align   none (sizes are constant)
memset                      dst               size, imm (byte), offset, align   none
core                        -                 core (CoreAccess)          i64, the value found on the target at load time
map                         -                 name                       ptr.mapobj
map_value                   -                 name, imm (offset)         ptr.map: address in entry 0 of an array map (global data)
ksym                        -                 name                       ptr.btf: address of a variable of the kernel, by its type in BTF
percpu_value                -                 name, imm (offset)         ptr.map: this CPU's entry 0 of a per-CPU array; never null in
                                                                         IR: the lowering adds the check, and returns from the program
call                        args...           name (helper)              i64 or pointer by the helper's prototype; may be null
callsub                     args...           name (function)            the function's result type
kfunc                       args...           name                       i64 or pointer
funcaddr                    -                 name                       ptr.func
atomic                      p, v[, expected]  name (add or and xor xchg cmpxchg), offset, fetch    none, or the old value
tailcall                    ctx, map, index                              none (falls through when it fails)
bound                       v                 imm (max), low             type of v: v, limited to low..max in a way that the verifier
                                                                         sees (the program's own logic guarantees or wants the clamp)
opaque                      v                                            v, hidden from folding

Terminators: jump B(args); branch c, B1(args), B2(args); ret [v]; unreachable.
`branch` takes an i1 (any iN: != 0). Pointer comparison with the constant 0 is the null check.

Text form, which `text.py` prints and parses (comments start with ;):

  map @counts hash key=4 value=8 max_entries=4096

  func @probe_1(%ctx: ptr.ctx) -> i64 program=tracepoint {
  entry:
    %key = alloca size=4 align=4
    %pt = call.i64 @get_current_pid_tgid
    %pid = lshr.i64 %pt, 32
    %p32 = trunc.i32 %pid
    store %key, %p32
    %m = map @counts
    %v = call.ptr.map @map_lookup_elem %m, %key
    %found = ne.i1 %v, 0:ptr.map
    branch %found, have(), none()
  have():
    %old = load.i64 %v
    %new = add.i64 %old, 1
    store %v, %new
    jump done()
  none():
    jump done()
  done():
    ret 0
  }
"""

from __future__ import annotations

from ..errors import Span
from ..spec.object import CoreAccess, MapSpec

I1, I8, I16, I32, I64 = "i1", "i8", "i16", "i32", "i64"
STACK, MAP, MEM, CTX, PACKET = "ptr.stack", "ptr.map", "ptr.mem", "ptr.ctx", "ptr.packet"
BTF, KERNEL, USER, MAPOBJ, FUNC = "ptr.btf", "ptr.kernel", "ptr.user", "ptr.mapobj", "ptr.func"
NONE = "none"

WIDTH = {I1: 1, I8: 8, I16: 16, I32: 32, I64: 64}
INT_OF_BYTES = {1: I8, 2: I16, 4: I32, 8: I64}

BINARY = frozenset(["add", "sub", "mul", "and", "or", "xor", "shl", "lshr", "ashr", "udiv", "sdiv", "umod", "smod"])
COMPARE = frozenset(["eq", "ne", "ult", "ule", "ugt", "uge", "slt", "sle", "sgt", "sge"])
TERMINATORS = frozenset(["jump", "branch", "ret", "unreachable"])


def is_pointer(type_: str) -> bool:
    """Tell whether `type_` is one of the pointer types."""
    return type_.startswith("ptr")


def bytes_of(type_: str) -> int:
    """Return the size in memory of a value of this type, in bytes."""
    return 8 if is_pointer(type_) else max(WIDTH[type_] // 8, 1)


class Value:
    """Anything that may be an operand: constants, parameters, instructions with a result."""

    __slots__ = ("name", "type")

    def __init__(self, type_: str, name: str = "") -> None:
        self.type = type_
        self.name = name


class Const(Value):
    """An integer (kept as a signed or unsigned Python int; only the low bits of the type's width count)."""

    __slots__ = ("imm",)

    def __init__(self, imm: int, type_: str = I64) -> None:
        super().__init__(type_)
        self.imm = imm


class Param(Value):
    """A parameter of a function or of a block."""

    __slots__ = ()


class Inst(Value):
    """One instruction; also its result. `attrs` of the table above are the slots below, at rest 0, "" or None."""

    __slots__ = ("align", "args", "core", "fetch", "imm", "low", "offset", "op", "size", "span", "src_offset", "symbol",
                 "volatile")  # fmt: skip

    def __init__(
        self,
        op: str,
        type_: str,
        args: list[Value],
        *,
        imm: int = 0,
        low: int = 0,
        symbol: str = "",
        offset: int = 0,
        src_offset: int = 0,
        size: int = 0,
        align: int = 0,
        core: CoreAccess | None = None,
        fetch: bool = False,
        volatile: bool = False,
        span: Span | None = None,
        name: str = "",
    ) -> None:
        super().__init__(type_, name)
        self.op = op
        self.args = args
        self.imm = imm
        self.low = low
        self.symbol = symbol  # `name` in the table: a helper, map, function or atomic operation
        self.offset = offset
        self.src_offset = src_offset
        self.size = size
        self.align = align
        self.core = core
        self.fetch = fetch
        self.volatile = volatile
        self.span = span


class Terminator:
    """The end of a block. `targets` are (block, arguments); `args` is the condition or the returned value."""

    __slots__ = ("args", "op", "span", "targets")

    def __init__(
        self,
        op: str,
        args: list[Value] | None = None,
        targets: list[tuple[Block, list[Value]]] | None = None,
        span: Span | None = None,
    ) -> None:
        self.op = op
        self.args = args or []
        self.targets = targets or []
        self.span = span


class Block:
    """A straight run of instructions. The first block of a function takes no parameters."""

    __slots__ = ("end", "insts", "name", "params")

    def __init__(self, name: str, params: list[Param] | None = None) -> None:
        self.name = name
        self.params = params or []
        self.insts: list[Inst] = []
        self.end: Terminator | None = None


class Function:
    """A program (`program` is its kernel type, see spec.ProgramSpec.type) or a subprogram (`program` is "").

    `static` subprograms may be inlined; `callback` ones must stay functions: helpers call them, or
    what they do depends on a frame of their own.
    """

    __slots__ = ("attach_btf", "attach_type", "blocks", "callback", "license", "name", "params", "program", "result",
                 "sleepable")  # fmt: skip

    def __init__(
        self,
        name: str,
        params: list[Param],
        result: str = I64,
        *,
        program: str = "",
        attach_type: str = "",
        attach_btf: str = "",
        callback: bool = False,
        sleepable: bool = False,
        license: str = "GPL",
    ) -> None:
        self.name = name
        self.params = params
        self.result = result
        self.program = program
        self.attach_type = attach_type
        self.attach_btf = attach_btf
        self.callback = callback
        self.sleepable = sleepable
        self.license = license
        self.blocks: list[Block] = []


class Module:
    """What one compilation works on."""

    __slots__ = ("functions", "maps")

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.maps: dict[str, MapSpec] = {}

    def add_map(self, spec: MapSpec) -> None:
        """Add a map; adding an equal one again is harmless, a different one of the same name is a ValueError."""
        if self.maps.setdefault(spec.name, spec) != spec:
            raise ValueError(f"two different maps are called {spec.name}")

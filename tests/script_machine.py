"""Runs whole bpftrace scripts without a kernel: an interpreter of the IR that lowering makes, with helpers and maps of its own.

Memory is a set of blocks at made-up addresses, so that a program that reads beyond its memory, or through a bad pointer, is found
out. What the programs send goes through the real session, decoders and text printer.

    run_body("print(1 + 1)")  ->  "2\n"
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from bt_typing import TARGET
from ir_machine import evaluate

from sonde.compiler.ir import BINARY, COMPARE, WIDTH, Const, Function, Inst, Module, Value, bytes_of
from sonde.debuginfo.btf import Btf
from sonde.debuginfo.corerelo import resolve
from sonde.lang.bpftrace.compile import front
from sonde.lang.bpftrace.lower import lower
from sonde.lang.bpftrace.options import Options
from sonde.lang.bpftrace.types import analyse
from sonde.lang.source import Source
from sonde.output.file import Sink
from sonde.output.text import TextPrinter
from sonde.record import replace
from sonde.runtime.fake import FakeObject, FakeReader
from sonde.runtime.session import Session, SessionOptions
from sonde.spec.object import MapSpec, ObjectSpec, ProgramSpec, Settings
from sonde.spec.target import Target

MASK = (1 << 64) - 1
CPUS = 2
KERNEL, USER = 0xFFFF_8880_0000_0000, 0x5000_0000_0000
STEP_LIMIT = 200_000
PID, TID, UID, GID = 4242, 4243, 1000, 100
COMM = b"worker"
NOW = 1_000_000_000_000


class Everything:
    """A machine that has every feature but those in `without`."""

    def __init__(self, *without: str) -> None:
        self.without = without

    def have(self, name: str) -> bool:
        return name not in self.without


def machine(*without: str) -> Target:
    """The target that scripts are compiled for: the types of `bt_typing`, all features but some."""
    return replace(TARGET, features=Everything("helper:get_current_task_btf", *without), possible_cpus=CPUS)


class Fault(Exception):
    """A program did what the verifier would not have allowed."""


class Memory:
    """Blocks of bytes at addresses; an access must lie within one block."""

    def __init__(self) -> None:
        self.bases: list[int] = []
        self.blocks: dict[int, bytearray] = {}
        self._next = {True: KERNEL, False: USER}

    def add(self, data: bytes | bytearray, *, user: bool = False) -> int:
        """Add a block; return its address."""
        base = self._next[not user]
        self._next[not user] += (len(data) + 0xFFF & ~0xFFF) + 0x1000
        self.bases.insert(bisect_right(self.bases, base), base)
        self.blocks[base] = data if isinstance(data, bytearray) else bytearray(data)
        return base

    def find(self, address: int, size: int) -> tuple[bytearray, int]:
        """Return the block and the offset of `size` bytes."""
        index = bisect_right(self.bases, address) - 1
        if index < 0:
            raise Fault(f"access to 0x{address:x}")
        base = self.bases[index]
        block = self.blocks[base]
        if address + size > base + len(block):
            raise Fault(f"{size} bytes at 0x{address:x}, {len(block)} are at 0x{base:x}")
        return block, address - base

    def read(self, address: int, size: int) -> bytes:
        block, at = self.find(address, size)
        return bytes(block[at : at + size])

    def write(self, address: int, data: bytes) -> None:
        block, at = self.find(address, len(data))
        block[at : at + len(data)] = data

    def readable(self, address: int, size: int, user: bool) -> bytes | None:
        """What the helpers that read memory find there."""
        if (address < KERNEL) != user:
            return None
        try:
            return self.read(address, size)
        except Fault:
            return None


class LiveMap:
    """A map whose values are memory; follows spec.engine.Map."""

    def __init__(self, spec: MapSpec, memory: Memory) -> None:
        self.spec = spec
        self.memory = memory
        self.entries: dict[bytes, list[int]] = {}
        self.per_cpu = "percpu" in spec.type
        if spec.type.endswith("array"):
            self.insert(bytes(4), bytes(spec.value_size))

    def insert(self, key: bytes, value: bytes, cpu: int = -1) -> int:
        """Put an entry in; per-CPU entries are 0 on the other CPUs."""
        if key not in self.entries:
            if len(self.entries) >= self.spec.max_entries:
                return -7
            count = CPUS if self.per_cpu else 1
            self.entries[key] = [self.memory.add(bytes(self.spec.value_size)) for _ in range(count)]
        places = self.entries[key]
        for index, place in enumerate(places):
            if cpu in (-1, index) or not self.per_cpu:
                self.memory.write(place, value.ljust(self.spec.value_size, b"\0"))
        return 0

    def lookup(self, key: bytes) -> list[bytes] | None:
        places = self.entries.get(bytes(key))
        return None if places is None else [self.memory.read(p, self.spec.value_size) for p in places]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        self.insert(bytes(key), bytes(value))

    def update_each(self, key: bytes, values: Sequence[bytes]) -> None:
        for cpu, value in enumerate(values):
            self.insert(bytes(key), value, cpu)

    def delete(self, key: bytes) -> bool:
        return self.entries.pop(bytes(key), None) is not None

    def items(self) -> Iterator[tuple[bytes, list[bytes]]]:
        for key in list(self.entries):
            yield key, self.lookup(key) or []

    def close(self) -> None: ...


class World:
    """The machine around the programs: memory, maps, the ring, and what helpers answer."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.maps: dict[str, LiveMap] = {}
        self.ring = FakeReader()
        self.reserved: dict[int, bytearray] = {}
        self.ring_room = 10_000
        self.cpu = 0
        self.calls: list[str] = []
        self.stack = (0x1111, 0x2222, 0x3333)
        self.comm = COMM
        self.task = 0
        self.overrides: list[tuple[int, ...]] = []  # what functions were made to return, signed
        self.types: Btf | None = None  # of a kernel that is not the one that the script was compiled for

    def string(self, text: str) -> int:
        """Put a string into the memory of the traced process; return its address."""
        return self.memory.add(text.encode() + b"\0", user=True)


class Run:
    """One run of one function."""

    def __init__(self, world: World, module: Module, function: Function, arguments: Sequence[int]) -> None:
        self.world = world
        self.module = module
        self.function = function
        self.values: dict[Value, int] = dict(zip(function.params, arguments))
        self.slots: dict[Inst, int] = {}

    def get(self, value: Value) -> int:
        if isinstance(value, Const):
            return value.imm & (1 << WIDTH.get(value.type, 64)) - 1
        return self.values[value]

    def run(self) -> int:
        block, passed = self.function.blocks[0], []
        for _ in range(STEP_LIMIT):
            self.values.update(zip(block.params, passed))
            for inst in block.insts:
                self.values[inst] = self.step(inst)
            end = block.end
            assert end is not None, f"{block.name} has no end"
            if end.op == "ret":
                return self.get(end.args[0]) & MASK
            which = 0 if end.op == "jump" or self.get(end.args[0]) else 1
            target, given = end.targets[which]
            assert len(given) == len(target.params)
            block, passed = target, [self.get(a) for a in given]
        raise Fault("too many steps")

    def step(self, inst: Inst) -> int:
        op, arguments = inst.op, [self.get(a) for a in inst.args]
        if op in BINARY or op in COMPARE:
            return evaluate(op, arguments[0], arguments[1], WIDTH.get(inst.args[0].type, 64))
        return STEPS[op](self, inst, arguments) or 0


def _convert(run: Run, inst: Inst, a: list[int]) -> int:
    width = WIDTH.get(inst.args[0].type, 64)
    number = a[0] & (1 << width) - 1
    if inst.op == "sext" and number >> width - 1:
        number -= 1 << width
    return number & (1 << WIDTH.get(inst.type, 64)) - 1


def _bswap(run: Run, inst: Inst, a: list[int]) -> int:
    size = WIDTH[inst.type] // 8
    return int.from_bytes((a[0] & (1 << 8 * size) - 1).to_bytes(size, "little"), "big")


def _load(run: Run, inst: Inst, a: list[int]) -> int:
    return int.from_bytes(run.world.memory.read(a[0] + inst.offset & MASK, bytes_of(inst.type)), "little")


def _store(run: Run, inst: Inst, a: list[int]) -> int:
    size = bytes_of(inst.args[1].type)
    run.world.memory.write(a[0] + inst.offset, (a[1] & (1 << 8 * size) - 1).to_bytes(size, "little"))
    return 0


def _memcpy(run: Run, inst: Inst, a: list[int]) -> int:
    run.world.memory.write(a[0] + inst.offset, run.world.memory.read(a[1] + inst.src_offset, inst.size))
    return 0


def _memset(run: Run, inst: Inst, a: list[int]) -> int:
    run.world.memory.write(a[0] + inst.offset, bytes([inst.imm & 255]) * inst.size)
    return 0


def _alloca(run: Run, inst: Inst, a: list[int]) -> int:
    if inst not in run.slots:
        run.slots[inst] = run.world.memory.add(bytes([0xAA]) * inst.size)  # contents undefined
    return run.slots[inst]


def _map_value(run: Run, inst: Inst, a: list[int]) -> int:
    places = run.world.maps[inst.symbol].entries[bytes(4)]
    return places[run.world.cpu if len(places) > 1 else 0] + inst.imm


def _atomic(run: Run, inst: Inst, a: list[int]) -> int:
    assert inst.symbol == "add"
    size = bytes_of(inst.args[1].type)
    memory = run.world.memory
    old = int.from_bytes(memory.read(a[0] + inst.offset, size), "little")
    memory.write(a[0] + inst.offset, (old + a[1] & (1 << 8 * size) - 1).to_bytes(size, "little"))
    return old


def _call(run: Run, inst: Inst, a: list[int]) -> int:
    run.world.calls.append(inst.symbol)
    return HELPERS[inst.symbol](run, inst, a) & MASK


def _callsub(run: Run, inst: Inst, a: list[int]) -> int:
    return Run(run.world, run.module, run.module.functions[inst.symbol], a).run()


def _core(run: Run, inst: Inst, a: list[int]) -> int:
    """What an object that goes to other kernels finds there when it is loaded."""
    assert inst.core is not None
    value = inst.core.value if run.world.types is None else resolve(inst.core, run.world.types).value
    if value is None:
        raise Fault(f"{inst.core} has no answer")
    return value & MASK


STEPS: dict[str, Callable[[Run, Inst, list[int]], int | None]] = {
    "zext": _convert,
    "sext": _convert,
    "trunc": _convert,
    "cast": _convert,
    "neg": lambda run, inst, a: -a[0] & (1 << WIDTH[inst.type]) - 1,
    "bswap": _bswap,
    "ptradd": lambda run, inst, a: a[0] + a[1] & MASK,
    "bound": lambda run, inst, a: min(max(a[0], inst.low), inst.imm),
    "alloca": _alloca,
    "load": _load,
    "store": _store,
    "memcpy": _memcpy,
    "memset": _memset,
    "map": lambda run, inst, a: list(run.world.maps).index(inst.symbol),
    "map_value": _map_value,
    "percpu_value": _map_value,
    "atomic": _atomic,
    "core": _core,
    "call": _call,
    "callsub": _callsub,
    "funcaddr": lambda run, inst, a: list(run.module.functions).index(inst.symbol),
}


def _map_of(run: Run, number: int) -> LiveMap:
    return list(run.world.maps.values())[number]


# Helpers ----------------------------------------------------------------------------------------------------------


def _reserve(run: Run, inst: Inst, a: list[int]) -> int:
    world = run.world
    if not world.ring_room:
        return 0
    world.ring_room -= 1
    record = bytearray(b"\xee" * a[1])
    address = world.memory.add(record)
    world.reserved[address] = record
    return address


def _submit(run: Run, inst: Inst, a: list[int]) -> int:
    run.world.ring.feed(bytes(run.world.reserved.pop(a[0])))
    return 0


def _lookup(run: Run, inst: Inst, a: list[int]) -> int:
    live = _map_of(run, a[0])
    places = live.entries.get(run.world.memory.read(a[1], live.spec.key_size))
    return 0 if places is None else places[run.world.cpu if len(places) > 1 else 0]


def _lookup_percpu(run: Run, inst: Inst, a: list[int]) -> int:
    live = _map_of(run, a[0])
    places = live.entries.get(run.world.memory.read(a[1], live.spec.key_size))
    return 0 if places is None or a[2] >= len(places) else places[a[2]]


def _update(run: Run, inst: Inst, a: list[int]) -> int:
    live, memory = _map_of(run, a[0]), run.world.memory
    key, value = memory.read(a[1], live.spec.key_size), memory.read(a[2], live.spec.value_size)
    assert 0xAA not in key or len(set(key)) > 1, "a key of which nothing was written"
    return live.insert(key, value, run.world.cpu)


def _delete(run: Run, inst: Inst, a: list[int]) -> int:
    live = _map_of(run, a[0])
    return 0 if live.delete(run.world.memory.read(a[1], live.spec.key_size)) else -2


def _read(user: bool) -> Callable[[Run, Inst, list[int]], int]:
    def helper(run: Run, inst: Inst, a: list[int]) -> int:
        data = run.world.memory.readable(a[2], a[1], user)
        run.world.memory.write(a[0], data if data is not None else bytes(a[1]))
        return 0 if data is not None else -14

    return helper


def _read_str(user: bool) -> Callable[[Run, Inst, list[int]], int]:
    def helper(run: Run, inst: Inst, a: list[int]) -> int:
        memory, size = run.world.memory, a[1]
        if not size:
            return 0
        data = b""
        while len(data) < size:
            byte = memory.readable(a[2] + len(data), 1, user)
            if byte is None:
                memory.write(a[0], bytes(size))
                return -14
            data += byte
            if byte == b"\0":
                break
        data = data[: size - 1].split(b"\0")[0] + b"\0"
        memory.write(a[0], data)
        return len(data)

    return helper


def _comm(run: Run, inst: Inst, a: list[int]) -> int:
    name = run.world.comm[: a[1] - 1] + b"\0"
    run.world.memory.write(a[0], name)  # as Linux 6.1: nothing behind the end
    return 0


def _get_stack(run: Run, inst: Inst, a: list[int]) -> int:
    data = b"".join(pc.to_bytes(8, "little") for pc in run.world.stack)[: a[2]]
    run.world.memory.write(a[1], data)
    return len(data)


def _loop(run: Run, inst: Inst, a: list[int]) -> int:
    function = list(run.module.functions.values())[a[1]]
    for index in range(a[0]):
        if Run(run.world, run.module, function, [index, a[2]]).run():
            break
    return 0


def _for_each(run: Run, inst: Inst, a: list[int]) -> int:
    live, function = _map_of(run, a[0]), list(run.module.functions.values())[a[1]]
    count = 0
    for key, places in list(live.entries.items()):
        count += 1
        place = places[run.world.cpu if len(places) > 1 else 0]
        if Run(run.world, run.module, function, [a[0], run.world.memory.add(key), place, a[2]]).run():
            break
    return count


def _override(run: Run, inst: Inst, a: list[int]) -> int:
    run.world.overrides.append((a[0], a[1] - (1 << 64) if a[1] >> 63 else a[1]))
    return 0


def _write_user(run: Run, inst: Inst, a: list[int]) -> int:
    if run.world.memory.readable(a[0], a[2], True) is None:
        return -14
    run.world.memory.write(a[0], run.world.memory.read(a[1], a[2]))
    return 0


HELPERS: dict[str, Callable[[Run, Inst, list[int]], int]] = {
    "override_return": _override,
    "probe_write_user": _write_user,
    "ringbuf_reserve": _reserve,
    "ringbuf_submit": _submit,
    "map_lookup_elem": _lookup,
    "map_lookup_percpu_elem": _lookup_percpu,
    "map_update_elem": _update,
    "map_delete_elem": _delete,
    "probe_read_kernel": _read(False),
    "probe_read_user": _read(True),
    "probe_read_kernel_str": _read_str(False),
    "probe_read_user_str": _read_str(True),
    "get_current_comm": _comm,
    "get_current_pid_tgid": lambda run, inst, a: PID << 32 | TID,
    "get_current_uid_gid": lambda run, inst, a: GID << 32 | UID,
    "get_current_task": lambda run, inst, a: run.world.task,
    "get_smp_processor_id": lambda run, inst, a: run.world.cpu,
    "ktime_get_boot_ns": lambda run, inst, a: NOW,
    "ktime_get_ns": lambda run, inst, a: NOW - 1,
    "ktime_get_tai_ns": lambda run, inst, a: NOW + 37_000_000_000,
    "get_prandom_u32": lambda run, inst, a: 7,
    "get_stack": _get_stack,
    "loop": _loop,
    "for_each_map_elem": _for_each,
}


# Scripts ----------------------------------------------------------------------------------------------------------


class Loaded(FakeObject):
    """A loaded object. Probes hit once, while they are being attached."""

    def __init__(self, spec: ObjectSpec, module: Module, world: World, contexts: dict[str, bytes]) -> None:
        super().__init__(spec, {})
        for each in spec.maps:
            world.maps[each.name] = LiveMap(each, world.memory)
        self.maps = world.maps  # type: ignore[assignment]
        self.ring = world.ring
        self._module = module
        self._world = world
        self._contexts = {p.program: contexts.get(p.type, bytes(512)) for p in spec.probes}

    def _call(self, program: str) -> None:
        if program not in self._contexts:  # "detach": nothing hits while the probes go
            return
        address = self._world.memory.add(self._contexts[program])
        Run(self._world, self._module, self._module.functions[program], [address]).run()


class Engine:
    """Follows spec.engine.Engine."""

    name = "interpreter"

    def __init__(self, module: Module, world: World, contexts: dict[str, bytes]) -> None:
        self._module, self._world, self._contexts = module, world, contexts

    def load(self, spec: ObjectSpec) -> Loaded:
        return Loaded(spec, self._module, self._world, self._contexts)


def lower_script(text: str, target: Target | None = None, **options: object):  # type: ignore[no-untyped-def]
    """Return what lowering makes of a script."""
    source = Source("stdin", text)
    target = target or machine()
    chosen = Options(unsafe=True, **options)
    program, config = front(source, chosen, {})
    return lower(analyse(program, source, target, config, chosen), target, config, chosen)


def run_script(
    text: str,
    world: World | None = None,
    target: Target | None = None,
    contexts: dict[str, bytes] | None = None,
    **options: object,
) -> str:
    """Run a script to its end and return what it printed; the blank lines before the maps at the end are dropped."""
    lowered = lower_script(text, target, **options)
    world = world or World()
    spec = ObjectSpec(
        tuple(ProgramSpec(f.name, f.program, b"") for f in lowered.module.functions.values() if f.program),
        tuple(lowered.module.maps.values()),
        lowered.probes,
        lowered.events,
        lowered.views,
        lowered.strings,
        lowered.ringbuf,
        lowered.lost,
        failures=lowered.failures,
        settings=Settings(start_offset=lowered.start_offset),
    )
    with tempfile.TemporaryFile() as output:
        printer = TextPrinter(Sink(output.fileno(), "a file", "full"), quiet=True)
        session = Session(Engine(lowered.module, world, contexts or {}), spec, printer, SessionOptions(signals=False))
        session.run()
        printer.close()
        output.seek(0)
        return output.read().decode("utf-8", "surrogateescape").strip("\n") + "\n"


def run_body(body: str, world: World | None = None, target: Target | None = None, **options: object) -> str:
    """Run the body of a `begin` probe."""
    return run_script(f"begin {{ {body} }}", world, target, **options)

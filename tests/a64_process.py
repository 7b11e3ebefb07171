"""An aarch64 process with scripts of the user engine in it, made of what a real one would have and run in QEMU's user mode.

There is no ptrace(2) there, so the memory that sonde would share with a process stands in an executable that is made here: the program's own segments with the patched words,
an agent's memory with what `Image` places in it, state, private memory and maps. The program writes what it found itself, then the memory from STATE on.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from a64_moved import executable

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.bpf.isa import decode
from sonde.bpf.maps import MapShape, SharedMap, create, measure
from sonde.debuginfo.elf import PT_LOAD, Elf
from sonde.record import replace
from sonde.spec.object import MapSpec, ObjectSpec, ProbeSpec
from sonde.spec.relocation import relocate as number_maps
from sonde.user import frame
from sonde.user.a64 import machine
from sonde.user.a64.relocate import relocate
from sonde.user.a64.window import Window, plan_window
from sonde.user.budget import Gates
from sonde.user.helpers import Facts
from sonde.user.image import Image
from sonde.user.runners import Calls, Runner, Surroundings
from sonde.user.syscalls import ANY, wanted_of
from sonde.user.target import user_target

TEXT, CODE, CODE_BYTES = 0x13000000, 0x14000000, 1 << 20
PRIVATE = 0x16000000
STATE = 0x18000000
SLOTS = 7
RSEQ = -64  # where the programs of these tests keep what the kernel would have registered, from the thread pointer
RESULT_BYTES = 256
_RING_BYTES = 1 << 16
_GATES_BYTES = 4096


class Memory:
    """What stands for an agent: memory for code, filled from its start."""

    def __init__(self, address: int = CODE, size: int = CODE_BYTES) -> None:
        self.address, self.size = address, size
        self.memory = bytearray(size)
        self._next = 0

    @property
    def room(self) -> tuple[int, int]:
        return self.size - self._next, 1 << 16

    def reserve(self, size: int, align: int = 16) -> int:
        start = (self._next + align - 1) & -align
        assert start + size <= self.size
        self._next = start + size
        return self.address + start

    def write(self, address: int, code: bytes) -> None:
        at = address - self.address
        self.memory[at : at + len(code)] = code

    def place(self, code: bytes, align: int = 16) -> int:
        address = self.reserve(len(code), align)
        self.write(address, code)
        return address


def place_maps(spec: ObjectSpec, at: int) -> tuple[dict[str, SharedMap], dict[int, tuple[SharedMap, int]], int]:
    """Make the maps of a script: by name; by number with the address of each, from `at` on; and where they end."""
    maps, tables = {}, {}
    for number, each in enumerate(spec.maps, 1):
        entries = _RING_BYTES if each.type == "ringbuf" else each.max_entries
        shape = MapShape(each.type, each.key_size, each.value_size, entries, each.flags & 1, each.name, cpus=SLOTS + 1)
        table = maps[each.name] = create(shape)
        if each.initial:
            table.update(bytes(4), each.initial.ljust(each.value_size, b"\0"))
        tables[number] = table, at
        at += sum(measure(shape)) + 4095 & -4096
    return maps, tables, at


class Process:
    """A program, and the script that is in it when it runs."""

    def __init__(
        self,
        path: Path,
        script: str = "",
        *,
        rseq: bool = True,
        features: Iterable[str] = (),
        allowed: int = -1,
        unsafe: bool = False,
        clock: bytes = b"",
        maps: Sequence[MapSpec] = (),
        **facts: int,
    ) -> None:
        """`maps` are those that there are without a script. `allowed`: so many hits of each probe are looked at (-1: all). `clock`: code that stands for the vdso's clock_gettime. `facts` are others that
        helpers may use (helpers.Facts).
        """
        self.path, self.unsafe = path, unsafe
        self.agent = Memory()
        self.maps: dict[str, SharedMap] = {}
        self.patches: dict[int, bytes] = {}
        self.state = bytearray(frame.state_bytes(SLOTS))
        self.runners: list[Runner] = []  # of probes, in the script's order
        with Elf.open(str(path)) as elf:
            self.segments = [
                (s.vaddr, bytearray(elf.data[s.offset : s.offset + s.file_size]), s.memory_size)
                for s in elf.segments
                if s.type == PT_LOAD
            ]
            self.symbols = {s.name: s.vaddr for s in elf.iter_symbols() if s.name}
            self.functions = frozenset(elf.function_starts())
            self.entry = elf.entry
        self.spec = self._compile(script) if script else ObjectSpec((), tuple(maps)) if maps else None
        self._lay_out_maps()
        cpu_code = machine.cpu_code(RSEQ if rseq else None, SLOTS)
        around = Surroundings(STATE, PRIVATE, SLOTS, cpu_code, gates=self._open_gates(allowed))
        known = Facts(STATE, PRIVATE, self.agent.place(clock) if clock else 0, knows_cpu=rseq, **facts)
        self.image = Image(self.agent, self.tables, around, known, machine, frozenset(features))  # type: ignore[arg-type]
        if self.spec is not None:
            self._put_in(self.spec)

    def _compile(self, script: str) -> ObjectSpec:
        target = replace(user_target(live_target(), unsafe=self.unsafe), arch="aarch64", possible_cpus=SLOTS + 1)
        return compile(script.replace("PATH", str(self.path)), target, TraceOptions(pid=0, unsafe=self.unsafe))

    def _open_gates(self, allowed: int) -> Gates | None:
        """Put the words of a budget behind the state, which ends with room for them."""
        if allowed < 0 or self.spec is None:
            return None
        self.gates = Gates(STATE + frame.state_bytes(SLOTS), len(self.spec.probes), SLOTS)
        assert self.gates.size <= _GATES_BYTES
        self.state += allowed.to_bytes(8, "little")
        return self.gates

    def gate(self, number: int) -> tuple[int, int]:
        """How many hits of a probe were looked at, and passed over."""
        words = [self.gates.looked_at(number)]
        words += [self.gates.passed_over(number) + self.gates.stride * slot for slot in range(SLOTS)]
        looked, *passed = (int.from_bytes(self.memory[at - STATE :][:8], "little") for at in words)
        return looked, sum(passed)

    def _lay_out_maps(self) -> None:
        first = STATE + frame.state_bytes(SLOTS) + _GATES_BYTES
        self.maps, self.tables, self.end = place_maps(self.spec, first) if self.spec else ({}, {}, first)

    # probes ---------------------------------------------------------------------------------------------------

    def _put_in(self, spec: ObjectSpec) -> None:
        numbers = {each.name: number for number, each in enumerate(spec.maps, 1)}
        programs = {each.name: decode(bytes(number_maps(each, numbers))) for each in spec.programs}
        sites: dict[int, list[tuple[str, Runner]]] = {}
        calls = []
        for account, probe in enumerate(spec.probes):
            record = probe.type == "tracepoint"
            runner = self.image.program(programs[probe.program], probe.cookie, record=record)
            if self.image.around.gates is not None:
                runner = replace(runner, account=account)
            self.runners.append(runner)
            if record:
                calls.append((probe, runner))
            else:
                sites.setdefault(self.address_of(probe), []).insert(0, (probe.type, runner))
        for address, runners in sites.items():
            before = [runner for kind, runner in runners if kind == "uprobe"]
            self.probe(address, before, [runner for kind, runner in runners if kind == "uretprobe"])
        if calls:
            self._probe_calls(calls)

    def address_of(self, probe: ProbeSpec) -> int:
        with Elf.open(str(self.path)) as elf:
            return elf.get_vaddr(probe.offset)

    def _window(self, address: int) -> Window:
        start, data, _ = next(s for s in self.segments if s[0] <= address < s[0] + len(s[1]))
        first = max((each for each in self.functions if each <= address), default=start)
        return plan_window(bytes(data), address, start=first, end=start + len(data), base=start)

    def patch(self, address: int, code: bytes) -> None:
        self.patches[address] = code
        start, data, _ = next(s for s in self.segments if s[0] <= address < s[0] + len(s[1]))
        data[address - start : address - start + 4] = code

    def probe(self, address: int, before: Sequence[Runner], after: Sequence[Runner] = ()) -> None:
        """What `Inside._build` does."""
        kind = frame.ENTRY if address in self.functions else frame.INSIDE
        start, window = self.agent.reserve(0), self._window(address)
        assert window.kind in ("nop", "relocated"), (hex(address), window.reason)
        if after:
            head, tail = machine.returning(start, before, after, self.image.around, address, window.signs)
            code = head + tail
        else:
            code = machine.entry(start, before, self.image.around, kind, address)
        code += relocate(window.code, address, start + len(code)).code
        self.agent.place(code)
        self.patch(address, machine.jump_to(address, start))

    def _probe_calls(self, wanted: Sequence[tuple[ProbeSpec, Runner]]) -> None:
        """What `Inside._plan_calls` does, at every place that makes system calls."""
        runners = [(wanted_of(probe, machine.NAME), runner) for probe, runner in wanted]
        numbers = frozenset(each.number for each, _ in runners)
        for start, data, _ in self.segments:
            for at, number in machine.find_calls(bytes(data), lambda at: -1):
                if number >= 0 and ANY not in numbers and number not in numbers:
                    continue
                here = [
                    (number if w.number == ANY and number >= 0 else w.number, w.exits, r)
                    for w, r in runners
                    if number < 0 or w.number in (ANY, number)
                ]
                calls = Calls(
                    tuple((n, r) for n, exits, r in here if not exits), tuple((n, r) for n, exits, r in here if exits)
                )
                self._probe_call(start + at, calls)

    def _probe_call(self, address: int, calls: Calls) -> None:
        window = self._window(address)
        if window.kind == "none":
            return
        start = self.agent.reserve(0)
        around = self.image.around
        code, _ = machine.system_calls(start, calls, around, address, 4)
        moved = relocate(window.code, address, start + len(code))
        self.agent.place(code + moved.code)
        self.patch(address, machine.jump_to(address, start))

    # running --------------------------------------------------------------------------------------------------

    def build(self) -> bytes:
        """The executable."""
        if self.spec is not None:
            self._store(self.symbols["dump_start"], STATE, self.end)
        first = min(self.segments, key=lambda s: not s[0] <= self.entry < s[0] + len(s[1]))
        assert first[0] <= self.entry < first[0] + len(first[1])
        pages = [(s & -4096, bytes(s & 4095) + bytes(d), (s & 4095) + size) for s, d, size in self.segments]
        return executable(pages + self.memory_of_ours(), self.entry)

    def memory_of_ours(self) -> list[tuple[int, bytes, int]]:
        """What sonde has in the process: address, content, size."""
        memory = self.state.ljust(self.end - STATE, b"\0")
        for table, address in self.tables.values():
            data = bytes(table.region.data[: measure(table.shape)[0]])
            memory[address - STATE : address - STATE + len(data)] = data
        private = (PRIVATE, b"", frame.private_bytes())
        return [(CODE, bytes(self.agent.memory), CODE_BYTES), private, (STATE, bytes(memory), len(memory))]

    def _store(self, address: int, *words: int) -> None:
        for start, data, _ in self.segments:
            if start <= address < start + len(data):
                data[address - start : address - start + 8 * len(words)] = struct.pack(f"<{len(words)}Q", *words)

    def run(self, qemu: str, folder: Path) -> tuple[int, ...]:
        """Run it; return the program's results. Maps have what it has left in them."""
        path = folder / "process"
        path.write_bytes(self.build())
        path.chmod(0o755)
        done = subprocess.run([qemu, str(path)], capture_output=True, timeout=200)
        assert done.returncode == 0, (done.returncode, done.stderr)
        results, self.memory = done.stdout[:RESULT_BYTES], done.stdout[RESULT_BYTES:]
        assert len(self.memory) == (self.end - STATE if self.spec is not None else 0)
        for table, address in self.tables.values():
            size = measure(table.shape)[0]
            table.region.data[:size] = self.memory[address - STATE : address - STATE + size]
        return struct.unpack(f"<{RESULT_BYTES // 8}q", results)

    def missed(self) -> int:
        """How many runs found no slot, or returns no place."""
        return int.from_bytes(self.memory[frame.MISSED :][:8], "little")

    def busy(self) -> int:
        """How many slots are still claimed."""
        return sum(self.memory[frame.BUSY + frame.BUSY_STRIDE * n] for n in range(SLOTS))

    def numbers(self, name: str = "", at: int = 0) -> dict[bytes, int]:
        """The entries of a script's map, with the sum of all copies of the number at an offset."""
        return {
            key: sum(int.from_bytes(value[at : at + 8], "little") for value in copies)
            for key, copies in self.maps["AT_" + name].items()
        }

    def number(self, name: str = "", at: int = 0) -> int:
        """The number of the only entry."""
        (found,) = self.numbers(name, at).values()
        return found


def build_program(folder: Path, assembler: str) -> Path:
    """Assemble and link the program of these tests."""
    source, made = Path(__file__).with_name("a64_program.s"), folder / "program"
    subprocess.run([assembler, "-o", str(made) + ".o", str(source)], check=True)
    subprocess.run(
        [assembler[: -len("as")] + "ld", f"-Ttext-segment={TEXT:#x}", "-o", str(made), str(made) + ".o"], check=True
    )
    return made

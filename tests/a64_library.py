"""A library of aarch64 with trampolines in it, rewritten so that it has all that sonde would have put into a process, and run in QEMU's user mode.

One more segment holds an agent's memory with what `Image` places there, state, maps and the private memory. QEMU puts files where it has put them before, so that addresses are known: the first run
is that of the file with the segment but without trampolines, and tells both the address and, by QEMU's own record of each instruction, what is to be counted. Where the process ends
it writes state and maps to descriptor WRITE_TO first.
"""

from __future__ import annotations

import random
import struct
import subprocess
from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from a64_process import CODE_BYTES, SLOTS, Memory, place_maps

from sonde.bpf.isa import decode
from sonde.bpf.jit.a64_encoding import mov_imm
from sonde.bpf.maps import SharedMap, measure
from sonde.debuginfo.elf import PT_LOAD, PT_NOTE, SHF_EXECINSTR, Elf
from sonde.errors import ProbeError
from sonde.spec.object import ObjectSpec
from sonde.spec.relocation import relocate as number_maps
from sonde.user import frame
from sonde.user.a64 import machine
from sonde.user.a64.code import Code
from sonde.user.a64.decode import kind_of
from sonde.user.a64.relocate import relocate
from sonde.user.a64.window import plan_window
from sonde.user.helpers import Facts
from sonde.user.image import Image
from sonde.user.runners import Runner, Surroundings
from sonde.user.unwinding import find_bound
from sonde.user.x86.text import read_unwind_index

LOADER, LIBRARY = "ld-linux-aarch64.so.1", "libc.so.6"
ALIGN = 1 << 16
WRITE_TO = 2
_EXIT_GROUP = 94
_PT_GNU_STACK = 0x6474E551
_CODE_ROOM = 8 * CODE_BYTES


class Library:
    """A file to be probed. `every`: beside all functions, one in so many instructions (0: none). `guards`: functions that an unwinder begins in."""

    def __init__(self, source: Path, every: int = 0, guards: Collection[str] = ()) -> None:
        self.source = source
        self.original = source.read_bytes()
        with Elf.open(str(source)) as elf:
            loads = [s for s in elf.segments if s.type == PT_LOAD]
            self.area = max(s.vaddr + s.memory_size for s in loads) + ALIGN & -ALIGN
            spare = (PT_NOTE, _PT_GNU_STACK)
            self.note = next(n for n, segment in enumerate(elf.segments) if segment.type in spare)
            self.guards = {s.vaddr for s in elf.iter_symbols() if s.name in guards}
            assert all(s.type != PT_LOAD for s in elf.segments[self.note :])  # segments to load are in order
            index = elf.get_section(".eh_frame_hdr")
            assert index is not None
            starts = sorted({*read_unwind_index(elf.read_section(index), index.addr), *elf.function_starts()})
            text = next(s for s in elf.sections if s.flags & SHF_EXECINSTR and s.name == ".text")
            self.code, self.first = bytes(elf.read_section(text)), text.addr
            self.starts = [start for start in starts if text.addr <= start < text.addr + text.size]
            self.bound = find_bound(elf)
            self.offset_of = {start: elf.get_offset(start) for start in (text.addr,)}[text.addr] - text.addr
        chance = random.Random(every)
        inside = range(self.first, self.first + len(self.code), 4)
        self.sites = sorted({*self.starts, *(at for at in inside if every and chance.randrange(every) == 0)})

    def write(self, target: Path, content: bytes = b"", patches: Sequence[tuple[int, bytes]] = ()) -> None:
        """Write the file with one more segment, and words changed at addresses of it."""
        data = bytearray(self.original)
        for at, code in patches:
            data[self.offset_of + at : self.offset_of + at + len(code)] = code
        (table,) = struct.unpack_from("<Q", data, 32)
        data += bytes(-len(data) % ALIGN)
        size = self.size
        header = struct.pack("<IIQQQQQQ", PT_LOAD, 7, len(data), self.area, self.area, size, size, ALIGN)
        data[table + 56 * self.note : table + 56 * (self.note + 1)] = header
        target.write_bytes(data + content.ljust(size, b"\0"))
        target.chmod(0o755)

    def plan(self, spec: ObjectSpec) -> None:
        """Lay out the segment for a script's maps."""
        self.spec = spec
        self.state = _CODE_ROOM
        self.maps, self.places, end = place_maps(spec, self.state + frame.state_bytes(SLOTS))
        self.private = end
        self.size = end + frame.private_bytes()

    def probe(self, base: int, returns: bool) -> tuple[bytes, list[tuple[int, bytes]]]:
        """Put the script's program at all sites, or at the returns of functions; the segment's content, and what is changed in the code."""
        home = base + self.area
        agent = Memory(home, _CODE_ROOM)
        tables = {n: (table, home + at) for n, (table, at) in self.places.items()}
        around = Surroundings(home + self.state, home + self.private, SLOTS, machine.cpu_code(None, SLOTS))
        facts = Facts(around.state, around.private, knows_cpu=False)
        image = Image(agent, tables, around, facts, machine)  # type: ignore[arg-type]
        numbers = {each.name: number for number, each in enumerate(self.spec.maps, 1)}
        runner = image.program(decode(bytes(number_maps(self.spec.programs[0], numbers))))
        patches = []
        for site in self.sites:
            made = self._trampoline(agent, image, base + site, site, runner, returns)
            if made:
                patches.append((site, made))
        patches += self._ends(agent, base, home)
        content = bytearray(bytes(agent.memory).ljust(self.size, b"\0"))
        for table, at in self.places.values():
            data = bytes(table.region.data[: measure(table.shape)[0]])
            content[at : at + len(data)] = data
        return bytes(content), patches

    def _trampoline(self, agent: Memory, image: Image, address: int, site: int, runner: Runner, returns: bool) -> bytes:
        at_entry = site in self.starts
        if returns and (not at_entry or site in self.bound):
            return b""
        if site in self.guards:
            runner, returns = image.guard(image.around.private, [agent]), False  # type: ignore[list-item]
        function = max(start for start in (self.first, *self._before(site)))
        window = plan_window(self.code, site, start=function, end=self.first + len(self.code), base=self.first)
        if window.kind not in ("nop", "relocated"):
            return b""
        start = agent.reserve(0)
        if returns:
            code = b"".join(machine.returning(start, [], [runner], image.around, address, window.signs))
        else:
            code = machine.entry(start, [runner], image.around, frame.ENTRY if at_entry else frame.INSIDE, address)
        try:
            moved = relocate(window.code, address, start + len(code))
        except ProbeError as error:
            assert "does not reach" in str(error)
            return b""
        agent.place(code + moved.code)
        return machine.jump_to(address, start)

    def _before(self, site: int) -> list[int]:
        from bisect import bisect_right

        index = bisect_right(self.starts, site)
        return self.starts[index - 1 : index]

    def _ends(self, agent: Memory, base: int, home: int) -> list[tuple[int, bytes]]:
        """Where the process ends, it first writes what it has counted."""
        found = []
        for at, number in machine.find_calls(self.code, lambda at: -1):
            if number != _EXIT_GROUP:
                continue
            code = Code()
            code.add(*(word.to_bytes(4, "little") for word in (0xAA0003F3,)))  # mov x19, x0
            code.add(mov_imm(1, home + self.state), mov_imm(2, self.private - self.state))
            code.label("more")
            code.add(mov_imm(0, WRITE_TO), mov_imm(8, 64), machine.SYSCALL)
            code.add(bytes.fromhex("2100008b"), bytes.fromhex("420000cb"))  # add x1, x1, x0; sub x2, x2, x0
            code.jump_if_zero("more", 2, is_zero=False)
            code.add(bytes.fromhex("e00313aa"), mov_imm(8, _EXIT_GROUP), machine.SYSCALL)  # mov x0, x19
            found.append((self.first + at, machine.jump_to(base + self.first + at, agent.place(code.finish()))))
        return found

    def take(self, memory: bytes) -> dict[str, SharedMap]:
        """The maps with what a process has left in them."""
        for table, at in self.places.values():
            size = measure(table.shape)[0]
            table.region.data[:size] = memory[at - self.state : at - self.state + size]
        return self.maps


class Record:
    """What QEMU has seen of a run: the address of each instruction in turn, how often each was executed, and where code is mapped."""

    def __init__(self, path: Path) -> None:
        self.trace = array("Q")
        self.code: list[int] = []
        with path.open() as file:
            for line in file:
                if line.startswith("Trace "):
                    self.trace.append(int(line.split("/")[1], 16))
                elif line.endswith(" r-x\n"):
                    self.code.append(int(line.split("-")[0], 16))
        self.counts = Counter(self.trace)

    def base_of(self, entry: int) -> int:
        """Where a file is, whose entry was executed and which begins with its code."""
        return next(start for start in reversed(self.code) if start + entry in self.counts)

    def count_returns(self, sites: Collection[int], files: Sequence[tuple[int, Path]]) -> dict[int, int]:
        """How often functions at `sites` have returned, by where they returned to. `files` are those with code, with their addresses.

        A function that is jumped to returns for itself and for the one that jumped; one that is leapt out of does not return.
        """
        words = _Words(files)
        found: Counter[int] = Counter()
        calls: list[list[int]] = []  # where each call returns to, and how many functions at sites it has entered
        before = -1
        for pc in self.trace:
            if before >= 0 and pc != before + 4:
                kind = words.kind_at(before)
                if kind in ("call", "indirect_call"):
                    calls.append([before + 4, 0])
                elif kind == "return" and any(call[0] == pc for call in calls):
                    while calls[-1][0] != pc:
                        calls.pop()
                    found[pc] += calls.pop()[1]
            if pc in sites and calls:
                calls[-1][1] += 1
            before = pc
        return {place: count for place, count in found.items() if count}


class _Words:
    """The instructions of files, by their addresses in a process."""

    def __init__(self, files: Sequence[tuple[int, Path]]) -> None:
        self._pieces: list[tuple[int, bytes]] = []
        self._known: dict[int, str] = {}
        for base, path in files:
            with Elf.open(str(path)) as elf:
                self._pieces += [
                    (base + s.vaddr, bytes(elf.data[s.offset : s.offset + s.file_size]))
                    for s in elf.segments
                    if s.type == PT_LOAD and s.flags & 1
                ]

    def kind_at(self, address: int) -> str:
        found = self._known.get(address)
        if found is None:
            start, code = next(p for p in self._pieces if p[0] <= address < p[0] + len(p[1]))
            word = int.from_bytes(code[address - start : address - start + 4], "little")
            found = self._known[address] = kind_of(word)
        return found


def run_bytes(command: Sequence[str], environment: dict[str, str]) -> tuple[tuple[int, bytes], bytes]:
    """Run a command; return its result and output, and what it has written to descriptor WRITE_TO."""
    done = subprocess.run(command, capture_output=True, env=environment, timeout=100)
    return (done.returncode, done.stdout), done.stderr


def run(command: Sequence[str], environment: dict[str, str]) -> tuple[tuple[int, str], bytes]:
    """The same with output as text."""
    (code, output), written = run_bytes(command, environment)
    return (code, output.decode()), written


def build_user(folder: Path, assembler: str, libraries: Path) -> Path:
    """Assemble a program that uses the C library of a folder."""
    source, made = Path(__file__).with_name("a64_libc_user.s"), folder / "user"
    subprocess.run([assembler, "-o", str(made) + ".o", str(source)], check=True)
    link = [assembler[: -len("as")] + "ld", "--eh-frame-hdr", "-dynamic-linker", str(libraries / LOADER)]
    subprocess.run(
        [*link, "-o", str(made), str(made) + ".o", str(libraries / LIBRARY), str(libraries / LOADER)], check=True
    )
    return made


def build_unwinding(folder: Path, assembler: str, libraries: Path, signed: int) -> Path:
    """Assemble a program that unwinds its stack by libgcc_s; `signed`: SIGNED there."""
    source, made = Path(__file__).with_name("a64_unwinding.s"), folder / f"unwinding{signed}"
    assemble = [assembler, "-march=armv8.3-a", "--defsym", f"SIGNED={signed}", "-o", str(made) + ".o", str(source)]
    subprocess.run(assemble, check=True)
    needed = [str(libraries / name) for name in ("libgcc_s.so.1", LIBRARY, LOADER)]
    link = [assembler[: -len("as")] + "ld", "--eh-frame-hdr", "-dynamic-linker", str(libraries / LOADER)]
    subprocess.run([*link, "-o", str(made), str(made) + ".o", *needed], check=True)
    return made

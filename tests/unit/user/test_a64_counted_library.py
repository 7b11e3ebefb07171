"""The dynamic loader and the C library of aarch64 with a script in every function, every return, and at random instructions: they print what they print without.

What the script has counted is what QEMU has seen in a run without: how often the instruction at each place was executed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from a64_library import LIBRARY, LOADER, Library, Record, build_unwinding, build_user, run, run_bytes
from a64_process import SLOTS
from a64_runner import find_qemu

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.debuginfo.elf import Elf
from sonde.record import replace
from sonde.spec.object import ObjectSpec
from sonde.user import frame
from sonde.user.target import user_target

FOLDER = Path("/usr/aarch64-linux-gnu/lib")
SEEDS = 60  # of keys for signatures: with one in twenty, some signature is 0


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """QEMU, and a program that uses the C library."""
    found, assembler = find_qemu(), shutil.which("aarch64-linux-gnu-as")
    if found is None or assembler is None or not (FOLDER / LIBRARY).exists():
        pytest.skip(
            "needs qemu-aarch64, a C library and an assembler (Debian packages qemu-user-static, libc6-arm64-cross, binutils-aarch64-linux-gnu)"
        )
    return found, build_user(tmp_path_factory.mktemp("user"), assembler, FOLDER)


def compile_for(path: Path, script: str) -> ObjectSpec:
    target = replace(user_target(live_target()), arch="aarch64", possible_cpus=SLOTS + 1)
    with Elf.open(str(path)) as elf:
        name = next(symbol.name for symbol in elf.iter_functions() if symbol.section)
    return compile(script.replace("PLACE", f"{path}:{name}"), target, TraceOptions(pid=0))


class Runs:
    """A command run without trampolines in a library, then with: it prints the same. For the loader that is a list of libraries, for the C library a program."""

    def __init__(
        self, name: str, every: int, folder: Path, tools: tuple[str, Path], script: str, *, returns: bool = False
    ) -> None:
        qemu, program = tools
        library = Library(FOLDER / name, every)
        library.plan(compile_for(library.source, script))
        for each in (LOADER, LIBRARY):
            (folder / each).write_bytes((FOLDER / each).read_bytes())
            (folder / each).chmod(0o755)
        library.write(folder / name)
        words = ["--list", str(folder / LIBRARY)] if name == LOADER else [str(program)]
        command, clean = [str(folder / LOADER), *words], {"LD_LIBRARY_PATH": str(folder)}
        plain, _ = run([qemu, "-singlestep", "-d", "exec,nochain,page", "-D", str(folder / "log"), *command], clean)
        assert plain[0] == 0
        self.seen = Record(folder / "log")
        bases = {}
        for each in (LOADER, name):
            with Elf.open(str(FOLDER / each)) as elf:
                symbol = elf.get_function("__libc_start_main")
                bases[each] = self.seen.base_of(symbol.vaddr if symbol is not None else elf.entry)
        self.files = [(base, FOLDER / each) for each, base in bases.items()] + [(0, program)]
        content, patches = library.probe(bases[name], returns)
        library.write(folder / name, content, patches)
        probed, memory = run([qemu, *command], clean)
        assert probed == plain
        library.take(memory)
        self.found = {
            int.from_bytes(key, "little"): sum(int.from_bytes(copy[:8], "little") for copy in copies)
            for key, copies in library.maps["AT_"].items()
        }
        self.sites = {bases[name] + site for site, _ in patches}
        self.missed = int.from_bytes(memory[frame.MISSED :][:8], "little")


@pytest.mark.parametrize("every", [0, 10], ids=["functions", "instructions"])
@pytest.mark.parametrize("name", [LOADER, LIBRARY])
def test_counts_are_what_was_executed(name: str, every: int, tools: tuple[str, Path], tmp_path: Path) -> None:
    runs = Runs(name, every, tmp_path, tools, 'uprobe:PLACE { @[reg("pc")] = count(); }')
    ends = {site for site in runs.sites if runs.seen.counts[site] and site not in runs.found}
    assert runs.found == {site: runs.seen.counts[site] for site in runs.sites - ends if runs.seen.counts[site]}
    assert len(ends) <= 1  # where the process ends, its memory is written
    assert len(runs.found) > (400 if every else 50)


@pytest.mark.parametrize("name", [LOADER, LIBRARY])
def test_returns_of_all_functions(name: str, tools: tuple[str, Path], tmp_path: Path) -> None:
    runs = Runs(name, 0, tmp_path, tools, 'uretprobe:PLACE { @[reg("pc")] = count(); }', returns=True)
    assert runs.found == runs.seen.count_returns(runs.sites, runs.files)
    assert sum(runs.found.values()) > 100
    assert runs.missed == 0


@pytest.mark.parametrize("signed", [0, 1, 2], ids=["plain", "signed", "signed later"])
def test_unwinders_find_true_return_addresses(signed: int, tools: tuple[str, Path], tmp_path: Path) -> None:
    """Backtraces and exceptions by libgcc_s through functions with return probes, also where calls that were dropped have left entries inside of their frames."""
    assembler = shutil.which("aarch64-linux-gnu-as")
    assert assembler is not None
    if not (FOLDER / "libgcc_s.so.1").exists():
        pytest.skip("needs libgcc_s for aarch64 (Debian package libgcc-s1-arm64-cross)")
    program = build_unwinding(tmp_path, assembler, FOLDER, signed)
    clean = {"LD_LIBRARY_PATH": str(FOLDER)}
    (code, seen), _ = run_bytes([tools[0], str(program)], clean)
    assert code == 0
    outputs = []
    for guards in (("backtrace", "raise"), ()):
        library = Library(program, guards=guards)
        library.plan(compile_for(program, 'uretprobe:PLACE { @[reg("pc")] = count(); }'))
        library.write(tmp_path / "probed", *library.probe(0, True))
        seeds = range(SEEDS if guards and signed else 1)
        runs = [run_bytes([tools[0], "-seed", str(n), str(tmp_path / "probed")], clean) for n in seeds]
        outputs.append({output for output, _ in runs})
        if guards:
            assert outputs[0] == {(0, seen)}
            library.take(runs[0][1])
            assert len(list(library.maps["AT_"].items())) > 2  # what no unwinder looks at
    assert (0, seen) not in outputs[1]  # without, they are lost

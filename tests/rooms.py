"""The import contract: which room may import which. `python tests/rooms.py` writes ARCHITECTURE.md from it.

A room is a file or folder below src/sonde. `lazy` rooms may be imported inside functions only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sonde"


@dataclass(frozen=True)
class Room:
    """One row of the table."""

    name: str
    holds: str
    may_import: tuple[str, ...] = ()
    lazy: tuple[str, ...] = ()


BASE = ("record", "errors")
ROOMS = (
    Room("record", "frozen data classes that cost nothing at start-up"),
    Room("errors", "the whole exception tree; `Diagnostic`, `Span`", ("record",)),
    Room(
        "debuginfo",
        "bytes to facts: ELF, BTF (both ways), tracefs formats, USDT notes, kallsyms, /proc/PID/maps; the C type model",
        BASE,
    ),
    Room(
        "bpf",
        "the machine: instruction set, assembler, disassembler, helper table, interpreter, JIT, verifier, ELF objects",
        (*BASE, "debuginfo"),
    ),
    Room(
        "spec",
        "the waist: `ObjectSpec ProgramSpec MapSpec ProbeSpec EventSpec ViewSpec Layout Target Row`, "
        "and the protocols `Engine Link Map Reader Printer Control`",
        (*BASE, "bpf", "debuginfo"),
    ),
    Room(
        "probes",
        "the probe grammar and catalogue: parse, list, expand wildcards, a probe's arguments; one file for each type",
        (*BASE, "spec", "debuginfo"),
    ),
    Room(
        "compiler",
        "typed IR with a text form, builder, passes, lowering, register allocation, CO-RE records",
        (*BASE, "spec", "bpf", "debuginfo"),
    ),
    Room(
        "kernel",
        "the kernel engine: bpf(2), perf events, links, ring buffers, the feature table",
        (*BASE, "spec", "bpf", "debuginfo"),
    ),
    Room(
        "user",
        "the user engine: processes stopped and changed by ptrace(2), trampolines, programs inside the process",
        (*BASE, "spec", "bpf", "debuginfo"),
    ),
    Room(
        "runtime",
        "a session: load, attach, poll, decode, reduce, symbolise, detach; an engine over two others; a fake one for tests",
        (*BASE, "spec", "debuginfo"),
        ("kernel",),
    ),
    Room("output", "printers: text and JSON", (*BASE, "spec")),
    Room("lang", "front ends: `source`, `bpftrace/`", (*BASE, "spec", "compiler", "probes", "debuginfo")),
    Room(
        "api",
        "the public verbs; `bcc/`: the interface of BCC",
        (*BASE, "spec", "debuginfo", "probes", "compiler", "runtime", "output", "lang"),
        ("kernel", "user", "bpf"),
    ),
    Room(
        "cli",
        "one file for each subcommand, no logic",
        (*BASE, "api", "output", "probes"),
        ("lang", "kernel", "bpf", "spec"),
    ),
)
BY_NAME = {room.name: room for room in ROOMS}


@dataclass(frozen=True)
class Import:
    """One import statement between rooms."""

    path: Path
    line: int
    source: str
    target: str
    lazy: bool


def room_of(path: Path) -> str:
    """Return the room that a file belongs to ("" for the package's own __init__)."""
    first = path.relative_to(PACKAGE).parts[0]
    name = first.removesuffix(".py")
    return "" if name in ("__init__", "__main__") else name


def iter_imports() -> Iterator[Import]:
    """Yield every import of one room by another, also those inside functions and under TYPE_CHECKING."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = room_of(path)
        tree = ast.parse(path.read_text(), str(path))
        inside = {
            id(node)
            for outer in ast.walk(tree)
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)) or _is_type_checking(outer)
            for node in ast.walk(outer)
        }
        for node in ast.walk(tree):
            for target in _targets(node, path):
                if target in BY_NAME and target != source:
                    yield Import(path, node.lineno, source, target, id(node) in inside)  # type: ignore[attr-defined]


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _targets(node: ast.AST, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            parts = alias.name.split(".")
            if parts[0] == "sonde" and len(parts) > 1:
                yield parts[1]
    elif isinstance(node, ast.ImportFrom):
        package = ("sonde", *path.relative_to(PACKAGE).parts[:-1])
        base = package[: len(package) - node.level + 1] if node.level else ()
        full = [*base, *(node.module.split(".") if node.module else [])]
        if full[:1] != ["sonde"]:
            return
        if len(full) > 1:
            yield full[1]
        else:
            for alias in node.names:
                yield alias.name


def level_of(name: str) -> int:
    """Return the length of the longest chain of imports below a room."""
    return max((level_of(n) + 1 for n in BY_NAME[name].may_import), default=0)


def table() -> str:
    """Return the table of rooms in Markdown."""
    lines = ["| level | room | what it holds | may import | lazily |", "|--:|---|---|---|---|"]
    for room in sorted(ROOMS, key=lambda r: level_of(r.name)):
        suffix = ".py" if (PACKAGE / f"{room.name}.py").exists() else "/"
        may = ", ".join(room.may_import) or "standard library"
        lines.append(
            f"| {level_of(room.name)} | `{room.name}{suffix}` | {room.holds} | {may} | {', '.join(room.lazy)} |"
        )
    return "\n".join(lines)


def render() -> str:
    """Return the whole text of ARCHITECTURE.md: the hand-written frame with the table put in."""
    frame = (ROOT / "docs" / "design" / "architecture.md").read_text()
    return frame.replace("<!-- TABLE -->", table())


if __name__ == "__main__":
    (ROOT / "ARCHITECTURE.md").write_text(render())

"""The tree keeps to the import contract, and ARCHITECTURE.md is printed from it."""

from __future__ import annotations

import ast
import subprocess
import sys

import rooms


def test_every_room_is_in_the_contract() -> None:
    found = {rooms.room_of(p) for p in rooms.PACKAGE.rglob("*.py")} - {""}
    assert found == set(rooms.BY_NAME)


def test_imports_keep_to_the_contract() -> None:
    wrong = []
    for item in rooms.iter_imports():
        if not item.source:
            continue  # the package's own __init__ exports lazily from api
        room = rooms.BY_NAME[item.source]
        if item.target in room.may_import or (item.lazy and item.target in room.lazy):
            continue
        wrong.append(f"{item.path.relative_to(rooms.ROOT)}:{item.line}: {item.source} imports {item.target}")
    assert not wrong, "\n".join(wrong)


def test_contract_has_no_cycle() -> None:
    for room in rooms.ROOMS:
        rooms.level_of(room.name)  # RecursionError on a cycle
        for lazy in room.lazy:
            assert room.name not in (*rooms.BY_NAME[lazy].may_import, *rooms.BY_NAME[lazy].lazy)


def test_no_front_end_imports_another() -> None:
    lang = rooms.PACKAGE / "lang"
    folders = [p.name for p in lang.iterdir() if p.is_dir() and p.name != "__pycache__"]
    for folder in folders:
        for path in (lang / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    assert not any(
                        node.module.split(".")[0] == other for other in folders if other != folder and node.level == 2
                    ), path


def test_architecture_file_is_current() -> None:
    assert (rooms.ROOT / "ARCHITECTURE.md").read_text() == rooms.render(), "run `python tests/rooms.py`"


def test_trace_starts_without_heavy_imports() -> None:
    """The path from exec to the first event must not import what costs milliseconds and is not needed."""
    heavy = ["argparse", "dataclasses", "enum", "inspect", "json", "logging", "pathlib", "subprocess", "typing"]
    source = (
        "import sys; before = set(sys.modules); import sonde.cli.trace, sonde.api.trace, sonde.lang.bpftrace.compile, "
        "sonde.kernel.engine, sonde.runtime.session, sonde.output.text; "
        f"print(' '.join(m for m in {heavy!r} if m in sys.modules and m not in before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", source],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(rooms.ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_importing_sonde_imports_no_room() -> None:
    source = "import sys, sonde; print(sorted(m for m in sys.modules if m.startswith('sonde.')))"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env={"PYTHONPATH": str(rooms.ROOT / "src")}
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")

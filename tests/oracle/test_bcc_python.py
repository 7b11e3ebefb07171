"""The Python side of the bcc API beside Debian's python3-bpfcc: the same inputs give the same text."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import warnings
from pathlib import Path

import pytest
import rooms

from sonde.api.bcc import shim_path

pytestmark = pytest.mark.oracle
PEER = "/usr/lib/python3/dist-packages/bcc"
SIDE = Path(__file__).with_name("bcc_side.py")


def run(what: str, path: str) -> bytes:
    """Run one part of bcc_side.py with `path` on PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(["/usr/bin/python3", str(SIDE), what], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def parse(module: str) -> ast.Module:
    """Parse a file of the original, whose regular expressions Python warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(Path(PEER, f"{module}.py").read_text())


@pytest.fixture(scope="module", autouse=True)
def peer() -> None:
    if not os.path.isdir(PEER):
        pytest.skip("needs Debian's python3-bpfcc (package bpfcc-tools)")


def both(what: str) -> tuple[bytes, bytes]:
    return run(what, "/usr/lib/python3/dist-packages"), run(what, f"{shim_path()}:{rooms.ROOT / 'src'}")


@pytest.mark.parametrize("what", ["histograms", "trace", "helpers"])
def test_same_text(what: str) -> None:
    theirs, ours = both(what)
    assert len(theirs) > 500
    assert ours.splitlines() == theirs.splitlines()


def test_constants_are_the_same_where_both_have_them() -> None:
    theirs, ours = (text.decode().splitlines() for text in both("constants"))
    for their_line, our_line in zip(theirs[:9], ours[:9]):
        name, _, values = their_line.partition(" ")
        mine = json.loads(our_line.partition(" ")[2])
        assert json.loads(values).items() <= mine.items(), name
    assert ours[10:] == theirs[10:]


def test_every_name_that_the_original_exports_is_there() -> None:
    """Public names of the package and methods of its classes, read from the source text of the original."""
    from sonde.api import bcc

    tree = parse("__init__")
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    missing = [name for name in classes if not hasattr(bcc, name)]
    for name, node in classes.items():
        for item in node.body:
            public = isinstance(item, ast.FunctionDef) and not item.name.startswith("_")
            if public and not hasattr(getattr(bcc, name), item.name):
                missing.append(f"{name}.{item.name}")
    assert missing == []


def test_methods_take_the_same_arguments() -> None:
    """In the same order, under the same names, with defaults where the original has them."""
    import inspect

    from sonde.api.bcc import BPF

    tree = parse("__init__")
    (peer_class,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "BPF"]
    different = []
    for item in peer_class.body:
        if isinstance(item, ast.FunctionDef) and (not item.name.startswith("_") or item.name == "__init__"):
            theirs = [a.arg for a in item.args.args if a.arg not in ("self", "cls")]
            parameters = inspect.signature(getattr(BPF, item.name)).parameters
            ours = [name for name in parameters if name not in ("self", "cls")]
            required = len(theirs) - len(item.args.defaults)
            if ours[: len(theirs)] != theirs or any(
                parameters[name].default is inspect.Parameter.empty for name in ours[required:]
            ):
                different.append((item.name, theirs, ours))
    assert different == []


@pytest.mark.parametrize("module", ["table", "utils", "usdt"])
def test_classes_of_modules_have_the_same_methods(module: str) -> None:
    import importlib

    names = {"table": "tables"}.get(module, module)
    ours = importlib.import_module(f"sonde.api.bcc.{names}")
    tree = parse(module)
    missing = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name in ("FileDesc",):
            continue
        cls = getattr(ours, node.name, None)
        for item in node.body:
            public = isinstance(item, ast.FunctionDef) and not item.name.startswith("_") and item.name not in INTERNAL
            if public and (cls is None or not hasattr(cls, item.name)):
                missing.append(f"{node.name}.{item.name}")
    assert missing == []


INTERNAL = {"decode_c_struct"}  # what the original's own printing calls

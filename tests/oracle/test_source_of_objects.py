"""What the kernel and sonde's verifier say of an object's programs leads to its source: lines, functions, refusals."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle.test_linking_against_bpftool import compile_text, needs_bpftool, needs_clang

from sonde.api.objects import load_object, read_object
from sonde.cli.main import run
from sonde.errors import VerifierError
from sonde.kernel.pins import unpin

pytestmark = pytest.mark.kernel
OBJECTS = Path(__file__).parents[1] / "objects"
WRONG = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, int); __type(value, long); } m SEC(".maps");
static __noinline long *find(int key)
{
	return bpf_map_lookup_elem(&m, &key);
}
SEC("raw_tp") int wrong(void *ctx)
{
	long *value = find(3);
	return *value; /* nobody looked whether there is one */
}
"""


@needs_clang
def test_a_refusal_shows_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = compile_text(WRONG, tmp_path / "wrong.o")
    with pytest.raises(VerifierError) as caught:
        load_object(read_object(path))
    assert "; return *value;" in caught.value.log  # the kernel knows the source as well
    assert run("sonde", ["load", path]) == 1
    shown = capsys.readouterr().err
    assert "wrong.bpf.c:13:" in shown and "return *value; /* nobody looked" in shown
    assert run("sonde", ["verify", path]) == 1
    shown = capsys.readouterr().err
    assert "wrong.bpf.c:13:" in shown and "return *value; /* nobody looked" in shown


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "bpf"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a BPF file system: {done.stderr.strip()}")
    monkeypatch.setattr("sonde.kernel.pins.BPFFS", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@needs_bpftool
@pytest.mark.parametrize("name", ["basic.o", "kernel_objects.o", "attached.o"])
def test_bpftool_shows_lines_and_functions(name: str, pins: Path) -> None:
    loaded = load_object(read_object(str(OBJECTS / name)), attach=False, pin="x")
    try:
        for program in loaded.object.spec.programs:
            words = [
                "bpftool",
                "prog",
                "dump",
                "xlated",
                "pinned",
                str(pins / "x" / "programs" / program.name),
                "linum",
            ]
            shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            texts = {line.span.excerpt.strip() for line in program.lines}
            assert sum(f"; {text}" in shown for text in texts) > len(texts) * 0.7
            functions = {r.symbol for r in program.relocs if r.kind == "subprogram"}
            assert all(f"{function}" in shown for function in functions | {program.name})
    finally:
        loaded.object.close()
        for pin in loaded.pins:
            unpin(pin)


def test_a_source_that_is_not_there_matters_not() -> None:
    """The lines come from the object itself: no file is read."""
    spec = read_object(str(OBJECTS / "basic.o"))
    files = {line.span.file for program in spec.programs for line in program.lines}
    assert files == {"./basic.bpf.c"} and not Path("basic.bpf.c").exists()
    with load_object(spec).object as live:
        assert live.run("run") == 7 + 1 + ord("s")

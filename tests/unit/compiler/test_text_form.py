"""The text form: the example of the documentation, places in error messages, attributes that survive; and the checker."""

from __future__ import annotations

import pytest

import sonde.compiler.ir as ir
from sonde.compiler.check import check_function, check_module
from sonde.compiler.text import format_module, parse_module
from sonde.errors import CompileError

HEAD = "map @io array key=4 value=64 max_entries=1\nfunc @f(%ctx: ptr.ctx) -> i64 program=raw_tracepoint {\nentry:\n"


def test_example_of_the_documentation_is_well_formed() -> None:
    doc = ir.__doc__ or ""
    text = doc[doc.index("  map @counts") :]
    module = parse_module(text)
    assert check_module(module) == []
    assert format_module(parse_module(format_module(module))) == format_module(module)


def test_attributes_survive() -> None:
    text = """
map @data array key=4 value=8 max_entries=1 flags=1024 initial=0102030405060708 frozen=1

func @f(%ctx: ptr.ctx) -> i64 program=tracing attach_type=trace_fexit attach_btf=vfs_read license=Dual~MIT/GPL sleepable {
entry:
  %slot = alloca size=16 align=8
  %p = map_value @data imm=4
  memcpy %slot, %p offset=8 size=4 align=4
  %o = core core=field_byte_offset|struct~file|f_path.dentry|16|0
  %old = atomic.i64 @add %slot, %o offset=8 fetch
  %v = load.i64 %slot offset=8 volatile
  %b = bound.i64 %v imm=100 low=3
  ret %b
}
"""
    module = parse_module(text)
    assert format_module(module).split() == text.split()
    f = module.functions["f"]
    assert (f.attach_type, f.attach_btf, f.license, f.sleepable) == ("trace_fexit", "vfs_read", "Dual MIT/GPL", True)
    assert module.maps["data"].initial == bytes(range(1, 9)) and module.maps["data"].frozen


@pytest.mark.parametrize(
    ("body", "line", "column", "words"),
    [
        ("  %a = frob.i64 1, 2\n  ret 0\n}", 4, 8, "no such operation"),
        ("  %a = add.i65 1, 2\n  ret 0\n}", 4, 12, "no such type"),
        ("  %a = add.i64 %nothing, 2\n  ret 0\n}", 4, 16, "not defined"),
        ("  %a = add.i64 1, two\n  ret 0\n}", 4, 19, "expected a value"),
        ("  %a = add.i64 1, 2\n  %a = add.i64 1, 2\n  ret 0\n}", 5, 3, "defined twice"),
        ("  jump away()\n}", 4, 8, "no such block"),
        ("  %a = load.i64 %ctx offset=x\n  ret 0\n}", 4, 22, "wrong value"),
        ("  %a = load.i64 %ctx colour=1\n  ret 0\n}", 4, 22, "unknown attribute"),
        ("  %a = add.i64 1, 2\n}", 5, 1, "does not end"),
        ("  ret 0\n", 4, 1, "not closed"),
        ("  ret 0\n  ret 0\n}", 5, 1, "outside of a block"),
    ],
)
def test_errors_name_their_place(body: str, line: int, column: int, words: str) -> None:
    with pytest.raises(CompileError) as caught:
        parse_module(HEAD + body, "x.ir")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.span is not None
    assert words in diagnostic.message
    assert (diagnostic.span.file, diagnostic.span.line, diagnostic.span.column) == ("x.ir", line, column)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("  %a = add.i64 1, 2:i32\n  ret %a\n}", "add of i64 and i32"),
        ("  %a = eq.i64 1, 2\n  ret %a\n}", "a comparison gives i1"),
        ("  %a = zext.i32 %ctx\n  ret 0\n}", "zext from ptr.ctx"),
        ("  %a = trunc.i64 1:i32\n  ret %a\n}", "trunc from i32 to i64"),
        ("  %a = eq.i1 1, 2\n  ret %a\n}", "returns i1"),
        ("  %a = load.i64 1:i32\n  ret %a\n}", "no address"),
        ("  %a = map_value @nothing\n  ret 0\n}", "no map"),
        ("  %a = callsub.i64 @nothing\n  ret %a\n}", "no function"),
        ("  %a = atomic.i64 @mul %ctx, 1\n  ret 0\n}", "no atomic"),
        ("  %a = alloca size=0 align=8\n  ret 0\n}", "a slot of 0 bytes"),
        ("  jump b(1)\nb(%p: i32):\n  ret 0\n}", "passes arguments of wrong"),
        ("  branch 1:i1, b(), c()\nb():\n  %a = add.i64 1, 2\n  jump c()\nc():\n  ret %a\n}", "may not have run"),
        ("  jump b()\nb():\n  %a = alloca size=8 align=8\n  ret 0\n}", "first block"),
        ("  %a = bound.i64 %a imm=3 low=7\n  ret 0\n}", "bounds 7 to 3"),
        ("  %a = add.i64 %a, 1\n  ret %a\n}", "before it is defined"),
    ],
)
def test_checker_finds(body: str, words: str) -> None:
    problems = check_module(parse_module(HEAD + body))
    assert any(words in problem for problem in problems), problems


def test_checker_wants_terminators() -> None:
    function = ir.Function("f", [])
    assert check_function(function) == ["it has no block"]
    function.blocks.append(ir.Block("entry"))
    assert check_function(function) == ["block entry does not end with a terminator"]

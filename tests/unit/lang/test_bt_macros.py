"""Macro expansion: substitution, hygiene, overloads, errors with the chain of calls; imports."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.errors import CompileError
from sonde.lang.bpftrace import ast
from sonde.lang.bpftrace.dump import dump
from sonde.lang.bpftrace.imports import resolve_imports
from sonde.lang.bpftrace.macros import expand_macros
from sonde.lang.bpftrace.parser import parse
from sonde.lang.bpftrace.rewrite import iter_nodes
from sonde.lang.bpftrace.stdlib import MACROS, load_macros
from sonde.lang.source import Place, Source, diagnose


def expand(text: str) -> ast.Program:
    return expand_macros(parse(Source("t.bt", text)))


def body_of(text: str) -> str:
    (probe,) = expand(text).probes
    return dump(probe.body)


def error_of(text: str) -> str:
    with pytest.raises(CompileError) as caught:
        expand(text)
    return caught.value.render()


def same_body(text: str, plain: str) -> None:
    """`text` expands to what `plain` parses to, apart from fresh names."""
    assert body_of(text) == body_of(plain)


def test_a_script_without_macros_is_returned_as_it_is() -> None:
    program = parse(Source("t.bt", "begin { print(pid); }"))
    assert expand_macros(program) is program


def test_expressions_are_substituted_as_trees() -> None:
    same_body("macro f(a, b) { a * b } begin { print(f(1 + 2, 3 + 4)); }", "begin { print((1 + 2) * (3 + 4)); }")


def test_a_bare_name_calls_a_macro_without_parameters() -> None:
    same_body("macro f() { 42 } begin { print(f); print(f()); }", "begin { print(42); print(42); }")


def test_variables_are_passed_by_name() -> None:
    same_body("macro f($a) { $a = 3; } begin { $x = 1; f($x); }", "begin { $x = 1; { $x = 3; } }")


def test_maps_are_passed_by_name() -> None:
    same_body("macro f(@m, k) { @m[k] = 5; } begin { f(@z, 1); }", "begin { { @z[1] = 5; } }")


def test_assigned_variables_get_fresh_names() -> None:
    text = "macro f(a) { $x = a; $x } begin { $x = 1; f($x); f(2); }"
    names = {n.name for n in iter_nodes(expand(text).probes[0]) if isinstance(n, ast.Variable)}
    assert names == {"$x", "$$f_x", "$$f_x_2"}


@pytest.mark.parametrize("loop", ["for ($v : 0..3) { print($v); }", "for ($v : @m) { print($v); }", "let $v;"])
def test_declared_variables_get_fresh_names(loop: str) -> None:
    text = f"macro f(@m) {{ {loop} }} begin {{ $v = 1; f(@q); }}"
    assert "$$f_v" in body_of(text)


def test_nested_calls_do_not_mix_up_their_variables() -> None:
    text = "macro f(a) { let $b = a; $b + 1 } begin { print(f(f(1))); }"
    lets = [n for n in iter_nodes(expand(text).probes[0]) if isinstance(n, ast.Let)]
    assert len({let.variable.name for let in lets}) == 2


def test_types_and_members_can_be_arguments() -> None:
    same_body(
        "macro f(T, m, e) { (T*)(sizeof(T) + offsetof(T, m) + e) } begin { print(f(typeof(struct a), x.y, 1)); }",
        "begin { print((typeof(struct a)*)(sizeof(struct a) + offsetof(struct a, x.y) + 1)); }",
    )


def test_a_type_in_an_annotation() -> None:
    text = body_of("macro f(T) { let $r : T = 1; } begin { f(typeof(uint8[4])); }")
    assert "TypeName uint8 (4,)" in text


def test_overloads_by_number_and_kind() -> None:
    macros = "macro f() { 10 } macro f($v) { 20 } macro f(@m) { 30 } macro f(e) { 40 } macro f(a, b) { 50 } "
    same_body(
        macros + "begin { $x = 1; print((f, f($x), f(@x), f(5), f(@x[1]), f(1, 2))); }",
        "begin { $x = 1; print((10, 20, 30, 40, 40, 50)); }",
    )


def test_macros_call_macros() -> None:
    same_body("macro g(a) { a + 1 } macro f(a) { g(a) * 2 } begin { print(f(3)); }", "begin { print((3 + 1) * 2); }")


def test_a_macro_of_the_script_hides_a_function_of_the_library() -> None:
    same_body("macro comm() { 5 } begin { print(comm); print(comm(1)); }", "begin { print(5); print(comm(1)); }")
    same_body("macro ppid() { 5 } begin { print(ppid); }", "begin { print(5); }")
    same_body("macro ppid() { 5 } begin { print(ppid($t)); }", "begin { print($t.real_parent.pid); }")


def test_pid_cannot_be_hidden() -> None:
    same_body("macro pid() { 5 } begin { print(pid); print(pid()); }", "begin { print(pid); print(5); }")


def test_values_of_statements_are_dropped() -> None:
    same_body("macro f() { print(1); 2 } begin { f(); }", "begin { { print(1); 2; } }")
    same_body("macro f(a) { if (a) { 2 } else { 3 } } begin { f(1); }", "begin { if (1) { 2; } else { 3; } }")


@pytest.mark.parametrize("name", sorted(MACROS))
def test_the_library_s_macros_parse(name: str) -> None:
    macros = load_macros(name)
    assert macros
    assert all(m.name == name for m in macros)


def test_the_library_s_macros_expand() -> None:
    same_body(
        "begin { print(ppid); print(ppid()); }",
        "begin { print(curtask.real_parent.pid); print(curtask.real_parent.pid); }",
    )
    same_body("begin { print(is_err($p)); }", "begin { print((int64)($p) < 0 && (int64)($p) >= -4095); }")
    same_body(
        "begin { print(container_of($p, struct foo, bar)); }",
        "begin { print((typeof(struct foo)*)((uint64)($p) - offsetof(struct foo, bar))); }",
    )
    same_body(
        'begin { assert($x > 1, "too small"); }',
        'begin { if (!($x > 1)) { errorf("assert failed: %s", "too small"); exit(1); } }',
    )


def test_expanded_nodes_know_their_call() -> None:
    text = "macro g($c) { $c.nope } macro f(a) { let $b = a; g($b) } begin { print(f(1)); }"
    (node,) = [n for n in iter_nodes(expand(text)) if isinstance(n, ast.FieldAccess)]
    assert isinstance(node.span, Place)
    assert [p.text for p in node.span.iter_calls()] == ["g($b)", "f(1)"]
    diagnostic = diagnose(node.span, "no such member")
    assert [n.message for n in diagnostic.notes] == ["expanded from", "expanded from"]
    assert diagnostic.render().splitlines()[3].startswith("t.bt:1:50-55: ERROR: expanded from")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "macro f($a) { $a } begin { f(5); }",
            "Mismatched arg. f() expects a variable for arg $a but got an expression.",
        ),
        ("macro f(@a) { @a } begin { f($x); }", "Mismatched arg. f() expects a map for arg @a but got a variable."),
        ("macro f(a, b) { a } begin { f(1); }", "a different number of arguments. Expected: 2 but got 1"),
        ("macro f(a) { a } begin { print(f); }", "Call to f() has arguments that do not match any definition."),
        ("macro f(a) { f(a) } begin { f(1); }", "Recursive macro call detected. Call chain: f > f"),
        ("macro f(a) { g(a) } macro g(a) { f(a) } begin { f(1); }", "Call chain: f > g > f"),
        ("macro f(a) { a } macro f(b) { b } begin { }", "Redefinition of macro: f"),
        ("macro f($a, $a) { 1 } begin { }", "Variable for macro argument has already been used: $a"),
        ("macro f(@a, @a) { 1 } begin { }", "Map for macro argument has already been used: @a"),
        ("macro f() { return; } begin { }", "'return' statement is not allowed in a macro"),
        ("macro f($a) { let $a = 3; } begin { f($x); }", "Variable declaration shadows macro arg $a"),
        (
            "macro f() { @g = 1; } begin { f(); }",
            "Unhygienic access to map: @g. Maps must be passed into the macro as arguments.",
        ),
        (
            "macro f(T) { T + 1 } begin { f(typeof(uint8)); }",
            "'T' is a type in this call, it cannot be used as a value",
        ),
        ("begin { assert(1); }", "Call to assert() has arguments that do not match any definition."),
    ],
)
def test_wrong_macros(text: str, message: str) -> None:
    assert message in error_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "macro f(a) { a + a } begin { print(" + "f(" * 60 + "1" + ")" * 60 + "); }",
        "".join(f"macro f{i}(a) {{ f{i + 1}(a) + f{i + 1}(a) }} " for i in range(22))
        + "macro f22(a) { a } begin { f0(1); }",
        "".join(f"macro f{i}(a) {{ f{i + 1}(a) }} " for i in range(40)) + "macro f40(a) { a } begin { f0(1); }",
        "macro f(a) { a" + " + a" * 150 + " } begin { print(f(1" + " + 1" * 150 + ")); }",
    ],
    ids=["arguments", "tree", "chain", "height"],
)
def test_expansions_without_end_are_refused(text: str) -> None:
    assert "macros expand to" in error_of(text)


PIECES = st.sampled_from(
    ["f(", ")", "g(", "a", "b", "$a", "@m", "@m[", "]", "1", ",", "+", ";", "=", "let", "typeof(", "uint8", "$b"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=10), st.lists(PIECES, max_size=10))
def test_any_macros_give_a_tree_or_a_compile_error(body: list[str], call: list[str]) -> None:
    text = f"macro f(a) {{ {' '.join(body)} }} macro g($a, @m, b) {{ b {' '.join(call)} }} begin {{ $x = 1; {' '.join(call)} }}"
    try:
        program = expand(text)
    except CompileError as error:
        assert error.render()
        return
    assert not program.macros
    assert dump(program)


# imports ----------------------------------------------------------------------------------------------------------


def script(directory: Path, name: str, text: str) -> Source:
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    path.parent.chmod(0o755)
    return Source(str(path), text)


def load(source: Source) -> ast.Program:
    return expand_macros(resolve_imports(parse(source)))


def test_imports_bring_macros_and_probes(tmp_path: Path) -> None:
    script(tmp_path, "lib.bt", 'import "sub/more.bt"; macro two() { 2 } begin { print("lib"); }')
    script(tmp_path, "sub/more.bt", 'import "../lib.bt"; macro three() { two + 1 }')
    main = script(
        tmp_path, "main.bt", 'import "lib.bt"; import "./lib.bt"; import "stdlib/strings"; begin { print(three); }'
    )
    program = load(main)
    assert [p.span.file.rsplit("/", 1)[1] for p in program.probes] == ["lib.bt", "main.bt"]
    assert "Binary +" in dump(program.probes[1])


def test_a_directory_is_imported_whole(tmp_path: Path) -> None:
    script(tmp_path, "d/b.bt", "macro b() { 2 }")
    script(tmp_path, "d/a.bt", "macro a() { 1 }")
    script(tmp_path, "d/c.txt", "not a script")
    program = resolve_imports(parse(script(tmp_path, "main.bt", 'import "d"; begin { print(a + b); }')))
    assert [m.name for m in program.macros] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('import "nope.bt"; begin { }', "Unable to find suitable path for import"),
        ('import "nope"; begin { }', "Unable to find suitable path for import"),
        ('import "x.h"; begin { }', "imports of C files are not supported yet"),
        ('import "x.bpf.c"; begin { }', "imports of C files are not supported yet"),
        ('import "config.bt"; begin { }', "invalid `config` within import"),
        ('import "bad.bt"; begin { }', "expected expression"),
        ('begin { import "stdlib/x"; }', "unstable feature"),
    ],
)
def test_wrong_imports(tmp_path: Path, text: str, message: str) -> None:
    script(tmp_path, "config.bt", "config = { max_strlen = 5 }")
    script(tmp_path, "bad.bt", "begin { print( }")
    with pytest.raises(CompileError) as caught:
        load(script(tmp_path, "main.bt", text))
    assert message in caught.value.render()


def test_what_everybody_may_write_is_not_imported(tmp_path: Path) -> None:
    script(tmp_path, "lib.bt", "macro a() { 1 }")
    (tmp_path / "lib.bt").chmod(0o666)
    with pytest.raises(CompileError, match="everybody may write to it"):
        load(script(tmp_path, "main.bt", 'import "lib.bt"; begin { }'))


def test_imports_in_blocks_can_be_allowed() -> None:
    program = parse(Source("t.bt", 'begin { import "stdlib/x"; print(1); }'))
    resolved = resolve_imports(program, local_imports=True)
    assert "LocalImport" not in dump(resolved)
    with pytest.raises(CompileError, match="limited to the standard library"):
        resolve_imports(parse(Source("t.bt", 'begin { import "x.bt"; }')), local_imports=True)

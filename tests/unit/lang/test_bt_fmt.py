"""The formatter: layout, comments, and that it never changes what a script says."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.errors import CompileError
from sonde.lang.bpftrace.comments import find_comments
from sonde.lang.bpftrace.fmt import format_source
from sonde.lang.bpftrace.parser import parse
from sonde.lang.source import Source


def fmt(text: str) -> str:
    return format_source(Source("t.bt", text))


def comment_lines(text: str) -> list[str]:
    source = Source("t.bt", text)
    return [line for c in find_comments(source, parse(source)) for line in c.lines]


def body(text: str) -> str:
    """The formatted statements of a probe."""
    lines = fmt(f"begin {{\n{text}\n}}").splitlines()
    assert lines[:2] == ["begin", "{"]
    assert lines[-1] == "}"
    return "\n".join(line[2:] for line in lines[2:-1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$a=1+2+3;", "$a = (1 + 2) + 3;"),
        ("$a=1==2&&3<4;", "$a = 1 == 2 && 3 < 4;"),
        ("$a=1&&2||3;", "$a = (1 && 2) || 3;"),
        ("$a=1==(2==3);", "$a = 1 == (2 == 3);"),
        ("$a=(1==2)+3;", "$a = (1 == 2) + 3;"),
        ("$a=!$b&&-1;", "$a = (!$b) && (-1);"),
        ("$a=(uint8)$b+1;", "$a = ((uint8)$b) + 1;"),
        ("$a=((struct foo *)$b)->c;", "$a = ((struct foo*)$b).c;"),
        ("$a=*(uint8*)($b+1);", "$a = *((uint8*)($b + 1));"),
        ("$a=1?2:3?4:5;", "$a = 1 ? 2 : (3 ? 4 : 5);"),
        ("$a=$b?:3;", "$a = $b ?: 3;"),
        ("@x[(1,2)]=(3,);", "@x[1, 2] = (3,);"),
        ("@x[((1,2),3)]=();", "@x[(1, 2), 3] = ();"),
        ("$a=(x=1,y=(2,3));", "$a = (x=1, y=(2, 3));"),
        ("$a=sizeof(struct foo *)+offsetof(struct foo,a . b);", "$a = sizeof(struct foo*) + offsetof(struct foo, a.b);"),
        ("$a=f(typeof( uint8 [4] ));", "$a = f(typeof( uint8 [4] ));"),
        ("let $a:uint8=0x1F;let $b;", "let $a : uint8 = 0x1F;\nlet $b;"),
        ("$a<<=1_000;@m[1]++;--$a;_=f();", "$a <<= 1_000;\n@m[1]++;\n--$a;\n_ = f();"),
        ('printf ( "\\x41\\n" ,1s );', 'printf("\\x41\\n", 1s);'),
        ("if($a){f()}", "if $a {\n  f();\n}"),
        ("if($a==1){f();}else if(!$b){g();}else{}", "if ($a == 1) {\n  f();\n} else if (!$b) {\n  g();\n} else {}"),
        ("$a=if(1){2}else{3};", "$a = if 1 { 2 } else { 3 };"),
        ("$a=if(1){2}else if(4){5}else{3};", "$a = if 1 {\n  2\n} else if 4 {\n  5\n} else {\n  3\n};"),
        ("$a={f();2};", "$a = {\n  f();\n  2\n};"),
        ("{f();}", "{ f(); }"),
        ("while($a<1){break;}", "while ($a < 1) {\n  break;\n}"),
        ("for($i:0..$n+1){}", "for $i : 0..($n + 1) {}"),
        ("for($kv:@m){continue;}", "for $kv : @m {\n  continue;\n}"),
        ("unroll(3){return 1+2;}", "unroll (3) {\n  return (1 + 2);\n}"),
        ("f()", "f();"),
        ("f();\n\n\n\ng();", "f();\n\n\n\ng();"),
        ("\n\nf();\n\n", "\n\nf();"),
    ],
)  # fmt: skip
def test_statements(text: str, expected: str) -> None:
    assert body(text) == expected


def test_long_lists_are_filled_from_the_end() -> None:
    numbers = ["1111111111", "2222222222", "3333333333", "4444444444", "5555555555", "6666666666", "7777777777"]
    assert body(f'printf("{"a" * 34}", {", ".join(numbers)});') == (
        f'printf("{"a" * 34}", 1111111111,\n       2222222222, 3333333333, 4444444444, 5555555555, 6666666666, 7777777777);'
    )
    assert body(f"$a = {' + '.join(numbers[:1] * 7)};").count("\n") == 2
    assert body("if (" + " && ".join(f"$a == {n}" for n in numbers) + ") { f(); }").splitlines()[:2] == [
        "if ($a == 1111111111 && $a == 2222222222 && $a == 3333333333 &&",
        "    $a == 4444444444 && $a == 5555555555 && $a == 6666666666 && $a == 7777777777) {",
    ]


def test_a_string_that_is_too_long_goes_to_a_line_of_its_own() -> None:
    assert body(f'printf("{"a" * 100}", 1);') == f'printf(\n  "{"a" * 100}", 1\n);'


SCRIPT = """#!/usr/bin/env bpftrace
/*
 * one
 *   two
 */
#define X   5  // kept
struct foo { int a;   /* kept */ };


config={max_strlen=50; // three
  stack_mode="perf"}
import   "x.bt";
let @m=lruhash(10);   /* four */
macro f(a,$b,@c){a+$b}
fn g($a:uint8):struct foo *{return 1}

// five
name = kprobe:a , // six
kprobe:b/pid==1&&/* seven */ comm=="// no"/{ // eight

  /* nine
     ten */
  f(1, // eleven
    2); // twelve
  if ($a) { f(); } // thirteen
  else { g(); /* fourteen */ }
  $x = { f(); /* fifteen */ 1 };
  // sixteen

}
// seventeen
"""
FORMATTED = """#!/usr/bin/env bpftrace
// one
//   two
#define X   5  // kept
struct foo { int a;   /* kept */ };


config = {
  max_strlen = 50; // three
  stack_mode = "perf";
}
import "x.bt";
let @m = lruhash(10); // four
macro f(a, $b, @c)
{
  a + $b
}
fn g($a : uint8) : struct foo*
{
  return 1;
}

// five
name=kprobe:a, // six
kprobe:b
// seven
/pid == 1 && comm == "// no"/
{ // eight

  // nine
  // ten
  // eleven
  f(1, 2); // twelve
  if $a {
    f();
    // thirteen
  } else {
    g(); // fourteen
  }
  $x = {
    f(); // fifteen
    1
  };
  // sixteen
}
// seventeen
"""


def test_a_whole_script() -> None:
    assert fmt(SCRIPT) == FORMATTED
    assert fmt(FORMATTED) == FORMATTED


def test_every_comment_is_kept() -> None:
    assert comment_lines(FORMATTED) == comment_lines(SCRIPT)
    assert len(comment_lines(SCRIPT)) == 17


def test_an_empty_script_and_one_of_comments() -> None:
    assert fmt("") == "\n"
    assert fmt("\n\n//x\n\n\n//y") == "// x\n\n\n// y\n"


def test_errors_are_those_of_the_parser() -> None:
    with pytest.raises(CompileError, match="expected expression"):
        fmt("begin { $a = ; }")


SOUP = """begin { } ( ) , ; = == + - * && || ! ~ ? : $a @m @m[ ] 1 "s" if else f( g( (uint8) & ++ .b . / { 2 } while for ($i:0..2)
    unroll(2) let // /* */ comptime sizeof( typeof( (x= return _ -> << < true struct foo kprobe:x $1"""
PIECES = st.sampled_from(
    [*SOUP.split(), "\n", "// c\n", "/* d */", "$a = 1;", "f();", "if (1) {", "} else {", "{", "}", "}"]
)


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=25))
def test_formatting_keeps_the_meaning_and_is_stable(pieces: list[str]) -> None:
    text = "begin { " + " ".join(pieces) + "\n}"
    try:
        parse(Source("t.bt", text))
    except CompileError:
        return
    once = fmt(text)  # raises when the tree changes
    assert fmt(once) == once
    assert comment_lines(once) == comment_lines(text)


ATOMS = st.sampled_from(["1", "0x1f", "1s", '"a\\n"', "$a", "@m", "@", "pid", "true", "$1", "args", "nsecs"])


def bigger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, inner)
    operators = st.sampled_from(["+", "-", "*", "/", "%", "&&", "||", "&", "|", "^", "==", "!=", "<", ">=", "<<", ">>"])
    return st.one_of(
        st.builds("{0[0]} {1} {0[1]}".format, two, operators),
        st.builds("({})".format, inner),
        st.builds(
            "{}({})".format, st.sampled_from(["-", "!", "~", "*", "(uint8)", "(struct foo *)", "sizeof", "f"]), inner
        ),
        st.builds("({0[0]}, {0[1]})".format, two),
        st.builds("(x={0[0]}, y={0[1]})".format, two),
        st.builds("f({0[0]}, {0[1]})".format, two),
        st.builds("@m[{0[0]}, {0[1]}]".format, two),
        st.builds("({})[1].b->c.0".format, inner),
        st.builds("({0[0]}) ? ({0[1]}) : {0[0]}".format, two),
        st.builds("(if ({0[0]}) {{ {0[1]} }} else {{ f(); {0[0]} }})".format, two),
        st.builds("({{ $b = {0[0]}; /* c */ {0[1]} }})".format, two),
        st.builds("{} /* d */ + 1".format, inner),
        st.builds("{} // e\n + 1".format, inner),
    )


EXPRESSIONS = st.recursive(ATOMS, bigger, max_leaves=12)


@settings(max_examples=400, deadline=None)
@given(
    EXPRESSIONS,
    EXPRESSIONS,
    st.sampled_from(["$r = {0}; f({1})", "if ({0}) {{ f({1}); }}", "f({0}, {1}) // z\n", "let $r : uint8 = {0};"]),
)
def test_any_expression_keeps_its_meaning(first: str, second: str, form: str) -> None:
    text = f"begin /{second}/ {{ {form.format(first, second)}\n}}"
    try:
        parse(Source("t.bt", text))
    except CompileError:
        return
    once = fmt(text)
    assert fmt(once) == once


TOOLS = sorted(glob.glob("/usr/sbin/*.bt") + glob.glob("/usr/share/bpftrace/tools/*.bt"))


@pytest.mark.skipif(not TOOLS, reason="no bpftrace tools (*.bt) are installed here")
@pytest.mark.parametrize("path", TOOLS, ids=[Path(t).name for t in TOOLS])
def test_the_tools_of_bpftrace_can_be_formatted(path: str) -> None:
    once = fmt(Path(path).read_text())
    assert fmt(once) == once

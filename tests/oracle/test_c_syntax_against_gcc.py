"""What the C parser accepts, gcc accepts, and the reverse: on snippets good and bad, and on good ones with a token changed."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from c_trees import parse_c, tokens_of

from sonde.errors import CompileError

pytestmark = pytest.mark.oracle

FLAGS = ["-std=gnu11", "-fsyntax-only", "-xc", "-Werror=implicit-int", "-Werror=implicit-function-declaration"]
PRELUDE = """
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
typedef int s32; typedef long long s64; typedef unsigned long size_t; typedef int pid_t;
struct s { int a; struct s *n; int b[4]; unsigned f : 3; }; union un { int i; char c[4]; }; enum en { EA, EB };
int g(int a, ...); int gi; struct s gs; struct s *gp; u64 gu;
"""

GOOD_EXPRESSIONS = """
x + y * 2 - 3 / x % 4 ¦ x << 1 >> 2 < 3 == 4 & 5 ^ 6 | 7 && 8 || 9 ¦ x = y = 3 ¦ x += y -= x *= 2 ¦ x ? y : 1 ¦ x ?: y ¦ x ? y, 1 : 2
x, y, gi ¦ -x ¦ - -x ¦ !x ¦ ~x ¦ +x ¦ *&x ¦ &*gp ¦ &gp->b[2] ¦ ++x ¦ x-- ¦ gp->n->n->a ¦ (*gp).b[1] ¦ 2[gs.b] ¦ g(x, y) ¦ g(1, (2, 3)) ¦ (g)(1) ¦ (&g)(x) ¦ (*g)(x)
(int)x ¦ (u32)(u64)-x ¦ (u8)x++ ¦ (struct s *)0 ¦ (void)x ¦ (int (*)(int))0 ¦ (const volatile char *const *)gp ¦ (char)'a' + '\\n'
sizeof x ¦ sizeof(x) ¦ sizeof(int) ¦ sizeof(struct s) ¦ sizeof(int[3]) ¦ sizeof(int (*)[3]) ¦ sizeof(int *(*(*)(void))[3]) ¦ sizeof (x) + 1
sizeof (struct s){ 1 } ¦ sizeof gs.b / sizeof *gs.b ¦ sizeof -x ¦ sizeof sizeof x ¦ sizeof (gp)->b ¦ sizeof "abc" ¦ _Alignof(u64) ¦ __alignof__(x)
((struct s){ .a = 1 }).a ¦ (struct s){ 1 }.a ¦ &(struct s){ .b = { 1, 2 } } ¦ (int[]){ 1, 2, 3 }[1] ¦ (union un){ .c = "ab" }.i
({ int z = 3; z + x; }) ¦ ({ ; }) ¦ ({ for (;;) break; x; }) ¦ __extension__ x ¦ __extension__ ({ 1; }) ¦ (__extension__ (int)x)
_Generic(x, int: 1, default: 2) ¦ _Generic((u64)x, u32: 1, unsigned long long: 2) ¦ _Generic(gp, struct s *: gp->a, default: 0)
__builtin_offsetof(struct s, a) ¦ __builtin_offsetof(struct s, b[2]) ¦ __builtin_types_compatible_p(int, u32)
__builtin_types_compatible_p(typeof(x), typeof(y)) ¦ __builtin_constant_p(x) ¦ __builtin_expect(!!(x), 0) ¦ "a" "b" "\\x41\\101" ¦ '\\'' ¦ 'ab'
0 ¦ 0x1fUL ¦ 0b101 ¦ 017 ¦ 1u + 2l + 3ul + 4ll + 5ull + 6LLU + 7lu ¦ L'a' ¦ u8"x" ¦ x = (y, 3) ¦ x = y ? 1 : 2 ¦ (x = y) ¦ x == y != 1 ¦ (((x)))
(typeof(x))y ¦ (typeof(int *))0 ¦ (__typeof__(gs) *)gp ¦ x&&y||x ¦ x&y ¦ x & &y != 0 ¦ x - -y ¦ x-- - --y ¦ x+++y ¦ a1 = x ¦ __func__ ¦ sizeof __func__
""".strip()

GOOD_DECLARATIONS = """
int a; ¦ int a, *b, c[3], d(void), (*e)(void), *(*f[2])(int); ¦ const int a = 1; ¦ int const a = 1, *const b = 0; ¦ volatile u32 a;
unsigned a; ¦ unsigned long long int a; ¦ long unsigned int long a; ¦ short a; signed char b; signed c; long long d; char unsigned e;
_Bool a; ¦ __int128 a; unsigned __int128 b; ¦ float a; double b; long double c; ¦ void *a; ¦ struct foo *a; ¦ struct foo; struct foo *a;
struct foo { int a; } a, *b; ¦ struct { int a; } a; ¦ struct foo { struct { int a, b; }; union { int c; char d; }; } a;
struct foo { int a : 3, : 2, b : 1; unsigned : 0; unsigned c : 4; }; ¦ struct foo { int n; char tail[]; }; ¦ struct foo { char a[0]; }; ¦ struct foo { };
struct foo { int a; } __attribute__((packed)); ¦ struct __attribute__((packed, aligned(4))) foo { int a; }; ¦ struct foo { int a __attribute__((packed)); };
struct foo { int (*f)(struct foo *, int); void *p; }; ¦ struct foo { u32 u32; size_t size_t; }; ¦ struct foo { const u8 *a, b; volatile int c; };
struct foo { __extension__ struct { int a; }; }; ¦ struct foo { int a;; }; ¦ struct foo { _Alignas(8) int a; int *restrict b; };
union u { int a; struct { char b, c; } d; }; ¦ enum e { A, B }; ¦ enum e { A = 1, B = A << 2, C, }; ¦ enum { A } a = A; ¦ enum e { A __attribute__((unused)) = 3, B };
typedef int T; T a; T *b(T c); ¦ typedef struct foo T; struct foo { T *n; }; ¦ typedef int T, *P; P a; ¦ typedef int (*F)(int); F a; ¦ typedef int A[3]; A a;
int f(void); ¦ int f(); ¦ int f(int); ¦ int f(int a, char *b); ¦ int f(const char *fmt, ...); ¦ int f(int a[], int b[3], int c[static 2], int d[const]);
int f(int (*cb)(int, void *), void *p); ¦ int f(int (int)); ¦ int f(int (a)); ¦ int f(int (u32)); ¦ int f(struct s a, union un b, enum en c); ¦ int f(int [*]); ¦ int f(register int a);
int (*f(int a))(int b); ¦ int (*(*f)(int))[3]; ¦ void (*signal(int, void (*)(int)))(int); ¦ static inline int f(void) { return 1; } ¦ extern int f(void);
__inline__ static int f(void) { return 0; } ¦ _Noreturn void f(void); ¦ _Alignas(16) int a; ¦ _Alignas(u64) char a; ¦ extern __inline int f(void);
int a __attribute__((section("x"))); ¦ __attribute__((unused)) int a; ¦ int __attribute__((unused)) a; ¦ int *__attribute__((unused)) a; ¦ int (__attribute__((unused)) *f)(void);
int f(int a __attribute__((unused))); ¦ int f(void) __attribute__((noinline, pure)); ¦ __attribute__((noinline)) int f(void) { return 0; } ¦ int a __attribute__((aligned(__alignof__(u64))));
int a asm("b"); ¦ int a __asm__("b") __attribute__((unused)); ¦ int a, __attribute__((unused)) b; ¦ __attribute__((mode(DI))) int a; ¦ __attribute__(()) int a;
typeof(int) a; ¦ __typeof__(1 + 2) a; ¦ typeof(typeof(char *)) a; ¦ _Atomic int a; ¦ _Atomic(int) a; ¦ int *_Atomic a; ¦ __extension__ int a; ¦ __extension__ typedef int T;
int a = 1, b = 2; ¦ int a[] = { 1, 2, 3, }; ¦ int a[2][3] = { { 1 }, { 2, 3 } }; ¦ int a[8] = { [2] = 1, [4 ... 6] = 2, 3 }; ¦ char a[] = "abc", b[] = { "d" }; ¦ int a[] = { };
struct s a = { .a = 1, .b = { 1, 2 }, .b[3] = 4 }; ¦ struct s a = { a: 1, f: 2 }; ¦ struct s a[] = { [0].a = 1, [1] = { .a = 2 } }; ¦ int a[] = { [1] 2, 3 }; ¦ struct s a = { };
struct s a = { 1, 0, { 1, 2 }, 3 }; ¦ struct s *a = &(struct s){ 1 }; ¦ union un a = { .c = { 'a' } }; ¦ _Static_assert(sizeof(int) == 4, "x"); ¦ _Static_assert(1, "a" "b"); int a;
; ¦ int a;;;int b; ¦ extern int a[]; ¦ static int f(int a) { typedef char T; T b = a; return b; }
""".strip()

GOOD_STATEMENTS = """
; ¦ { } ¦ { ; ; } ¦ x = 1; ¦ if (x) y = 1; ¦ if (x) ; else ; ¦ if (x) y = 1; else if (y) x = 1; else { } ¦ if (x) if (y) ; else ; ¦ while (x) x--; ¦ while (1) { break; }
do x++; while (x < 3); ¦ do { continue; } while (0); ¦ for (;;) break; ¦ for (x = 0; x < 3; x++) ; ¦ for (int i = 0, j = 1; i < j; i++, j--) { } ¦ for (u32 i = 0; ; ) break;
switch (x) { } ¦ switch (x) { case 1: break; case 2: case 3: y = 1; default: ; } ¦ switch (x) { case 1 ... 3: break; case EA + 8: ; } ¦ switch (x) case 1: y = 1;
switch (x) { case 1: { int z = 1; } break; default: break; } ¦ switch (x) { case 1: ; __attribute__((fallthrough)); case 2: ; } ¦ switch (x) { case 1: }
goto out; out: ; ¦ out: goto out; ¦ out: x = 1; goto out; ¦ u32: goto u32; ¦ { int x = 1; x++; } ¦ int z; z = 1; ¦ x = 1; int z = 2; z++; ¦ return 1; ¦ return x, y; ¦ return (x);
u32 z = 1, *p = &z; ¦ u32 (*p) = 0; ¦ u32 (z); ¦ size_t z = sizeof(size_t); ¦ int u32 = 3; u32 = u32 * 2; ¦ struct s z = gs, *p = &z; ¦ struct loc { int a; } z = { 1 }; ¦ enum { LA, LB }; x = LB;
typedef int T; T z; ¦ static int z = 1; z++; ¦ extern int z; ¦ register int z; ¦ const char *p = "a"; ¦ int (*p)(int, ...) = g; ¦ int a[x]; a[0] = 1; ¦ _Static_assert(1, "");
asm(""); ¦ asm volatile("" : : : "memory"); ¦ asm("" : "=r"(x) : "r"(y), "0"(1)); ¦ __asm__ __volatile__("x" : [o] "+r"(x) : [i] "i"(3) :); ¦ asm("" :: "r"(x));
g(x, y); ¦ (void)g(1); ¦ x++, y++; ¦ ({ x; }); ¦ *gp = gs; ¦ gp->n = (struct s *)0; ¦ gs.b[1] = 2; ¦ x ? y++ : x++; ¦ __extension__ x; ¦ __extension__ int z; ¦ __attribute__((unused)) int z;
__attribute__((unused)) u32 z, *p; ¦ out: __attribute__((unused)); goto out; ¦ int z = ({ int w = x; w; }); ¦ while (({ x--; x; })) ; ¦ for (struct s *p = gp; p; p = p->n) ; ¦ __auto_type z = x;
{ typedef int u64; u64 z; } ¦ { int u64 = 1; u64++; } u64 z; ¦ if (sizeof(struct q { int a; }) > 1) ; ¦ int a[3] = { [0 ... 2] = 1 }; ¦ x = (int[]){ 1, 2 }[x]; ¦ int z, w = z = 1;
int z = x * y; z *y; ¦ u32 * p; u32 *q; ¦ sizeof(u32) * x; ¦ (u32)*&x; ¦ - x; ¦ ! x; ¦ ~ x; ¦ & x; ¦ * gp;
""".strip()

GOOD_PRAGMAS = [
    "#pragma GCC unroll 4\nfor (int i = 0; i < 4; i++) ;",
    "#pragma GCC diagnostic push\nx = 1;",
    "#pragma GCC unroll 2\nwhile (x) x--;",
]

BAD_EXPRESSIONS = """
 ¦ + ¦ x + ¦ *  ¦ x y ¦ (x ¦ x) ¦ ((x) ¦ x ? y ¦ x ? :  ¦ x ? y : ¦ x[ ¦ x[] ¦ x] ¦ g( ¦ g(,) ¦ g(x,) ¦ g(x y) ¦ x. ¦ gp-> ¦ gp->1 ¦ gs.(a) ¦ x =  ¦ = x ¦ x == ¦ 1 + 2 = 3 + ¦ sizeof ¦ sizeof( ¦ sizeof() ¦ sizeof int ¦ (int ¦ (int) ¦ () ¦ ()x
({ x } ¦ ({ x; ) ¦ { x } ¦ (struct s){ 1 ¦ (struct s){ .a 1 } ¦ (struct s){ . = 1 } ¦ (int[]){ [1 = 2 } ¦ _Generic(x) ¦ _Generic(x, 1: 2) ¦ _Generic(x, int 1) ¦ _Generic(x, int: 1,)
__builtin_offsetof(struct s) ¦ __builtin_offsetof(x, a) ¦ __builtin_offsetof(struct s, 1) ¦ __builtin_types_compatible_p(int) ¦ __builtin_types_compatible_p(1, 2)
08 ¦ 0x ¦ 1lul ¦ 1.2.3 ¦ 0b2 ¦ x : y ¦ x ; ; ) ¦ case ¦ if ¦ int ¦ static x ¦ _Alignof ¦ (u32 x) ¦ (int)( ¦ x -> -> a ¦ x . . a ¦ "a" x ¦ x "a" ¦ 'a' 'b' ¦ 1 2 ¦ g(int) ¦ (int)int ¦ return
""".strip("\n")

BAD_DECLARATIONS = """
int ¦ int a ¦ int a b; ¦ int int a; ¦ int a = ; ¦ int a = 1 ¦ int a,; ¦ int ,a; ¦ int *; ¦ int a[; ¦ int a[3; ¦ int a]; ¦ int (a; ¦ int a); ¦ int (*a; ¦ int f(; ¦ int f(int; ¦ int f(int,); ¦ int f(,int); ¦ int f(int a b);
int f(int a,, int b); ¦ int f(..., int a); ¦ int f(int a, ..., int b); ¦ static extern int a; ¦ typedef static int a; ¦ unsigned float a; ¦ long char a; ¦ long long long a; ¦ short long a; ¦ signed unsigned a; ¦ _Bool int a;
struct; ¦ struct {; ¦ struct foo { a; }; ¦ struct foo { int a } ¦ struct foo { int a : ; }; ¦ struct foo { int a, }; ¦ struct foo { int a = 1; }; ¦ struct foo int a;
struct 3 { int a; }; ¦ struct foo { int a; } int b; ¦ struct foo { static int a; }; ¦ struct foo { int a; int b;  ¦ union; ¦ enum; ¦ enum { }; ¦ enum e { A B }; ¦ enum e { A, , B }; ¦ enum e { 1 }; ¦ enum e { A = }; ¦ enum e { A = 1 = 2 };
int for; ¦ int if = 1; ¦ foo_t a; ¦ foo_t *a; ¦ foo_t f(void); ¦ int f(foo_t a); ¦ struct foo { foo_t a; }; ¦ const foo_t a; ¦ static a1; ¦ x = 1; ¦ f() { return 1; } ¦ f(1); ¦ 1; ¦ "a"; ¦ +;
int f(void) { return 1; ¦ int f(void) return 1; } ¦ int f(void) { }} ¦ } ¦ { } ¦ ) ¦ int f { return 1; } ¦ int f[3] { return 1; } ¦ int a() = { 1  ¦ int a = { 1, 2; ¦ int a = { , }; ¦ int a = { 1, , 2 }; ¦ int a[] = { [0 = 1 }; ¦ int a[] = { [] = 1 };
__attribute__ int a; ¦ __attribute__(unused) int a; ¦ __attribute__((unused) int a; ¦ __attribute__((1)) int a; ¦ int a __attribute__((aligned(8)); ¦ typeof a; ¦ typeof() a; ¦ typeof(int a; ¦ _Alignas int a; ¦ _Alignas() int a;
_Static_assert(1, "a" ¦ _Static_assert(1 "a"); ¦ _Static_assert(); ¦ _Static_assert(1, 2); ¦ _Static_assert; ¦ _Atomic() a; ¦ int a asm(1); ¦ int a asm("x"; ¦ int a : 3; ¦ int a.b; ¦ int a->b; ¦ int 3; ¦ int "a"; ¦ int a + b; ¦ else;
""".strip()

BAD_STATEMENTS = """
x = 1 ¦ x = ; ¦ if x) ; ¦ if () ; ¦ if (x ; ¦ if (x) ¦ if (x) else ; ¦ else ; ¦ if (x) ; else ¦ if (x) ; ; else ; ¦ while () ; ¦ while x ; ¦ while (x) ¦ do ; while (x) ¦ do ; (x); ¦ do while (x); ¦ do ; ¦ for () ; ¦ for (;) ; ¦ for (;; ¦ for (;;;) ; ¦ for (int i) ;
for (x; y; z1;) ; ¦ for (;;) ¦ for (int i = 0, i < 3; i++) ; ¦ switch x { } ¦ switch () { } ¦ switch (x) ¦ switch (x) { case : ; } ¦ switch (x) { case 1 ; } ¦ switch (x) { case 1 ... : ; } ¦ switch (x) { default 1: ; } ¦ switch (x) { case 1; }
goto; ¦ goto 1; ¦ goto out ¦ break ¦ break 1; ¦ continue x; ¦ return ¦ return 1 ¦ return ;;) ¦ return return; ¦ return int; ¦ { ¦ { x = 1 } ¦ } ¦ ); ¦ x y; ¦ x = 1 y = 2; ¦ int z = 1 int w; ¦ int z w; ¦ if (x) int z; ¦ while (x) u32 z; ¦ for (;;) struct s z; ¦ case x y: ;
asm; ¦ asm(""; ¦ asm(); ¦ asm(x); ¦ asm("" : x); ¦ asm("" : "=r" x); ¦ asm("" : "=r"(x : ); ¦ asm("" : [] "r"(x)); ¦ 1:; ¦ "a": ; ¦ x::; ¦ out: goto; ¦ (x; ¦ x); ¦ [x]; ¦ x[; ¦ .a = 1; ¦ ->a; ¦ int;x y ¦ struct s z = { .a = 1;
int f(void) { return 1; ¦ int f( ¦ static;x y ¦ typedef z y1; ¦ foo_t z; ¦ foo_t *z = 0; ¦ (foo_t *)x; ¦ (foo_t)x; ¦ sizeof(foo_t *); ¦ __attribute__((fallthrough) ¦ __attribute__(fallthrough); ¦ _Static_assert(1, "";
""".strip()


def split(table: str) -> list[str]:
    """The cells of a table."""
    return [cell.strip() for line in table.split("\n") for cell in line.split("¦")]


def in_function(body: str) -> str:
    return "int f(int x, int y) {\n" + body + "\n}"


GOOD = [
    *(in_function(f"int a1; {e};") for e in split(GOOD_EXPRESSIONS)),
    *split(GOOD_DECLARATIONS),
    *(in_function(s) for s in split(GOOD_STATEMENTS)),
    *(in_function(s) for s in GOOD_PRAGMAS),
]
BAD = [
    *(in_function(f"x = ({e});") for e in split(BAD_EXPRESSIONS)),
    *split(BAD_DECLARATIONS),
    *(in_function(s) for s in split(BAD_STATEMENTS)),
]

# What we refuse though gcc takes it, and why: BPF has nothing that it could become, or it is of no use there.
OURS_ONLY = [
    ("int f(void) { return 1.5; }", "no floating point"),
    ("int f(a) int a; { return a; }", "parameters are declared in the parentheses"),
    ("int f(void) { __label__ a; a: return 0; }", "labels have the function as their scope"),
    ("void *f(void) { a: return &&a; }", "no computed goto"),
    ("int f(void) { int g(void) { return 1; } return g(); }", "clang has no nested functions either"),
    ('asm("nop");', "no section for it"),
    ("__thread int x;", "no threads"),
    ("int f(void) { asm goto(\"\" : : : : a); a: return 0; }", "no labels in inline assembly"),
    ("struct t { _Static_assert(1, \"\"); int a; };", "stands behind the struct as well"),
    ('int *f(void) { return L"a"; }', "no wide strings"),
    ("struct { int a } x;", "no C, and clang refuses it"),
]  # fmt: skip


def gcc_says(text: str) -> str:
    """The first error of gcc, or ""."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    done = subprocess.run([gcc, *FLAGS, "-"], input=PRELUDE + text, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert bool(errors) == (done.returncode != 0), done.stderr
    return errors[0].split("error: ")[1] if errors else ""


def we_say(text: str) -> str:
    """Our first error, or ""."""
    try:
        parse_c(PRELUDE + text, frozenset())
    except CompileError as error:
        return error.diagnostics[0].message
    return ""


def all_of_gcc(texts: list[str]) -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(gcc_says, texts))


def test_good_snippets() -> None:
    assert len(GOOD) > 250
    wrong = [(text, says, we_say(text)) for text, says in zip(GOOD, all_of_gcc(GOOD)) if says or we_say(text)]
    assert wrong == []


def test_bad_snippets() -> None:
    assert len(BAD) > 200
    wrong = [(text, says, we_say(text)) for text, says in zip(BAD, all_of_gcc(BAD)) if not says or not we_say(text)]
    assert wrong == []


@pytest.mark.parametrize(("text", "why"), OURS_ONLY, ids=[why for _, why in OURS_ONLY])
def test_what_only_gcc_takes(text: str, why: str) -> None:
    assert gcc_says(text) == ""
    assert we_say(text) != ""


def spoil(text: str, random: Random) -> str:
    """A text with one token removed, doubled, swapped with the next, or replaced."""
    words = ["\n#pragma " + t.text + "\n" if t.kind == "pragma" else t.text for t in tokens_of(text)[:-1]]
    at = random.randrange(len(words))
    what = random.randrange(4)
    if what == 0:
        del words[at]
    elif what == 1:
        words.insert(at, words[at])
    elif what == 2 and at + 1 < len(words):
        words[at], words[at + 1] = words[at + 1], words[at]
    else:
        words[at] = random.choice(["(", ")", "{", "}", ";", ",", "*", "x", "int", "u32", "1", "=", ":", "["])
    return " ".join(words)


# Our messages for what gcc takes: with a warning; for variable-length arrays; parameters that are declared behind the parentheses.
KNOWN = ["expected ';' behind a member, found '}'", "expected ')', found ';'", "unknown type name 'a'"]


def test_snippets_with_a_token_changed() -> None:
    """gcc also checks types, so only its syntax errors count where we see none; where it sees nothing wrong, nor do we."""
    random = Random(20260101)
    texts = [spoil(text, random) for text in GOOD for _ in range(2)]
    wrong = []
    for text, says in zip(texts, all_of_gcc(texts)):
        ours = we_say(text)
        if (not says and ours and ours not in KNOWN) or (says.startswith("expected ") and not ours):
            wrong.append((text, says, ours))
    assert wrong == []

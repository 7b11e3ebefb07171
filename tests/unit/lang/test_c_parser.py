"""The grammar of C: what each form parses to."""

from __future__ import annotations

import pytest
from c_trees import parse_c, parse_expression, shape, short

from sonde.lang.c import ast
from sonde.lang.c.print_c import print_unit

EXPRESSIONS = [
    ("x + y * 2", "(x + (y * 2))"),
    ("x - y - 1", "((x - y) - 1)"),
    ("x << 1 + y < 3 == x & y ^ 1 | 2 && 3 || 4", "((((((((x << (1 + y)) < 3) == x) & y) ^ 1) | 2) && 3) || 4)"),
    ("x = y += 3", "(x = (y += 3))"),
    ("x ? y : x ? 1 : 2", "(x ? y : (x ? 1 : 2))"),
    ("x ? y, 1 : 2", "(x ? (y , 1) : 2)"),
    ("x ?: y", "(x ? none : y)"),
    ("x, y, 1", "((x , y) , 1)"),
    ("-x++ + !*p->n", "((- (x ++)) + (! (* p->n)))"),
    ("- -x - -y", "((- (- x)) - (- y))"),
    ("p->n->b[x + 1]", "p->n->b[(x + 1)]"),
    ("(*p).a", "(* p).a"),
    ("&p->b[1]", "(& p->b[1])"),
    ("f(x, (y, 1))(2)", "f(x, (y , 1))(2)"),
    ("(int)x + 1", "((<int> <- x) + 1)"),
    ("(u32)(u64)-x", "(<u32> <- (<u64> <- (- x)))"),
    ("(u32)x[1]", "(<u32> <- x[1])"),
    ("(struct s *)p", "(<struct s *> <- p)"),
    ("(unsigned long long const *const)p", "(<const unsigned long long *const> <- p)"),
    ("(int (*)(int, char *))p", "(<int * (int _, char *)> <- p)"),
    ("(x)(y)", "x(y)"),
    ("(x) - 1", "(x - 1)"),
    ("sizeof x + 1", "((Sizeof sizeof x) + 1)"),
    ("sizeof(u32) * 2", "((Sizeof sizeof <u32>) * 2)"),
    ("sizeof (x) * 2", "((Sizeof sizeof x) * 2)"),
    ("sizeof (int){ 1 }", "(Sizeof sizeof (CompoundLiteral <int> (InitList (InitItem 1))))"),
    ("sizeof(struct s[3])", "(Sizeof sizeof <struct s [3]>)"),
    ("sizeof(int (*[2])(void))", "(Sizeof sizeof <int [2] * ()>)"),
    ("__alignof__(u64)", "(Sizeof alignof <u64>)"),
    ("(struct s){ .a = 1 }.a", "(CompoundLiteral <struct s> (InitList (InitItem (MemberDesignator a) 1))).a"),
    ("({ x; y; })", "(StatementExpr (Compound (ExprStatement x) (ExprStatement y)))"),
    ("__extension__ x", "x"),
    ("__extension__ (int)x", "(<int> <- x)"),
    ("(__extension__ (x))", "x"),
    ("_Generic(x, int: 1, u64: y, default: 3)", "(Generic x <int> 1 <u64> y none 3)"),
    ("__builtin_offsetof(struct s, n[2].b)",
     "(OffsetOf <struct s> (MemberDesignator n) (IndexDesignator 2) (MemberDesignator b))"),
    ("__builtin_types_compatible_p(typeof(x), int)", "(TypesCompatible <(TypeofType x)> <int>)"),
    ('"a" "b\\n"', "'ab\\n'"),
    ("'a' + '\\n' + '\\xff'", "(('97' + '10') + '-1')"),
    ("0x1FuLL + 0b101 + 017 + 5lu", "(((31ull + 5) + 15) + 5ul)"),
    ("x ? p->a : p->b[0]", "(x ? p->a : p->b[0])"),
    ("(typeof(x))y", "(<(TypeofType x)> <- y)"),
    ("(typeof(int *))y", "(<(TypeofType <int *>)> <- y)"),
    ("start.lookup(&x)", "start.lookup((& x))"),
    ("('a') + (L'b')", "('97' + '98')"),
    ("__func__[0]", "__func__[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), EXPRESSIONS, ids=[e[0] for e in EXPRESSIONS])
def test_expressions(text: str, expected: str) -> None:
    assert short(parse_expression(text)) == expected


DECLARATORS = [
    ("int x;", "int x"),
    ("int *a[3];", "int a [3] *"),
    ("int (*a)[3];", "int a * [3]"),
    ("int (*f)(void);", "int f * ()"),
    ("int *f(void);", "int f () *"),
    ("int f();", "int f (?)"),
    ("int (*(*g[2])(int))[4];", "int g [2] * (int _) * [4]"),
    ("void (*signal(int, void (*)(int)))(int);", "void signal (int _, void _ * (int _)) * (int _)"),
    ("const char *const *volatile p;", "const char p *volatile *const"),
    ("int const unsigned long x;", "const int unsigned long x"),
    ("static inline u64 f(u32 u64);", "static inline u64 f (u32 u64)"),
    ("int f(int n, int a[static const 3], int b[const]);", "int f (int n, int a [3], int b [])"),
    ("int f(const char *fmt, ...);", "int f (const char fmt *, ...)"),
    ("int f(int [*]);", "int f (int _ [])"),
    ("int f(u32);", "int f (u32 _)"),
    ("int f(int (u32));", "int f (int _ (u32 _))"),
    ("int f(int (x));", "int f (int x)"),
    ("int (x);", "int x"),
    ("int ((*x));", "int x *"),
    ("extern int x[];", "extern int x []"),
    ("int x[2][3];", "int x [2] [3]"),
    ("struct foo *x;", "struct foo x *"),
    ("__int128 x;", "__int128 x"),
    ("unsigned __int128 x;", "unsigned __int128 x"),
    ("_Bool x;", "_Bool x"),
    ("long double x;", "long double x"),
    ("_Float16 x;", "_Float16 x"),
    ("__signed__ char __volatile__ x;", "volatile signed char x"),
    ("__extension__ u64 x;", "u64 x"),
    ("__extension__ extern int x;", "extern int x"),
    ("_Atomic int x;", "_Atomic int x"),
    ("_Atomic(int *) x;", "_Atomic (TypeofType <int *>) x"),
    ("_Noreturn void f(void);", "@noreturn void f ()"),
    ("_Alignas(8) char x[8];", "@aligned(8) char x [8]"),
    ("_Alignas(u64) char x;", "@aligned(<u64>) char x"),
    ("__thread_t *x;", None),
    ('int x __attribute__((section("maps"), aligned(8)));', "int x @section('maps') @aligned(8)"),
    ("int __attribute__((__mode__(__DI__))) x;", "@mode(__DI__) int x"),
    ("__attribute__((unused)) static int x;", "static @unused int x"),
    ("int *__attribute__((btf_type_tag(\"x\"))) x;", "int x *"),
    ("int (__attribute__((noinline)) *x)(void);", "int x * () @noinline"),
    ("int x asm(\"y\");", "int x @asm_label('y')"),
    ("void f(int x __attribute__((unused)), int);", "void f (int x @unused, int _)"),
    ("__attribute__((, const, )) int f(void);", "@const int f ()"),
    ("typeof(int) x;", "(TypeofType <int>) x"),
    ("__typeof__(x + 1) y;", "(TypeofType (x + 1)) y"),
    ("register int x;", "register int x"),
    ("__builtin_va_list x;", "__builtin_va_list x"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"), [d for d in DECLARATORS if d[1]], ids=[d[0] for d in DECLARATORS if d[1]]
)
def test_declarations(text: str, expected: str) -> None:
    (item,) = parse_c(text).items
    assert isinstance(item, ast.Declaration)
    assert " ".join([short(item.specifiers), *(short(d.declarator) for d in item.declarators)]) == expected


def test_one_declaration_declares_several() -> None:
    (item,) = parse_c("int a = 1, *b, c[2] = { 1, 2, }, __attribute__((unused)) d;").items
    assert isinstance(item, ast.Declaration)
    assert [short(d.declarator) for d in item.declarators] == ["a", "b *", "c [2]", "d @unused"]
    assert [short(d.init) for d in item.declarators] == ["1", "none", "(InitList (InitItem 1) (InitItem 2))", "none"]


def test_members() -> None:
    text = """struct s {
        int a, *b;
        unsigned x : 3, : 2, y : 1 __attribute__((packed));
        unsigned : 0;
        struct { int c; };
        union u { int d; } e;
        u64 u64;
        char tail[] __attribute__((aligned(2)));;
    } __attribute__((packed));"""
    (item,) = parse_c(text).items
    assert isinstance(item, ast.Declaration)
    struct = item.specifiers.type
    assert isinstance(struct, ast.StructType) and struct.members is not None
    got = [(short(m.declarator), short(m.width), short(m.attributes)) for m in struct.members]
    assert got == [
        ("a", "none", ""),
        ("b *", "none", ""),
        ("x", "3", ""),
        ("none", "2", ""),
        ("y", "1", "@packed"),
        ("none", "0", ""),
        ("none", "none", ""),
        ("e", "none", ""),
        ("u64", "none", ""),
        ("tail []", "none", "@aligned(2)"),
    ]
    assert short(struct.attributes) == "@packed"
    assert not item.declarators


def test_enumerators_hide_types() -> None:
    unit = parse_c("enum __attribute__((packed)) e { A, B = 1 << 2, u32 __attribute__((unused)), }; int x = u32 * 3;")
    enum = unit.items[0]
    assert isinstance(enum, ast.Declaration) and isinstance(enum.specifiers.type, ast.EnumType)
    assert short(enum.specifiers.type.enumerators) == "(Enumerator A) (Enumerator B (1 << 2)) (Enumerator u32 @unused)"
    value = unit.items[1]
    assert isinstance(value, ast.Declaration)
    assert short(value.declarators[0].init) == "(u32 * 3)"


def test_designators() -> None:
    (item,) = parse_c("struct s x = { .a.b[2] = 1, [3] = { 2 }, [4 ... 6] = 3, old: 4, [7] 5, 6, };").items
    assert isinstance(item, ast.Declaration)
    init = item.declarators[0].init
    assert isinstance(init, ast.InitList)
    assert [short(i.designators) for i in init.items] == [
        "(MemberDesignator a) (MemberDesignator b) (IndexDesignator 2)",
        "(IndexDesignator 3)",
        "(IndexDesignator 4 6)",
        "(MemberDesignator old)",
        "(IndexDesignator 7)",
        "",
    ]


def test_typedef_names_have_scopes() -> None:
    text = """
    typedef int T;
    int f(int T) { return T * 2; }
    int g(void) { { int T = 1; T * 2; } T * p; return 0; }
    int h(void) { for (int T = 0; T; T++) T * 1; T x; return x; }
    void k(int T, int b[T]);
    T last;
    """
    unit = parse_c(text)
    f, g, h = unit.items[1:4]
    assert isinstance(f, ast.FunctionDef) and isinstance(g, ast.FunctionDef) and isinstance(h, ast.FunctionDef)
    assert short(f.body.items[0]) == "(Return (T * 2))"
    inner = g.body.items[0]
    assert isinstance(inner, ast.Compound)
    assert isinstance(inner.items[1], ast.ExprStatement)
    assert isinstance(g.body.items[1], ast.Declaration)
    loop = h.body.items[0]
    assert isinstance(loop, ast.For) and short(loop.body) == "(ExprStatement (T * 1))"
    assert isinstance(h.body.items[1], ast.Declaration)
    assert short(unit.items[5]) == "(Declaration T (InitDeclarator last))"


def statement_of(text: str) -> ast.Statement:
    """The first statement of a function."""
    function = parse_c("int f(int x, int y) {\n" + text + "\n}").items[-1]
    assert isinstance(function, ast.FunctionDef)
    return function.body.items[0]


STATEMENTS = [
    (";", "(ExprStatement none)"),
    ("x = 1;", "(ExprStatement (x = 1))"),
    ("if (x) y; else if (y) x; else ;", "(If x (ExprStatement y) (If y (ExprStatement x) (ExprStatement none)))"),
    ("if (x) if (y) 1; else 2;", "(If x (If y (ExprStatement 1) (ExprStatement 2)))"),
    ("while (x) y;", "(While x (ExprStatement y))"),
    ("do x; while (y);", "(DoWhile (ExprStatement x) y)"),
    ("for (;;) ;", "(For none none none (ExprStatement none))"),
    ("for (x = 0; x < 3; x++) ;", "(For (x = 0) (x < 3) (x ++) (ExprStatement none))"),
    ("for (u32 i = 0; i; ) continue;", "(For (Declaration u32 (InitDeclarator i 0)) i none (Continue))"),
    ("switch (x) case 1: y;", "(Switch x (Case 1 none (ExprStatement y)))"),
    ("switch (x) { case 1 ... 3: case 4: default: break; }",
     "(Switch x (Compound (Case 1 3 (Case 4 none (Case none none (Break))))))"),
    ("switch (x) { case 1: }", "(Switch x (Compound (Case 1 none (ExprStatement none))))"),
    ("u32: goto u32;", "(Label u32 (Goto u32))"),
    ("out: __attribute__((unused)) x;", "(Label out (ExprStatement x))"),
    ("return;", "(Return none)"),
    ("return x, y;", "(Return (x , y))"),
    ("__attribute__((fallthrough));", "(ExprStatement none)"),
    ("__attribute__((unused)) u32 z;", "(Declaration @unused u32 (InitDeclarator z))"),
    ("u32 *p = 0, q;", "(Declaration u32 (InitDeclarator p * 0) (InitDeclarator q))"),
    ("u32 (*p)(int);", "(Declaration u32 (InitDeclarator p * (int _)))"),
    ("struct s z;", "(Declaration struct s (InitDeclarator z))"),
    ("typedef int T;", "(Declaration typedef int (InitDeclarator T))"),
    ("unknown(x);", "(ExprStatement unknown(x))"),
    ("x * y;", "(ExprStatement (x * y))"),
    ("__extension__ u32 z;", "(Declaration u32 (InitDeclarator z))"),
    ("__extension__ x;", "(ExprStatement x)"),
    ("__auto_type z = x;", "(Declaration __auto_type (InitDeclarator z x))"),
    ('_Static_assert(sizeof(int) == 4, "four");', "(StaticAssert ((Sizeof sizeof <int>) == 4) four)"),
    ("#pragma unroll\nfor (;;) ;", "(For none none none (ExprStatement none) -1)"),
    ("#pragma unroll 4\nwhile (x) ;", "(While x (ExprStatement none) 4)"),
    ("#pragma clang loop unroll(full)\ndo ; while (x);", "(DoWhile (ExprStatement none) x -1)"),
    ("#pragma nounroll\n#pragma GCC ivdep\nwhile (x) ;", "(While x (ExprStatement none) 1)"),
    ("#pragma GCC unroll(8)\nwhile (x) ;", "(While x (ExprStatement none) 8)"),
    ("#pragma clang loop unroll_count(3)\nwhile (x) ;", "(While x (ExprStatement none) 3)"),
    ("#pragma GCC diagnostic ignored \"-Wall\"\nx;", "(ExprStatement x)"),
    ('asm volatile("a");', "(Asm a)"),
    ('asm("r0 = %[v]" : "=r"(x), [q] "+m"(y) : [v] "r"(x + 1) : "r0", "memory");',
     "(Asm r0 = %[v] (AsmOperand =r x) (AsmOperand q +m y) (AsmOperand v r (x + 1)) r0 memory)"),
    ('__asm__ __volatile__("" : : "r"(x) :);', "(Asm (AsmOperand r x))"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), STATEMENTS, ids=[s[0] for s in STATEMENTS])
def test_statements(text: str, expected: str) -> None:
    assert short(statement_of(text)) == expected


def test_a_pragma_is_only_for_the_next_loop() -> None:
    function = parse_c("int f(int x) {\n#pragma unroll\nfor (;;) while (x) ;\nwhile (x) ;\n}").items[0]
    assert isinstance(function, ast.FunctionDef)
    outer, after = function.body.items
    assert isinstance(outer, ast.For) and isinstance(outer.body, ast.While) and isinstance(after, ast.While)
    assert (outer.unroll, outer.body.unroll, after.unroll) == (-1, 0, 0)


def test_pragma_pack() -> None:
    text = "#pragma pack(push, 1)\nstruct a { int x; };\n#pragma pack(2)\nstruct b { int x; };\n#pragma pack(pop)\nstruct c { int x; };"
    attributes = []
    for item in parse_c(text).items:
        assert isinstance(item, ast.Declaration) and isinstance(item.specifiers.type, ast.StructType)
        attributes.append(short(item.specifiers.type.attributes))
    assert attributes == ["@pragma_pack(1)", "@pragma_pack(2)", ""]


def test_tables() -> None:
    text = """__bcc_table("hash", u32, struct data, start, 10240, 0)
    __bcc_table("perf_output", int, u32, events, 0, 0);
    __bcc_table(queue, , u64, q, 16, , "/sys/fs/bpf/q")
    ;int x;"""
    tables = parse_c(text).items
    got = []
    for table in tables[:3]:
        assert isinstance(table, ast.TableDecl)
        parts = (table.key, table.leaf, table.max_entries, table.flags)
        got.append((table.kind, table.name, *map(short, parts), table.extra))
    assert got == [
        ("hash", "start", "<u32>", "<struct data>", "10240", "0", ""),
        ("perf_output", "events", "<int>", "<u32>", "0", "0", ""),
        ("queue", "q", "none", "<u64>", "16", "none", "/sys/fs/bpf/q"),
    ]
    assert isinstance(tables[3], ast.Declaration)


def test_a_table_hides_a_type() -> None:
    unit = parse_c('__bcc_table("hash", u32, u64, pid_t, 1, 0)\nint f(void) { pid_t * 3; return 0; }')
    function = unit.items[1]
    assert isinstance(function, ast.FunctionDef)
    assert isinstance(function.body.items[0], ast.ExprStatement)


def test_places() -> None:
    text = "int f(int x) {\n  return (x + 1) * 2 + x;\n}"
    function = parse_c(text).items[0]
    assert isinstance(function, ast.FunctionDef)
    value = function.body.items[0]
    assert isinstance(value, ast.Return) and isinstance(value.value, ast.Binary)
    product = value.value.left
    assert (product.span.line, product.span.column, product.span.end_column) == (2, 10, 21)
    assert (function.span.line, function.span.column, function.span.end_line) == (1, 1, 3)


def test_what_is_printed_has_the_same_shape() -> None:
    texts = [f"int f(int x, int y, struct s *p) {{\n{text}\n return 0; }}" for text, _ in STATEMENTS]
    texts += [f"int f(int x, int y, struct s *p) {{ return {text}; }}" for text, _ in EXPRESSIONS]
    texts += [text for text, expected in DECLARATORS if expected]
    for text in texts:
        unit = parse_c(text)
        again = print_unit(unit)
        assert shape(parse_c(again)) == shape(unit), again

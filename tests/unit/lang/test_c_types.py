"""The analysis of C: types of declarations and expressions, names from BTF and tracefs, tables."""

from __future__ import annotations

import pytest
from c_analysed import analysed, errors, warnings

from sonde.debuginfo.ctype import Pointer, Struct, declare, sizeof, strip
from sonde.lang.c import ast
from sonde.lang.c.analysis import Analysis, FunctionSymbol, Table, TextStruct


def returned(text: str, before: str = "", dialect: str = "bcc") -> tuple[Analysis, ast.Expr]:
    """Analyse a function that returns an expression, behind statements; return the analysis and the expression."""
    analysis = analysed(f"{before} int f(struct pt_regs *ctx, struct task_struct *t) {{ {text} }}", dialect)
    definition = analysis.functions["f"].symbol.definition
    assert definition is not None
    last = definition.body.items[-1]
    assert isinstance(last, ast.Return) and last.value is not None
    return analysis, last.value


def type_of(expression: str, before: str = "") -> str:
    """The type of an expression in a function with a context and a task."""
    analysis, node = returned(f"return !sizeof({expression});", before)
    assert isinstance(node, ast.Unary) and isinstance(node.operand, ast.Sizeof)
    operand = node.operand.operand
    assert not isinstance(operand, ast.TypeName)
    return declare(analysis.types[operand])


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("t->pid", "int"),
        ("t->real_parent->real_parent", "struct task_struct *"),
        ("t->low", "u32"),
        ("t->comm", "char[16]"),
        ("&t->comm", "char (*)[16]"),
        ("&t->comm[1]", "char *"),
        ("*t->comm", "char"),
        ("t->flag_b + 1u", "unsigned int"),
        ("t->flag_a + 0", "int"),
        ("t ? t->flag_a : (char)1", "int"),
        ("t ? (char)1 : t->flag_b", "int"),
        ("t->flag_a ?: 0", "int"),
        ("1 ? t->flag_a : 0", "int"),
        ("t->flag_b ?: t->flag_a", "int"),
        ("t->usage.counter", "int"),
        ("bpf_ktime_get_ns()", "unsigned long long"),
        ("bpf_get_current_pid_tgid() >> 32", "unsigned long long"),
        ('"abc"', "char[4]"),
        ("(u8)1 << 3", "int"),
        ("t + 1", "struct task_struct *"),
        ("t - t", "long"),
        ("t ? t : 0", "struct task_struct *"),
        ("t ? (void *)t : t", "void *"),
        ("1 ? (void *)0 : t", "struct task_struct *"),
        ("({ int a = 1; a; })", "int"),
        ("(char)1", "char"),
        ("-(char)1", "int"),
        ("(struct task_struct){}.usage", "atomic_t"),
        ("__builtin_choose_expr(1, t, 2)", "struct task_struct *"),
        ("_Generic(t->pid, long: 'a', int: t->comm, default: 0)", "char[16]"),
        ("__sync_fetch_and_add(&t->low, 1)", "u32"),
        ("__atomic_load_n(&t->whole, 0)", "long unsigned int"),
        ("TASK_STOPPED", "int"),
        ("(const int)1", "const int"),
        ("1 ? 1 : 2l", "long"),
        ("(1, t->low)", "u32"),
        ("__builtin_preserve_access_index(t->comm)", "char *"),
    ],
)
def test_expression_has_type(expression: str, wanted: str) -> None:
    assert type_of(expression) == wanted


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("sizeof(struct task_struct)", 64),
        ("__builtin_offsetof(struct task_struct, real_parent)", 24),
        ("__builtin_offsetof(struct task_struct, comm[2])", 10),
        ("sizeof(t->comm)", 16),
        ("TASK_COMM_LEN", 16),
        ("__builtin_constant_p(t->pid)", 0),
        ("__builtin_constant_p(3 + 4)", 1),
        ("__builtin_bswap16(0x1234)", 0x3412),
        ("__builtin_bswap32(0x12345678)", 0x78563412),
        ("__builtin_ctzll(0x100000000ull)", 32),
        ("__builtin_clz(1)", 31),
        ("__builtin_popcount(-1)", 32),
        ("__builtin_ffs(8)", 4),
        ("__builtin_types_compatible_p(int, const int)", 1),
        ("__builtin_types_compatible_p(char *, const char *)", 0),
        ("__builtin_types_compatible_p(long, long long)", 0),
        ("0 && t->pid", 0),
        ("1 || t->pid", 1),
        ("0 ? t->pid : 3", 3),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("(unsigned char)300", 44),
        ("-1 < 0u", 0),
        ("(_Bool)256", 1),
        ("__builtin_strlen(\"four\")", 4),
        ("sizeof(int[3][4])", 48),
        ("sizeof(\"abc\" \"de\")", 6),
        ("~0ull >> 63", 1),
    ],
)  # fmt: skip
def test_constant_has_value(expression: str, wanted: int) -> None:
    analysis, node = returned(f"return {expression};")
    assert analysis.constants[node] == wanted


@pytest.mark.parametrize(
    "expression", ["1 / 0", "1 % 0", "t->pid", "1 << 64ull", "1 ? t->pid : 2", "0x8000000000000000 / t->pid"]
)
def test_no_constant(expression: str) -> None:
    analysis, node = returned(f"return {expression};")
    assert node not in analysis.constants


def test_accesses_know_whose_the_struct_is() -> None:
    analysis, node = returned("struct own { struct task_struct *t; } o = { t }; return o.t->low;")
    assert isinstance(node, ast.Member) and isinstance(node.operand, ast.Member)
    kernel, own = analysis.accesses[node], analysis.accesses[node.operand]
    assert (kernel.own, own.own) == (False, True)
    assert [m.name for m in kernel.field.path] == ["", "low"]
    assert kernel.field.offset == 32


def test_text_goes_before_btf() -> None:
    text = (
        "int g(struct task_struct *p); struct task_struct { char x[3]; }; typedef char u32; enum { TASK_STOPPED = 9 };"
    )
    assert type_of("t->x", text) == "char[3]"
    assert type_of("(u32)1", text) == "u32"
    analysis, node = returned("return TASK_STOPPED * sizeof(u32);", text)
    assert analysis.constants[node] == 9


def test_struct_named_before_it_is_defined() -> None:
    text = "struct later; struct user { struct later *p; }; struct later { int x; };"
    assert type_of("((struct user *)0)->p->x", text) == "int"


def test_preserve_access_index_makes_accesses_relocatable() -> None:
    text = "struct task_struct___old { int state; } __attribute__((preserve_access_index));"
    analysis, node = returned("return ((struct task_struct___old *)t)->state;", text, "libbpf")
    access = analysis.accesses[node]
    assert not access.own and isinstance(access.struct, TextStruct)
    assert "preserve_access_index" in access.struct.marks


def test_tracepoint_struct_comes_from_its_format() -> None:
    name = "tracepoint__syscalls__sys_enter_openat"
    analysis = analysed(
        f"int f(struct {name} *args) {{ int at = args->data_loc_name & 0xffff; return args->dfd + at; }}"
    )
    pointer = strip(analysis.functions["f"].symbol.params[0].ctype)
    assert isinstance(pointer, Pointer) and isinstance(pointer.target, Struct)
    offsets = {m.name: (m.offset, sizeof(m.ctype)) for m in pointer.target.members}
    assert offsets["dfd"] == (16, 8) and offsets["filename"] == (24, 8) and offsets["data_loc_name"] == (32, 4)


TABLES = """
struct key { u32 pid; char comm[16]; };
__bcc_table("hash", struct key, u64, counts, 10240, 0);
__bcc_table("histogram", int, u64, dist, 64, 0);
__bcc_table("histogram", struct key, u64, keyed, 64, 0);
__bcc_table("perf_output", int, u32, events, 0, 0);
__bcc_table("stacktrace", int, u64, stacks, 1000, 0);
"""


def test_tables() -> None:
    analysis = analysed(TABLES)
    assert {t.name: t.kind for t in analysis.tables.values()} == {
        "counts": "hash", "dist": "array", "keyed": "hash", "events": "perf_event_array", "stacks": "stack_trace",
    }  # fmt: skip
    assert analysis.tables["stacks"].max_entries == 1024
    assert sizeof(analysis.tables["counts"].key) == 20  # type: ignore[arg-type]


def test_methods() -> None:
    text = """
    struct key k = {}; u64 zero = 0, *v;
    v = counts.lookup_or_try_init(&k, &zero);
    counts.increment(k); dist.increment(3, 2); counts.delete(&k);
    events.perf_submit(ctx, &k, sizeof(k));
    typeof(counts.leaf) copy = v ? *v : 0;
    return copy + stacks.get_stackid(ctx, 0) + dist.max_entries;"""
    analysis, _ = returned(text, TABLES)
    assert sorted((t.name, m) for t, m in analysis.methods.values()) == [
        ("counts", "delete"), ("counts", "increment"), ("counts", "lookup_or_try_init"), ("dist", "increment"),
        ("events", "perf_submit"), ("stacks", "get_stackid"),
    ]  # fmt: skip


def test_programs_are_what_is_not_static() -> None:
    analysis = analysed(
        "static int a(int x) { return x; } inline int b(int x) { return a(x); } int c(void *ctx) { return b(1); }"
    )
    assert [n for n, f in analysis.functions.items() if f.symbol.is_program] == ["c"]
    assert [s.name for s in analysis.functions["c"].calls] == ["b"]


def test_libbpf_map_license_and_section() -> None:
    text = """
    struct { int (*type)[1]; u32 *key; struct { u64 n; } *value; int (*max_entries)[16]; int (*pinning)[1]; } m
        __attribute__((section(".maps")));
    struct { int (*type)[12]; int (*max_entries)[4]; int (*key_size)[4];
             struct { int (*type)[2]; u32 *key; u64 *value; int (*max_entries)[1]; } *values[]; } outer
        __attribute__((section(".maps")));
    struct in { int (*type)[2]; u32 *key; u64 *value; int (*max_entries)[1]; } first __attribute__((section(".maps")));
    struct { int (*type)[12]; int (*max_entries)[4]; u32 *key; struct in *values[]; } filled
        __attribute__((section(".maps"))) = { .values = { [2] = &first } };
    char text[] __attribute__((section("license"))) = "Dual BSD/GPL";
    __attribute__((section("kprobe/x"))) int f(struct pt_regs *ctx) { u32 k = 0; return bpf_map_lookup_elem(&m, &k) != 0; }
    int helper(int x) { return x; }"""
    analysis = analysed(text, "libbpf")
    m, outer = analysis.tables["m"], analysis.tables["outer"]
    assert (m.kind, m.max_entries, m.pinning, sizeof(m.leaf)) == ("hash", 16, "by_name", 8)  # type: ignore[arg-type]
    assert (outer.kind, analysis.tables[outer.inner].kind) == ("array_of_maps", "array")
    assert analysis.tables["filled"].initial == ((2, "first"),)
    assert not analysis.warnings
    assert analysis.license == "Dual BSD/GPL"
    assert [n for n, f in analysis.functions.items() if f.symbol.is_program] == ["f"]
    assert analysis.functions["f"].symbol.section == "kprobe/x"


def test_old_style_helper_is_found_by_its_number() -> None:
    text = "static u64 (*my_clock)(void) = (void *)5;"
    analysis, node = returned("return my_clock();", text)
    assert isinstance(node, ast.Call)
    symbol = analysis.symbols[node.function]
    assert isinstance(symbol, FunctionSymbol) and symbol.helper == "ktime_get_ns"


def test_shadowing() -> None:
    analysis, node = returned("long x = 1; { char x = 2; x++; } return x;")
    assert declare(analysis.types[node]) == "long"


def test_names_of_tables_are_symbols() -> None:
    analysis, node = returned("return (long)bpf_map_lookup_elem(&m, 0);",
        'struct { int (*type)[2]; u32 *key; u64 *value; int (*max_entries)[1]; } m __attribute__((section(".maps")));', "libbpf",
    )  # fmt: skip
    assert isinstance(node, ast.Cast) and isinstance(node.operand, ast.Call)
    argument = node.operand.args[0]
    assert isinstance(argument, ast.Unary) and isinstance(analysis.symbols[argument.operand], Table)


# Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("return t->real_paren->pid;", "no member named 'real_paren' in 'struct task_struct'"),
        ("return ctx.di;", "member reference by '.' of 'struct pt_regs *', a pointer"),
        ("return t->forward->x;", "the operand has incomplete type 'struct unknown'"),
        ("return nothing;", "use of undeclared identifier 'nothing'"),
        ("return nothing();", "call to undeclared function 'nothing'"),
        ("return do_something(t, 1);", "call to undeclared function 'do_something'"),
        ("return bpf_ktime_get_ns(1);", "too many arguments in call of 'bpf_ktime_get_ns': it takes 0, 1 given"),
        ("int a[t->pid]; return 0;", "BPF has no arrays of variable length"),
        ("float x; return 0;", "BPF has no floating-point numbers"),
        ("goto out; return 0;", "use of undeclared label 'out'"),
        ("break; return 0;", "'break' outside of a loop or switch"),
        ("switch (1) { case 1: case 1: break; } return 0;", "a second case 1 in one switch"),
        ("case 1: return 0;", "'case' outside of a switch"),
        ("int x; int x; return 0;", "redefinition of 'x'"),
        ("const int x = 1; x = 2; return x;", "cannot assign to 'x' of const-qualified type 'const int'"),
        ("return &TASK_STOPPED != 0;", "cannot take the address of a value of type 'int'"),
        ("1 = 2; return 0;", "this expression cannot be assigned to"),
        ("char a[2]; a = 0; return 0;", "an array cannot be assigned to ('char[2]')"),
        ("return *t->pid;", "indirection requires a pointer, not 'int'"),
        ("return t + t;", "two pointers cannot be added: 'struct task_struct *' and 'struct task_struct *'"),
        ("int (*p)[3] = 0; char *q = 0; return q - p;",
         "'char *' and 'int (*)[3]' point to different types and cannot be subtracted"),
        ("return t * 2;", "invalid operands to binary '*': 'struct task_struct *' and 'int'"),
        ("struct task_struct x = {}; if (x) return 1; return 0;", "a condition must be a number or a pointer, not 'struct task_struct'"),
        ("int x[2] = { [5] = 1 }; return 0;", "index 5 is outside of 'int[2]'"),
        ("struct task_struct x = { .pidd = 1 }; return 0;", "'struct task_struct' has no member 'pidd'"),
        ("int (*g)(void) = 0; return g();", "a call through a pointer"),
        ("return &t->flag_a != 0;", "cannot take the address of the bit-field 'flag_a'"),
        ("__builtin_alloca(4); return 0;", "'__builtin_alloca' allocates on the stack at run time, which BPF cannot"),
        ("_Static_assert(sizeof(int) == 8, \"no\"); return 0;", "static assertion failed: no"),
        ("static int x = t->pid; return x;", "the initialiser of a variable that is not local must be constant"),
        ("struct s { int a; int a; } x; return 0;", "duplicate member 'a' in struct 's'"),
        ("struct s { int a : 33; } x; return 0;", "the width of bit-field 'a' (33 bits) exceeds its type (32 bits)"),
        ("return (struct pt_regs)1;", "'struct pt_regs' is no type to cast to: a number or a pointer is required"),
        ("short x = 1; __sync_fetch_and_add(&x, 1); return 0;",
         "'__sync_fetch_and_add' works on integers of 4 or 8 bytes, not on 'short'"),
    ],
)  # fmt: skip
def test_error_in_function(text: str, message: str) -> None:
    assert errors(f"int f(struct pt_regs *ctx, struct task_struct *t) {{ {text} }}") == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("static int f(int x) { return f(x); } int g(void *c) { return f(1); }", "'f' calls itself (f → f), which BPF cannot"),
        ("int f(void *c) { return 0; } int g(void *c) { return f(c); }", "call of the program 'f'"),
        ("int f(void *c) { return 0; } int f(void *c) { return 1; }", "redefinition of 'f'"),
        ("static int f(int x); static long f(int x) { return x; }", "conflicting types for 'f': 'long (int x)' after 'int (int x)'"),
        ("int t(struct tracepoint__a__b *args) { return 0; }", "there is no tracepoint a:b"),
        ("static int g(int x); int f(void *c) { return g(1); }", "'g' is declared, but nowhere defined"),
        ("struct s { int x; }; struct s { int y; };", "redefinition of 'struct s'"),
        ("typedef int a; typedef long a;", "typedef redefinition with different types: 'long' after 'int'"),
        ("struct f { int n; char b[]; } v = { 1, { 1, 2 } };",
         "an array without a size at the end of a struct cannot be initialised"),
        ("int a[] = { [2147483647] = 1 };", "variable 'a' of 8589934592 bytes is too large for a map"),
        ("int a[1000][1000] = { [0 ... 999] = { [0 ... 999] = 1 } };", "an initialiser of more than 65536 values"),
        ("struct s { struct s x; };", "member 'x' has incomplete type 'struct s'"),
        ("struct s x;", "variable 'x' has incomplete type 'struct s'"),
        ("enum { A, B, A };", "redefinition of 'A'"),
        ("int f(void *ctx, int a, int b, int c, int d, int e, int g, int h) { return 0; }",
         "'f' has 8 parameters; a program has the context and six more"),
        ("__bcc_table(\"hsah\", u32, u64, t, 10, 0);", "unknown kind of table 'hsah'"),
        ("__bcc_table(\"array\", u64, u64, t, 10, 0);",
         "the key of a map of kind 'array' has 4 bytes, not the 8 of 'u64' (aka 'unsigned long long')"),
    ],
)  # fmt: skip
def test_error_in_file(text: str, message: str) -> None:
    assert errors(text) == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u64 k; counts.lookup(&k);", "'counts.lookup' takes a pointer to the key, 'struct key', not 'u64 *' (aka 'unsigned long long *')"),
        ("struct key k = {}; counts.lookup(k);", "'counts.lookup' takes a pointer to the key, 'struct key', not 'struct key'"),
        ("counts.lokup(0);", "table 'counts' has no method 'lokup'"),
        ("counts.perf_submit(c, c, 1);", "a table of kind 'hash' has no method 'perf_submit'"),
        ("events.perf_submit(c);", "'events.perf_submit' takes 3 arguments, 1 given"),
        ("bpf_trace_printk(\"%d %d %d %d\", 1, 2, 3, 4);", "bpf_trace_printk takes three arguments behind the format, not 4"),
    ],
)  # fmt: skip
def test_error_in_dialect(text: str, message: str) -> None:
    assert errors(f"{TABLES} int f(void *c) {{ {text} return 0; }}") == [message]


def test_several_errors_in_one_run() -> None:
    text = "int f(void *c) { a; int x = b; x = c1; if (d) e; return x; } int g(void *c) { return h; }"
    found = errors(text)
    assert [m[-2] for m in found] == ["a", "b", "1", "d", "e", "h"]


def test_a_member_in_error_is_reported_once() -> None:
    text = "struct s { int a[NOTHING]; int b; }; int f(void *c) { struct s x = { .a = { 1 }, .b = 2 }; return x.a[0] + x.b; }"
    assert errors(text) == ["use of undeclared identifier 'NOTHING'"]


def test_twenty_errors_are_enough() -> None:
    assert len(errors("int f(void *c) {" + "".join(f"x{n};" for n in range(50)) + "}")) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u8 x = 300; return x;", "conversion to 'u8' (aka 'unsigned char') changes the value from 300 to 44"),
        ("return 1 << 40;", "shift by 40: 'int' has 32 bits"),
        ("return t->pid / 0;", "division by zero: in BPF, x / 0 is 0 and x % 0 is x"),
        ("return 0x7fffffff + 1;", "overflow: 2147483648 does not fit 'int' and becomes -2147483648"),
        ("int x; return x;", "'x' is used, but never set"),
        ("char *p = t; return 0;", "initializing 'char *' from an incompatible pointer of type 'struct task_struct *'"),
        ("u64 p = t; return 0;",
         "initializing 'u64' (aka 'unsigned long long') makes an integer of a pointer of type 'struct task_struct *'"),
        ("return t == 5;", "comparison between a pointer and an integer: 'struct task_struct *' and 'int'"),
        ("if (t) return 1;", "'f' does not return a value on every way to its end"),
        ("return t->comm[20];", "index 20 is outside of the array of 16 elements"),
        ("int x[2] = { 1, 2, 3 }; return x[0];", "excess element in the initialiser of 'int[2]'"),
    ],
)  # fmt: skip
def test_warning(text: str, message: str) -> None:
    assert warnings(f"int f(struct pt_regs *ctx, struct task_struct *t) {{ {text} }}") == [message]


@pytest.mark.parametrize(
    "text",
    [
        "if (t) return 1; else return 0;",
        "for (;;) { if (t) return 1; }",
        "switch (t->pid) { case 1: return 1; default: return 2; }",
        "goto end; end: return 0;",
        "while (1) ;",
        "do { return 1; } while (0);",
        "char *p = t->comm; unsigned char *q = p; return *q;",
        "void *p = t; struct task_struct *q = p; return q == 0;",
        "int x; x = 1; return x;",
        "int x; bpf_probe_read_kernel(&x, sizeof(x), &t->pid); return x;",
        "u8 x = -1; unsigned y = 0xffffffff; int z = 0xffffffff; return x + y + z;",
        "int *p = 0; return p == 0 || !p;",
    ],
)
def test_no_warning(text: str) -> None:
    assert warnings(f"int f(struct pt_regs *ctx, struct task_struct *t) {{ {text} }}") == []

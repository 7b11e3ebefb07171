"""Lowering C: where pointers lead, what is read by helpers and how often, entry points, what is refused and with which words."""

from __future__ import annotations

import re

import pytest
from c_analysed import small_target
from c_machine import calls_of, compiled_text, instructions

from sonde.debuginfo.usdt import UsdtArg
from sonde.errors import CompileError
from sonde.lang.c.compile import Text
from sonde.lang.c.options import Entry, Options
from sonde.spec.object import ProgramSpec

KPROBE = Entry("kprobe")
TASK = "struct task_struct *t = (struct task_struct *)bpf_get_current_task();\n"


def text_of(text: str, options: Options | None = None) -> Text:
    return compiled_text(text, small_target(), options)


def program(body: str, entry: Entry = KPROBE, *, before: str = "", params: str = "struct pt_regs *ctx") -> ProgramSpec:
    """Compile `int f(params) { body }`."""
    return text_of(f"{before}\nint f({params})\n{{\n{body}\n}}\n").compile_program("f", entry).program


def refusal(body: str, entry: Entry = KPROBE, *, before: str = "", params: str = "struct pt_regs *ctx") -> str:
    with pytest.raises(CompileError) as caught:
        program(body, entry, before=before, params=params)
    diagnostic = caught.value.diagnostics[0]
    assert diagnostic.span is not None and diagnostic.excerpt
    return diagnostic.message


# Where pointers lead ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "reads"),
    [
        ("t->pid", 1),
        ("t->usage.counter", 1),
        ("t->low", 1),
        ("t->real_parent->pid", 2),
        ("t->real_parent->real_parent->comm[3]", 3),
        ("t->comm[bpf_get_smp_processor_id() & 7]", 1),
        ("*(&t->pid)", 1),
        ("(&t->usage)->counter", 1),
        ("(long)&t->real_parent->pid", 1),
        ("(long)&t->pid", 0),
        ("(long)t->comm", 0),
        ("t->flag_b", 1),
        ("(t ? t : t->real_parent)->pid", 2),
    ],
)
def test_a_path_through_kernel_memory_is_read_at_once(expression: str, reads: int) -> None:
    spec = program(TASK + f"return {expression};")
    assert calls_of(spec).count("probe_read_kernel") == reads
    assert "probe_read" not in spec.helpers


def test_parameters_of_kprobes_may_lead_anywhere_and_those_of_uprobes_lead_to_user_memory() -> None:
    params = "struct pt_regs *ctx, struct task_struct *t"
    assert calls_of(program("return t->pid;", params=params)) == ["probe_read"]
    assert (
        calls_of(program("return t->real_parent->pid;", Entry("kprobe", user=True), params=params))
        == ["probe_read_user"] * 2
    )


def test_members_that_are_tagged_lead_to_user_memory() -> None:
    before = 'struct file_op { const char __attribute__((btf_type_tag("user"))) *name; };'
    found = calls_of(program("return op->name[2];", params="struct pt_regs *ctx, struct file_op *op", before=before))
    assert found == ["probe_read", "probe_read_user"]


MAP = '__bcc_table("hash", int, struct task_struct *, tasks, 10, 0);\n__bcc_table("hash", int, long, numbers, 10, 0);\n'


def test_map_values_are_read_directly_and_pointers_in_them_are_not() -> None:
    body = "int k = 1; long *n = numbers.lookup(&k); if (!n) return 0; (*n)++; return *n;"
    assert calls_of(program(body, before=MAP)) == ["map_lookup_elem"]
    body = "int k = 1; struct task_struct **p = tasks.lookup(&k); if (!p) return 0; return (*p)->pid;"
    assert calls_of(program(body, before=MAP)) == ["map_lookup_elem", "probe_read"]


def test_a_function_has_an_instance_for_each_kind_of_pointer_that_it_is_given() -> None:
    before = (
        MAP
        + """
static long follow(long *p, int n) { long s = 0; for (int i = 0; i < 3; i++) s += p[i & n] * (s + 3) + n; return s; }
"""
    )
    body = (
        TASK
        + "int k = 1; long a[2] = { k, 2 }, *n = numbers.lookup(&k); return follow(a, 1) + follow((long *)t, 0) + follow(a, 0);"
    )
    spec = program(body, before=before)
    assert calls_of(spec).count("probe_read_kernel") == 1
    calls = [line for line in instructions(spec) if "call pc" in line]
    assert len(calls) == 2  # of the instance for the stack; the other one was called once, and is inline


def test_pointers_keep_their_space_through_numbers_casts_conditions_and_functions() -> None:
    before = (
        MAP
        + "static void *same(void *p) { return p; }\nstatic long *either(int c, long *a, long *b) { return c ? a : b; }\n"
    )
    body = """
    int k = 1; long here = 5, *n = numbers.lookup(&k);
    if (!n) return 0;
    unsigned long address = (unsigned long)n;
    long *again = same((void *)(address + 0));
    *again = 7;
    *either(k, n, again) += here;
    *(k ? n : &here) = 3;
    return here;
    """
    assert calls_of(program(body, before=before)) == ["map_lookup_elem"]


def test_stores_through_foreign_pointers_are_refused() -> None:
    assert "kernel memory" in refusal(TASK + "t->pid = 1; return 0;")
    assert "not the program's own" in refusal(
        "t->pid++; return 0;", params="struct pt_regs *ctx, struct task_struct *t"
    )
    assert "user memory" in refusal(
        "*p = 1; return 0;", Entry("kprobe", user=True), params="struct pt_regs *ctx, int *p"
    )
    with pytest.raises(CompileError) as caught:
        program("long here = 0, *p = &here;\nif (ctx->di) p = (long *)ctx->di;\n*p = 1;\nreturn 0;")
    (diagnostic,) = caught.value.diagnostics
    assert "not the program's own" in diagnostic.message and diagnostic.span is not None and diagnostic.span.line == 6
    assert [(note.span.line, note.message[:12]) for note in diagnostic.notes if note.span] == [
        (5, "the pointer "),
        (4, "or from here"),
    ]


def test_structs_are_copied_from_the_kernel_by_one_read() -> None:
    spec = program(TASK + "struct task_struct copy = *t; return copy.pid + copy.usage.counter;")
    assert calls_of(spec) == ["get_current_task", "probe_read_kernel"]


def test_explicit_reads_take_addresses_as_they_are() -> None:
    spec = program(TASK + "int pid = 0; bpf_probe_read_kernel(&pid, sizeof(pid), &t->real_parent->pid); return pid;")
    assert calls_of(spec) == ["get_current_task", "probe_read_kernel", "probe_read_kernel"]


# Entry points -----------------------------------------------------------------------------------------------------


def test_only_parameters_that_are_used_are_loaded() -> None:
    spec = program("return b;", params="struct pt_regs *ctx, long a, int b")
    loads = [line for line in instructions(spec) if "r1 +" in line]
    assert len(loads) == 1 and "+104" in loads[0]  # si


def test_parameters_of_system_calls_come_from_the_inner_registers() -> None:
    spec = text_of(
        "int syscall__open(struct pt_regs *ctx, int dfd, const char *name, int flags, int mode) { return mode; }"
    )
    found = spec.compile_program("syscall__open", KPROBE).program
    assert calls_of(found) == ["probe_read_kernel"]
    assert any("+112" in line for line in instructions(found))  # di: the address of the inner registers
    assert any("+= 56" in line for line in instructions(found))  # r10 there


SYSCALL = """
int on_enter(struct pt_regs *ctx, int dfd, const char *name) { return dfd + name[0]; }
int by_register(struct pt_regs *ctx) { struct pt_regs *in = (struct pt_regs *)ctx->di; return in->di; }
int number(struct pt_regs *ctx) { return ctx->di; }
"""


def test_programs_for_system_calls_run_at_their_tracepoints() -> None:
    entry = Entry("tracepoint", context="sys_enter", event="openat")
    text = text_of(SYSCALL)
    on_enter = text.compile_program("on_enter", entry).program
    assert calls_of(on_enter) == ["probe_read_user"]
    assert any("(r1 +16)" in line for line in instructions(on_enter))
    for name in ("by_register", "number"):
        spec = text.compile_program(name, entry).program
        assert calls_of(spec) == [] and any("(r1 +16)" in line for line in instructions(spec))


def test_programs_for_system_calls_run_at_the_raw_tracepoint_of_all() -> None:
    entry = Entry("raw_tracepoint", context="raw_enter", event="openat", number=257)
    for name in ("by_register", "number"):
        spec = text_of(SYSCALL).compile_program(name, entry).program
        assert calls_of(spec) == ["probe_read_kernel"]
        assert any("0x101" in line for line in instructions(spec))


def test_what_a_tracepoint_does_not_have_is_an_error() -> None:
    entry = Entry("tracepoint", context="sys_exit", event="openat")
    assert "not known when a system call returns" in refusal("return ctx->di;", entry)
    assert "not known when a system call returns" in refusal("return a;", entry, params="struct pt_regs *ctx, int a")


def test_arguments_of_trampolines_and_raw_tracepoints_are_an_array() -> None:
    params = "unsigned long long *ctx, long a, long b, long c, long d, long e, long f, long ret"
    for kind in ("tracing", "raw_tracepoint"):
        lines = [
            line for line in instructions(program("return ret + b;", Entry(kind), params=params)) if "r1 +" in line
        ]
        assert len(lines) == 2 and "+8)" in "".join(lines) and "+48)" in "".join(lines)
    assert "at most 6" in refusal("return ret;", params=params)
    assert "twelve more" in refusal(
        "return 0;", Entry("tracing"), params=params.replace("ret", ", ".join(f"int p{i}" for i in range(7)))
    )


def test_words_of_libbpf_say_where_arguments_are() -> None:
    text = text_of(
        """#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>
SEC("kprobe/f") int BPF_KPROBE(on_entry, long a, int b) { return b; }
SEC("kretprobe/f") int BPF_KRETPROBE(on_return, int ret) { return ret; }
SEC("kretprobe/g") int BPF_KRETPROBE(too_many, int ret, int a) { return a; }
SEC("ksyscall/openat") int BPF_KSYSCALL(on_call, int dfd, const char *name) { return name[0]; }
SEC("fexit/f") int BPF_PROG(on_exit, long a, long ret) { return ret; }
SEC("usdt") int BPF_USDT(on_usdt, long a) { return a; }
SEC("usdt") int asks(struct pt_regs *ctx)
{
    long a = 0;
    if (bpf_usdt_arg(ctx, 1, &a))
        return 0;
    return a + bpf_usdt_arg_cnt(ctx) * 1000 + bpf_usdt_arg_size(ctx, 0);
}
""",
        Options("libbpf"),
    )

    def loads(name: str, entry: Entry = KPROBE) -> list[str]:
        return [line for line in instructions(text.compile_program(name, entry).program) if "(r1 +" in line]

    assert text.programs == ("on_entry", "on_return", "too_many", "on_call", "on_exit", "on_usdt", "asks")
    assert "+104" in loads("on_entry")[0]  # si
    assert "+80" in loads("on_return")[0]  # ax
    assert "+112" in loads("on_call")[0]  # di, which leads to the caller's registers
    assert calls_of(text.compile_program("on_call", KPROBE).program) == ["probe_read_kernel", "probe_read_user"]
    assert "+8)" in loads("on_exit", Entry("tracing"))[0]
    assert "+40)" in loads("on_usdt", Entry("kprobe", usdt=(UsdtArg(8, False, "reg", 0, 40),)))[0]
    arg = UsdtArg(4, True, "reg", 0, 40)
    found = text.compile_program("asks", Entry("kprobe", usdt=(arg, arg)))
    assert any("+40)" in line for line in instructions(found.program))
    assert any("= 2004" in line or "+= 2004" in line for line in instructions(found.program))
    with pytest.raises(CompileError, match="only its result"):
        loads("too_many")
    with pytest.raises(CompileError, match="no USDT argument 1"):
        loads("on_usdt")


def test_usdt_arguments_come_from_where_the_probe_says() -> None:
    body = "u64 a = 0; short b = 0; bpf_usdt_readarg(1, ctx, &a); bpf_usdt_readarg(2, ctx, &b); return a + b;"
    usdt = (UsdtArg(8, False, "reg", 0, 112), UsdtArg(4, True, "mem", -8, 32))
    before = "typedef unsigned long u64;"
    spec = program(body, Entry("kprobe", user=True, usdt=usdt), before=before)
    assert calls_of(spec) == ["probe_read_user"]
    assert "no USDT argument 3" in refusal(
        "long a; bpf_usdt_readarg(3, ctx, &a); return a;", Entry("kprobe", usdt=usdt)
    )


# The rest ---------------------------------------------------------------------------------------------------------


def test_unrolled_loops_are_no_loops() -> None:
    loop = "long s = 0; long v[4] = { ctx->di, 2, 3, 4 }; for (int i = 0; i < 4; i++) { if (i == 2) continue; s += v[i]; } return s;"
    assert any("goto pc-" in line for line in instructions(program(loop)))
    unrolled = "#pragma unroll\n".join(loop.partition("for")[::2]).replace("#pragma unroll\n", "\n#pragma unroll\nfor")
    assert not any("goto pc-" in line for line in instructions(program(unrolled)))


def test_relocatable_objects_note_accesses_of_kernel_structs() -> None:
    text = "int f(void *ctx) { struct task_struct *t = (struct task_struct *)bpf_get_current_task(); return t->real_parent->low; }"
    spec = text_of(text, Options(relocatable=True)).compile_program("f", KPROBE).program
    found = [(r.core.type_name, r.core.path, r.core.value) for r in spec.relocs if r.core is not None]
    assert found == [("struct task_struct", ("real_parent",), 24), ("struct task_struct", ("low",), 32)]


def questions(body: str, before: str = "") -> list[tuple[str, str, tuple[str | int, ...], int, str]]:
    """What a relocatable program asks of the kernel that it is loaded on; with the program's own type of it."""
    text = f"{before} int f(void *ctx) {{ {body} }}"
    spec = text_of(text, Options(relocatable=True)).compile_program("f", KPROBE).program
    found = [r.core for r in spec.relocs if r.core is not None]
    return [(c.kind, c.type_name, c.path, c.value, c.local.name if c.local else "") for c in found]


def test_questions_about_types_and_members_know_the_programs_own_type() -> None:
    own = "struct bits { int a; unsigned x:3, y:7; int v[4]; }; typedef struct bits bits_t; enum kind { SMALL, LARGE = 4 };"
    member = "return __builtin_preserve_field_info(((struct bits *)ctx)->{}, {});"
    for number, (kind, value) in enumerate(
        [("byte_offset", 4), ("byte_size", 4), ("exists", 1), ("signed", 0), ("lshift_u64", 54), ("rshift_u64", 57)]
    ):
        assert questions(member.format("y", number), own) == [("field_" + kind, "struct bits", ("y",), value, "bits")]
    assert questions(member.format("v[2]", 0), own) == [("field_byte_offset", "struct bits", ("v", 2), 16, "bits")]
    asked = questions("return __builtin_preserve_type_info(*(bits_t *)0, 1);", own)
    assert asked == [("type_size", "bits_t", (), 24, "bits_t")]  # a typedef is another type, by its name
    asked = questions("return __builtin_preserve_type_info(*(struct bits *)0, 2);", own)
    assert asked == [("type_matches", "struct bits", (), 1, "bits")]
    asked = questions("return __builtin_preserve_enum_value(*(enum kind *)LARGE, 1);", own)
    assert asked == [("enumval_value", "enum kind", ("LARGE",), 4, "kind")]


def test_events_have_the_type_of_what_is_submitted() -> None:
    text = """
struct event { int pid; char comm[16]; };
__bcc_table("perf_output", int, unsigned int, events, 0, 0);
__bcc_table("perf_output", int, unsigned int, mixed, 0, 0);
static void send(void *ctx, struct event *e) { events.perf_submit(ctx, e, sizeof(*e)); }
int f(void *ctx)
{
    struct event e = {};
    int n = 0;
    send(ctx, &e);
    mixed.perf_submit(ctx, &n, sizeof(n));
    mixed.perf_submit(ctx, &e, sizeof(e));
    return 0;
}
"""
    unit = text_of(text)
    assert {name: (ctype.name, ctype.size) for name, ctype in unit.events.items()} == {"events": ("event", 20)}
    assert calls_of(unit.compile_program("f", KPROBE).program).count("perf_event_output") == 3


def test_what_bpf_cannot_do_is_said_at_its_place() -> None:
    assert "size is not known" in refusal("char a[8], *p = (char *)ctx->di; return __builtin_strlen(p);")
    assert "size is not known" in refusal("char *a = (char *)ctx->di, *b = a + 1; return __builtin_strcmp(a, b);")
    table = '__bcc_table("array", int, long, t, 1, 0);'
    body = "int k = 0; char *p = (char *)t.lookup(&k); if (p) __builtin_memset(p, 1, *p); return 0;"
    assert "size is not known" in refusal(body, Entry("xdp"), before=table, params="void *ctx")
    assert "inline assembly" in refusal('asm volatile("call 5"); return 0;')


def test_the_same_text_gives_the_same_bytes() -> None:
    text = "int f(struct pt_regs *ctx, struct task_struct *t) { return t->real_parent->pid; }"
    first, second = (text_of(text).compile_program("f", KPROBE).program for _ in range(2))
    assert (first.insns, first.relocs) == (second.insns, second.relocs)


def test_too_large_variables_are_listed_with_what_they_take() -> None:
    body = "char big[40000] = {}, small[600] = {}; bpf_probe_read_kernel(big, 40000, small); bpf_probe_read_kernel(small, 600, big); return big[5];"
    with pytest.raises(CompileError) as caught:
        program(body)
    shown = caught.value.render()
    assert (
        "there is room for 32768" in shown and "40000 bytes  big in f()" in shown and "600 bytes  small in f()" in shown
    )


def test_tables_say_what_keys_and_values_look_like() -> None:
    text = 'struct k { int a : 3; char name[5]; }; __bcc_table("hash", struct k, long, h, 10, 0); int f(void *ctx) { return 0; }'
    (spec,) = text_of(text).maps
    assert spec.key is not None and spec.value is not None
    assert [(f.name, f.offset, f.bit_width, f.layout.kind) for f in spec.key.fields] == [
        ("a", 0, 3, "int"),
        ("name", 1, 0, "string"),
    ]
    assert (spec.value.kind, spec.value.size, spec.value.signed) == ("int", 8, True)


def test_arguments_of_trampolines_are_followed_by_loads_where_the_verifier_trusts_them() -> None:
    before = (
        '#define TRACED(name, args...) int __attribute__((bpf_args("tracing"))) name(unsigned long long *ctx, ##args)\n'
    )
    text = before + "TRACED(f, struct task_struct *t, char *s) { return t->real_parent->pid + s[1]; }"
    spec = text_of(text).compile_program("f", Entry("tracing", "trace_raw_tp", "sched_process_exit")).program
    assert calls_of(spec) == ["probe_read_kernel"]
    spec = text_of(text).compile_program("f", Entry("raw_tracepoint")).program
    assert calls_of(spec) == ["probe_read"] * 3
    text = (
        before + "TRACED(f, struct pt_regs *task) { return task->di; }"
    )  # do_something(struct task_struct *task, u32 flags)
    spec = text_of(text).compile_program("f", Entry("tracing", "trace_fentry", "do_something")).program
    assert calls_of(spec) == []


def test_loops_over_addresses_count_and_those_that_something_else_may_move_do_not() -> None:
    """The verifier knows nothing of two addresses that are compared; a number that is compared with a constant has bounds."""
    walk = "int a[4] = {{}}, s = 0, *p; {} for (p = a; p < a + 4; p++) s += *p; return s;"
    found = []
    for extra in ("", "int **other = &p; if (bpf_ktime_get_ns() == 1) *other = a;"):
        lines = instructions(program(walk.format(extra)))
        found.append(any(re.search(r"if r\d+ \S+ r\d+", line) for line in lines))
    assert found == [False, True]


def test_wide_ranges_of_case_labels() -> None:
    text = "switch ((__int128)bpf_ktime_get_ns()) { case 0 ... %d: return 1; } return 2;"
    assert program(text % 63).insns
    assert "a range of more than 64 numbers of 128 bits" in refusal(text % 64)


def test_events_are_found_where_a_function_gets_the_buffer_or_gives_the_record() -> None:
    text = """
struct event { int pid; char comm[16]; };
struct other { long a; };
__bcc_table("perf_output", int, unsigned int, events, 0, 0);
__bcc_table("ringbuf_output", int, unsigned int, ring, 8, 0);
__bcc_table("perf_output", int, unsigned int, plain, 0, 0);
static void put(void *ctx, void *data, int size) { events.perf_submit(ctx, data, size); }
static void twice(void *ctx, void *data, int size) { put(ctx, data, size); put(ctx, data, size); }
static void *room(int size) { return ring.ringbuf_reserve(size); }
int f(void *ctx)
{
    struct event e = {};
    struct other *o = room(sizeof(*o));
    void *nothing = &e;
    twice(ctx, &e, sizeof(e));
    plain.perf_submit(ctx, nothing, 4);
    if (o)
        ring.ringbuf_submit(o, 0);
    return 0;
}
"""
    unit = text_of(text)
    assert {name: ctype.name for name, ctype in unit.events.items()} == {"events": "event", "ring": "other"}


def test_more_than_nothing_is_asked_as_it_is_written() -> None:
    """Verifiers before Linux 6.8 learn from `> 0` that a size is not 0, and nothing from `!= 0`."""
    for test in ("n > 0", "n >= 1", "!(n < 1)"):
        lines = instructions(program(f"unsigned int n = ctx->di; if ({test}) return 5; return 6;"))
        assert any("> 0x0 goto" in line or "<= 0x0 goto" in line for line in lines), (test, lines)

"""What sections of libbpf's style mean: the type of a program, and where it is attached."""

from __future__ import annotations

import pytest
from c_analysed import small_target

from sonde.errors import CompileError, ProbeError
from sonde.lang.c.options import Options
from sonde.lang.c.sections import compile_object
from sonde.lang.source import Source
from sonde.probes.sections import section_kinds
from sonde.spec.object import ObjectSpec

HEAD = "#include <vmlinux.h>\n#include <bpf/bpf_helpers.h>\n#include <bpf/bpf_tracing.h>\n"


def object_of(text: str) -> ObjectSpec:
    return compile_object(Source("x.bpf.c", HEAD + text), small_target(), Options())


def program_in(section: str) -> ObjectSpec:
    return object_of(f'char LICENSE[] SEC("license") = "GPL";\nSEC("{section}") int f(void *ctx) {{ return 0; }}')


@pytest.mark.parametrize(
    ("section", "program"),
    [
        ("kprobe", ("kprobe", "", "", False)),
        ("kretprobe.multi", ("kprobe", "", "", False)),
        ("uprobe.s", ("kprobe", "", "", True)),
        ("tp", ("tracepoint", "", "", False)),
        ("raw_tp.w", ("raw_tracepoint_writable", "", "", False)),
        ("fmod_ret/do_something", ("tracing", "modify_return", "do_something", False)),
        ("fmod_ret.s/do_something", ("tracing", "modify_return", "do_something", True)),
        ("lsm/file_open", ("lsm", "lsm_mac", "file_open", False)),
        ("perf_event", ("perf_event", "", "", False)),
        ("xdp", ("xdp", "xdp", "", False)),
        ("socket", ("socket_filter", "", "", False)),
        ("tcx/egress", ("sched_cls", "tcx_egress", "", False)),
        ("cgroup_skb/ingress", ("cgroup_skb", "cgroup_inet_ingress", "", False)),
        ("syscall", ("syscall", "", "", True)),
    ],
)
def test_types_of_programs(section: str, program: tuple[str, str, str, bool]) -> None:
    (spec,) = program_in(section).programs
    assert (spec.type, spec.attach_type, spec.attach_btf, spec.sleepable) == program
    assert spec.license == "GPL"


def test_what_maps_hold_from_the_start() -> None:
    spec = object_of(
        """
        int one(void *ctx);
        struct inner { __uint(type, 2); __type(key, __u32); __type(value, __u64); __uint(max_entries, 1); } held SEC(".maps");
        struct { __uint(type, 12); __uint(max_entries, 4); __type(key, __u32); __array(values, struct inner); }
            maps SEC(".maps") = { .values = { [3] = &held } };
        struct { __uint(type, 3); __uint(max_entries, 4); __uint(key_size, 4); __array(values, int (void *)); }
            programs SEC(".maps") = { .values = { [0] = (void *)&one, [2] = (void *)&one } };
        SEC("xdp") int one(void *ctx) { bpf_tail_call(ctx, &programs, 2); return 0; }
        """
    )
    held = {each.name: each.values for each in spec.maps if each.values}
    assert held == {"maps": ((3, "held"),), "programs": ((0, "one"), (2, "one"))}


def test_places() -> None:
    spec = object_of(
        """
        SEC("tp/syscalls/sys_enter_openat") int one(void *ctx) { return 0; }
        SEC("tracepoint/syscalls/sys_enter_openat") int two(void *ctx) { return 0; }
        SEC("lsm/file_open") int three(void *ctx) { return 0; }
        SEC("fmod_ret/do_something") int four(void *ctx) { return 0; }
        SEC("kprobe") int five(void *ctx) { return 0; }
        SEC("?tp/no/such_event") int six(void *ctx) { return 0; }
        static int seven(void) { return 0; }
        """
    )
    assert [p.name for p in spec.programs] == ["one", "two", "three", "four", "five"]
    assert [(p.name, p.type, p.program) for p in spec.probes] == [
        ("tracepoint:syscalls:sys_enter_openat", "tracepoint", "one"),
        ("tracepoint:syscalls:sys_enter_openat", "tracepoint", "two"),
        ("lsm:file_open", "lsm", "three"),
        ("fmod_ret:do_something", "fmod_ret", "four"),
    ]
    assert spec.probes[0].span is not None and spec.probes[0].span.line == 5


MAP_OF = 'struct {{ __uint(type, {}); __uint(max_entries, 8); __type(key, {}); __type(value, struct later); }} m SEC(".maps");\n'


def test_a_map_of_a_struct_that_is_defined_later() -> None:
    after = 'struct later { u64 a; u32 b; };\nSEC("kprobe") int f(void *ctx) { return sizeof(struct later); }'
    (spec,) = object_of(MAP_OF.format("1", "u32") + after).maps
    assert (spec.key_size, spec.value_size) == (4, 16)


@pytest.mark.parametrize(
    ("map_", "after", "words"),
    [
        (("1", "u32"), "", "map 'm' has no __type(value, …) that is complete"),
        (
            ("2", "struct later"),
            "struct later { u64 a; };",
            "the key of a map of kind 'array' has 4 bytes, not the 8 of",
        ),
    ],
)
def test_a_map_of_a_struct_that_never_fits(map_: tuple[str, str], after: str, words: str) -> None:
    with pytest.raises(CompileError) as caught:
        object_of(MAP_OF.format(*map_) + after + 'SEC("kprobe") int f(void *ctx) { return 0; }')
    assert words in caught.value.diagnostics[0].message


def test_maps_of_several_programs_have_names_of_their_own() -> None:
    spec = object_of(
        """
        struct { __uint(type, 2); __uint(max_entries, 1); __type(key, u32); __type(value, u32); } m SEC(".maps");
        u32 counter;
        SEC("kprobe") int one(void *ctx) { u32 i = bpf_get_smp_processor_id() & 3; counter += "abcd"[i]; return 0; }
        SEC("kprobe") int two(void *ctx) { u32 i = bpf_get_smp_processor_id() & 3; counter += "wxyz"[i]; return 0; }
        """
    )
    names = [m.name for m in spec.maps]
    assert len(set(names)) == len(names) and {"m", ".bss"} <= set(names)
    contents = {m.name: m.initial for m in spec.maps}
    for program, letters in zip(spec.programs, (b"abcd", b"wxyz")):
        strings = [r.symbol for r in program.relocs if contents[r.symbol].startswith(letters)]
        assert strings, program.name


def test_a_section_that_is_not_known() -> None:
    with pytest.raises(CompileError) as caught:
        program_in("kprob/do_something")
    (error,) = caught.value.diagnostics
    assert error.message == "section 'kprob/do_something' of 'f' is no type of program"
    assert error.hint.startswith("did you mean kprobe")
    assert error.span is not None and error.span.line == 5


def test_a_place_that_does_not_exist() -> None:
    with pytest.raises(ProbeError) as caught:
        program_in("tp/syscalls/sys_enter_opnat")
    assert caught.value.message.startswith('x.bpf.c:5: SEC("tp/syscalls/sys_enter_opnat"): ')


def test_a_text_without_programs() -> None:
    with pytest.raises(CompileError, match="no program"):
        object_of("int f(void) { return 0; }")


def test_every_section_makes_a_program() -> None:
    for name in section_kinds():
        (program,) = program_in(name).programs
        assert program.name == "f", name


def test_views_of_maps_and_variables() -> None:
    """What can be read is shown, by its C type; rings, what is const and the licence are not."""
    spec = object_of(
        """
        char LICENSE[] SEC("license") = "GPL";
        struct pair { u8 small[2]; char text[4]; };
        struct { __uint(type, 1); __uint(max_entries, 8); __type(key, u64); __type(value, struct pair); } hash SEC(".maps");
        struct { __uint(type, 6); __uint(max_entries, 8); __type(key, u32); __type(value, s64); } sums SEC(".maps");
        struct { __uint(type, 6); __uint(max_entries, 8); __type(key, u32); __type(value, struct pair); } pairs SEC(".maps");
        struct { __uint(type, 27); __uint(max_entries, 4096); } ring SEC(".maps");
        const volatile u32 wanted = 1;
        static u32 first; u32 second = 3;
        SEC("kprobe") int f(void *ctx) { static u64 calls; calls++; first++; second += wanted; return 0; }
        """
    )
    shown = {view.name: view for view in spec.views}
    assert sorted(shown) == ["calls", "first", "hash", "pairs", "second", "sums"]
    pair = shown["hash"].value
    assert [field.layout.kind for field in pair.fields] == ["array", "string"]
    assert (shown["sums"].value.kind, shown["sums"].per_cpu, shown["sums"].sparse) == ("int", True, True)
    assert (shown["pairs"].value.kind, shown["pairs"].value.element) == ("array", pair)
    assert [(shown[name].map, shown[name].key) for name in ("first", "second")] == [(".bss", None), (".data", None)]


def test_a_global_pointer_to_something_says_what_to_do() -> None:
    with pytest.raises(CompileError) as caught:
        object_of('int x; int *p = &x;\nSEC("kprobe") int f(void *ctx) { return 0; }')
    assert "or leads to a text" in caught.value.diagnostics[0].hint


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('names[0] = "c"; return 0;', "a variable that holds pointers to texts"),
        ("struct entry e = entries[1]; return e.number;", "a copy of a struct with pointers to texts"),
        ("struct entry e = {}, *p = ctx ? &e : &entries[1]; return p->number;", "a table of texts or to other memory"),
    ],
)
def test_pointers_to_texts_are_read_in_their_place_only(body: str, message: str) -> None:
    text = """
    struct entry { int number; const char *name; };
    const char *names[] = { "a", "b" };
    struct entry entries[] = { { 1, "a" }, { 2, "b" } };
    """
    with pytest.raises(CompileError) as caught:
        object_of(f'{text}\nSEC("kprobe") int f(void *ctx) {{ {body} }}')
    assert message in caught.value.diagnostics[0].message


FALLING = """
SEC("fentry/{0}") int BPF_PROG(enter, struct pt_regs *regs) {{ return PT_REGS_PARM1(regs); }}
SEC("fexit/{0}") int BPF_PROG(leave, struct pt_regs *regs, long ret) {{ return ret; }}
"""


def places_on(text: str, *without: str) -> list[tuple[str, str]]:
    """Types of programs, and where they go, on a machine without some features; a word about each step down."""
    target = small_target(without=without)
    spec = compile_object(Source("x.bpf.c", HEAD + text), target, Options())
    types = {program.name: program.type for program in spec.programs}
    return [(types[probe.program], probe.name) for probe in spec.probes]


def test_trampolines_fall_back_to_kprobes_and_those_to_tracepoints() -> None:
    text = FALLING.format("__x64_sys_openat")
    no_fentry, no_kprobes = "program:tracing:fentry", "pmu:kprobe"
    assert places_on(FALLING.format("do_something"), no_fentry) == [
        ("kprobe", "kprobe:do_something"),
        ("kprobe", "kretprobe:do_something"),
    ]
    assert places_on(text, no_fentry, no_kprobes) == [
        ("tracepoint", "tracepoint:syscalls:sys_enter_openat"),
        ("raw_tracepoint", "rawtracepoint:sys_exit"),  # this machine has no such tracepoint
    ]
    assert places_on(text.replace("openat", "getcpu"), no_fentry, no_kprobes) == [
        ("raw_tracepoint", "rawtracepoint:sys_enter"),
        ("raw_tracepoint", "rawtracepoint:sys_exit"),
    ]


def test_what_a_fallen_function_cannot_know_is_an_error() -> None:
    text = 'SEC("fexit/do_something") int BPF_PROG(f, long a, long ret) { return a; }'
    with pytest.raises(CompileError, match="argument a is not known when a function returns"):
        places_on(text, "program:tracing:fentry")

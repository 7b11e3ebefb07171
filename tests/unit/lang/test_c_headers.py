"""Virtual headers: BCC's macros, those of libbpf, what the target decides, and that the text's own names go before."""

from __future__ import annotations

import pytest
from btf_builder import BtfBuilder
from fake_target import FakeFeatures

from sonde.debuginfo.btf import Btf
from sonde.errors import CompileError
from sonde.lang.c.environment import Environment
from sonde.lang.c.headers import bcc, libbpf
from sonde.lang.c.options import Options
from sonde.lang.c.parser import parse
from sonde.lang.c.preprocessor import preprocess
from sonde.lang.source import Source
from sonde.record import replace
from sonde.spec.target import Target

CONFIG = {
    "CONFIG_HZ": "250",
    "CONFIG_SMP": "y",
    "CONFIG_E1000": "m",
    "CONFIG_NAME": "a b",
    "CONFIG_NOT": "n",
    "CONFIG_BASE": "0x10",
}


def _btf(inline_name: str) -> Btf:
    b = BtfBuilder()
    char = b.int("char", 1, signed=True)
    if inline_name == "d_iname":
        b.struct("dentry", 32, [("d_iname", b.array(char, 32), 0)])
    else:
        union = b.struct("shortname_store", 40, [("string", b.array(char, 40), 0)], union=True)
        b.struct("dentry", 40, [("d_shortname", union, 0)])
    return Btf.from_bytes(b.build())


def target(arch: str = "x86_64", release: str = "6.1.0-40-amd64", inline_name: str = "d_iname") -> Target:
    btf = _btf(inline_name)
    return Target(
        arch, release, 4096, 2, FakeFeatures(), lambda: btf, lambda c, e: None, lambda n: 0, lambda n: CONFIG.get(n, "")
    )  # type: ignore[arg-type, return-value]


def expand(text: str, dialect: str = "bcc", made_for: Target | None = None) -> str:
    tokens = preprocess(Source("t.c", text), Options(dialect), made_for or target())
    return " ".join(t.text for t in tokens[:-1])


def same(text: str, expected: str, dialect: str = "bcc", made_for: Target | None = None) -> None:
    """Compare token by token."""
    wanted = " ".join(t.text for t in preprocess(Source("e.c", expected), Options("libbpf"))[:-1])
    assert expand(text, dialect, made_for) == wanted


U64 = "unsigned long long"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BPF_HASH(h)", f'__bcc_table("hash", {U64}, {U64}, h, 10240, 0)'),
        ("BPF_HASH(h, u32)", f'__bcc_table("hash", u32, {U64}, h, 10240, 0)'),
        ("BPF_HASH(h, struct k, struct v)", '__bcc_table("hash", struct k, struct v, h, 10240, 0)'),
        ("BPF_HASH(h, u32, u8, 7)", '__bcc_table("hash", u32, u8, h, 7, 0)'),
        ("BPF_PERCPU_HASH(h, u32)", f'__bcc_table("percpu_hash", u32, {U64}, h, 10240, 0)'),
        ("BPF_LPM_TRIE(t, struct k)", f'__bcc_table("lpm_trie", struct k, {U64}, t, 10240, 1)'),
        ("BPF_ARRAY(a)", f'__bcc_table("array", int, {U64}, a, 10240, 0)'),
        ("BPF_ARRAY(a, u32, 5)", '__bcc_table("array", int, u32, a, 5, 0)'),
        ("BPF_PERCPU_ARRAY(a, u32)", '__bcc_table("percpu_array", int, u32, a, 10240, 0)'),
        ("BPF_HISTOGRAM(d)", f'__bcc_table("histogram", int, {U64}, d, 64, 0)'),
        ("BPF_HISTOGRAM(d, struct k, 9)", f'__bcc_table("histogram", struct k, {U64}, d, 9, 0)'),
        ("BPF_PERF_OUTPUT(e)", '__bcc_table("perf_output", int, unsigned int, e, 0, 0)'),
        ("BPF_RINGBUF_OUTPUT(e, 8)", '__bcc_table("ringbuf", int, unsigned int, e, 8, 0)'),
        ("BPF_QUEUE(q, struct v, 4)", '__bcc_table("queue", , struct v, q, 4, 0)'),
        ("BPF_STACK(q, u64, 4, 1)", '__bcc_table("stack", , u64, q, 4, 1)'),
        ('BPF_QUEUE_PINNED(q, u64, 4, "/p")', '__bcc_table("pinned_" "queue", , u64, q, 4, 0, "/p")'),
        ('BPF_TABLE("hash", u32, u64, t, 3)', '__bcc_table("hash", u32, u64, t, 3, 0)'),
        ('BPF_F_TABLE("hash", u32, u64, t, 3, 1)', '__bcc_table("hash", u32, u64, t, 3, 1)'),
        ('BPF_TABLE_PUBLIC("hash", u32, u64, t, 3)', '__bcc_table("public_" "hash", u32, u64, t, 3, 0)'),
        ('BPF_TABLE_PINNED("hash", u32, u64, t, 3, "/p")', '__bcc_table("pinned_" "hash", u32, u64, t, 3, 0, "/p")'),
        ('BPF_TABLE_PINNED("hash", u32, u64, t, 3, "/p", 1)', '__bcc_table("pinned_" "hash", u32, u64, t, 3, 1, "/p")'),
        ("BPF_PROG_ARRAY(p, 4)", '__bcc_table("prog", unsigned int, unsigned int, p, 4, 0)'),
        ('BPF_ARRAY_OF_MAPS(m, "in", 4)', '__bcc_table("array_of_maps", int, int, m, 4, 0, "in")'),
        ('BPF_HASH_OF_MAPS(m, u32, "in")', '__bcc_table("hash_of_maps", u32, int, m, 10240, 0, "in")'),
        ("BPF_XSKMAP(x, 4)", '__bcc_table("xskmap", unsigned int, int, x, 4, 0)'),
        ('BPF_XSKMAP(x, 4, "/p")', '__bcc_table("pinned_xskmap", unsigned int, int, x, 4, 0, "/p")'),
        ("BPF_SOCKHASH(s)", '__bcc_table("sockhash", unsigned int, int, s, 10240, 0)'),
        ("BPF_SK_STORAGE(s, u64)", '__bcc_table("sk_storage", int, u64, s, 0, 1)'),
        ("TRACEPOINT_PROBE(irq, softirq_raise)", "int tracepoint__irq__softirq_raise(struct tracepoint__irq__softirq_raise *args)"),
        ("RAW_TRACEPOINT_PROBE(x)", "int raw_tracepoint__x(struct bpf_raw_tracepoint_args *ctx)"),
        ("KFUNC_PROBE(f)", f'int __attribute__((bpf_args("tracing"))) kfunc__vmlinux__f({U64} *ctx)'),
        ("KRETFUNC_PROBE(f, int a, int r)", f'int __attribute__((bpf_args("tracing"))) kretfunc__vmlinux__f({U64} *ctx, int a, int r)'),
        ("MODULE_KFUNC_PROBE(m, f)", f'int __attribute__((bpf_args("tracing"))) kfunc__m__f({U64} *ctx)'),
        ("LSM_PROBE(bpf, int c)", f'int __attribute__((bpf_args("tracing"))) lsm__bpf({U64} *ctx, int c)'),
        ("BPF_ITER(task)", "int bpf_iter__task(struct bpf_iter__task *ctx)"),
        ("PT_REGS_PARM1(ctx)", "((ctx)->di)"),
        ("PT_REGS_PARM4_SYSCALL(ctx)", "((ctx)->r10)"),
        ("PT_REGS_PARM3_SYSCALL(PT_REGS_SYSCALL_CTX(c))", "((((struct pt_regs *)((c)->di)))->dx)"),
        ("PT_REGS_RC(ctx)", "((ctx)->ax)"),
        ("LINUX_VERSION_CODE", "393472"),
        ("PAGE_SIZE", "(1UL << 12)"),
        ("CONFIG_HZ CONFIG_SMP CONFIG_E1000 CONFIG_E1000_MODULE CONFIG_NAME CONFIG_NOT CONFIG_BASE",
         '250 1 CONFIG_E1000 1 "a b" CONFIG_NOT 0x10'),
        ("HZ", "250"),
        ("DNAME_INLINE_LEN dentry->d_iname", "32 dentry->d_iname"),
        ("__user __rcu", '__attribute__((btf_type_tag("user"))) __attribute__((btf_type_tag("rcu")))'),
        ("AF_INET6 EPERM O_CREAT INT_MIN TASK_COMM_LEN", "10 1 64 (-2147483647 - 1) 16"),
    ],
)  # fmt: skip
def test_macros_of_bcc(text: str, expected: str) -> None:
    same(text, expected)


def test_the_target_decides() -> None:
    arm = target("aarch64", "6.18.44-fc-v657", "d_shortname")
    same("PT_REGS_PARM1(c) PT_REGS_RC(c) PT_REGS_FP(c)", "((c)->regs[0]) ((c)->regs[0]) ((c)->regs[29])", made_for=arm)
    same("DNAME_INLINE_LEN dentry->d_iname", "40 dentry->d_shortname.string", made_for=arm)
    same(
        "LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)",
        "397868 >= (((6) << 16) + ((18) << 8) + ((0) > 255 ? 255 : (0)))",
        made_for=arm,
    )
    debian = replace(target("x86_64", "5.10.0-46-cloud-amd64"), version="5.10.251")
    same("LINUX_VERSION_CODE UTS_RELEASE", '330491 "5.10.0-46-cloud-amd64"', made_for=debian)
    same("O_DIRECT", "0200000", made_for=arm)
    same("O_DIRECT", "040000")
    text = "#if defined(__aarch64__) && !defined(__x86_64__) && defined(__TARGET_ARCH_arm64)\nyes\n#endif"
    assert expand(text, made_for=arm) == "yes"
    assert expand(text) == ""


def test_conditions_on_the_kernel() -> None:
    text = """
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
a
#endif
#ifdef CONFIG_SMP
b
#endif
#if defined(CONFIG_ARCH_HAS_SYSCALL_WRAPPER) && IS_ENABLED(CONFIG_E1000) && !IS_ENABLED(CONFIG_NOT) && CONFIG_HZ == 250
c
#endif
#ifndef CONFIG_NOT
d
#endif
"""
    assert expand(text) == "a b c d"


def test_members_are_macros_only_where_their_header_is() -> None:
    text = "sk->sk_state a.s6_addr inet->inet_dport req->ir_num tw->tw_family"
    assert expand(text) == " ".join(t.text for t in preprocess(Source("", text), Options("libbpf"))[:-1])
    same(
        "#include <net/sock.h>\n" + text,
        "sk->__sk_common.skc_state a.in6_u.u6_addr8 inet->sk.__sk_common.skc_dport req->req.__req_common.skc_num "
        "tw->__tw_common.skc_family",
    )


def test_a_libbpf_text_has_only_the_macros_of_its_headers() -> None:
    text = "min(a, b) AF_INET NULL BPF_HASH(x) SEC(y) CONFIG_SMP bpf_log2l(z)"
    assert expand(text, "libbpf") == " ".join(t.text for t in preprocess(Source("", text), Options("libbpf"))[:-1])
    assert expand('#include "vmlinux.h"\nmin(a, b)', "libbpf") == "min ( a , b )"
    assert expand("#include <linux/bpf.h>\nAF_INET", "libbpf") == "2"
    assert expand('#include <bpf/bpf_helpers.h>\nSEC("x")', "libbpf") == '__attribute__ ( ( section ( "x" ) , used ) )'


def test_what_the_text_declares_goes_before() -> None:
    own = "static inline int max(int a, int b) { return a > b ? a : b; }\nint x = max(1, 2);"
    assert expand(own) == " ".join(t.text for t in preprocess(Source("", own), Options("libbpf"))[:-1])
    own = "enum { READ = 1, WRITE };\nint x = READ;"
    assert expand(own) == " ".join(t.text for t in preprocess(Source("", own), Options("libbpf"))[:-1])
    own = "static u64 bpf_log2l(u64 v) { return v; } int x = bpf_log2l(1);"
    assert expand(own) == " ".join(t.text for t in preprocess(Source("", own), Options("libbpf"))[:-1])
    assert expand("#define AF_INET 77\n#include <linux/socket.h>\nAF_INET") == "77"
    assert expand("#undef AF_INET\n#include <linux/socket.h>\nAF_INET") == "AF_INET"
    assert "__min_a" in expand("int f(void) { return min(a, b); }")
    assert "__min_a" in expand("const int x = min(1, 2);")


def test_functions_stand_in_front_of_the_text_that_calls_them() -> None:
    found = expand("int f(void) { return bpf_log2l(1) + bpf_log2l(2) + min(1, 2) + sg_is_last(s); }")
    assert found.count("unsigned int bpf_log2 (") == 1
    assert found.index("int bpf_log2 (") < found.index("int bpf_log2l (") < found.index("int f (")
    assert "sg -> page_link & 2" in found
    assert found.count("bpf_log2l (") == 3
    assert "struct bpf_stacktrace { unsigned long long ip [ 127 ] ; } ;" in expand("BPF_STACK_TRACE(s, 64);")
    assert "log2" not in expand("int f(void) { return 1; }")


def test_license() -> None:
    found = expand("#define BPF_LICENSE Dual BSD/GPL\nint x;")
    assert found.endswith('char _license [ ] __attribute__ ( ( section ( "license" ) ) ) = "Dual BSD/GPL" ;')
    assert "license" not in expand("int x;")


def test_packets() -> None:
    found = expand(
        "#include <bcc/proto.h>\n#include <bcc/proto.h>\nstruct ip_t *ip = cursor_advance(cursor, sizeof(*ip));"
    )
    assert found.count("struct ip_t {") == 1
    assert found.count('deprecated ( "packet" )') == 12
    assert found.endswith("struct ip_t * ip = cursor_advance ( cursor , sizeof ( * ip ) ) ;")


_HEADERS = """
vmlinux.h bpf/bpf_helpers.h bpf/bpf_tracing.h bpf/bpf_core_read.h bpf/bpf_endian.h bpf/usdt.bpf.h linux/sched.h uapi/linux/ptrace.h
net/sock.h linux/fs.h linux/nsproxy.h asm/unistd.h trace/events/block.h uapi/asm-generic/mman-common.h bcc/proto.h stdint.h errno.h
sys/socket.h netinet/in.h linux/blk-mq.h ../vmlinux.h scsi/scsi_cmnd.h crypto/hash.h drm/drm_file.h sound/pcm.h
"""


@pytest.mark.parametrize("name", _HEADERS.split())
def test_headers_that_need_no_file(name: str) -> None:
    assert expand(f"#include <{name}>\nint x;", "libbpf").endswith("int x ;")
    assert expand(f'#include "{name}"\nint x;').endswith("int x ;")


def test_unknown_headers_are_errors() -> None:
    for name in ("mine.h", "linux/sched", "foo/bar.h"):
        with pytest.raises(CompileError) as caught:
            expand(f"int x;\n#include <{name}>\n")
        diagnostic = caught.value.diagnostics[0]
        assert f"no header '{name}'" in diagnostic.message
        assert "-I" in diagnostic.hint
        assert diagnostic.span is not None and diagnostic.span.line == 2


def test_registers_of_libbpf() -> None:
    text = "#include <bpf/bpf_tracing.h>\n"
    same(text + "PT_REGS_PARM2(x)", "(((const struct pt_regs *)(x))->si)", "libbpf")
    same(text + "PT_REGS_PARM4_SYSCALL(x)", "(((const struct pt_regs *)(x))->r10)", "libbpf")
    arm = target("aarch64")
    same(text + "PT_REGS_PARM8(x)", "(((const struct pt_regs *)(x))->regs[7])", "libbpf", arm)
    for arch in ("x86_64", "aarch64"):
        names = [f"PARM{i}" for i in range(1, 6)] + ["RC", "IP", "SP", "FP", "RET"]
        forms = [f"PT_REGS_{n}{s}" for n in names for s in ("", "_CORE")]
        forms += [f"PT_REGS_PARM{i}{s}" for i in range(1, 6) for s in ("_SYSCALL", "_CORE_SYSCALL")]
        for form in forms:
            assert form not in expand(f"{text}{form}(x)", "libbpf", target(arch))


def test_everything_in_the_tables_parses() -> None:
    """Each function of the virtual headers, and each macro of libbpf's with plausible arguments."""
    environment = Environment(target())
    names = [
        *bcc.DEFINITIONS,
        "div_u64",
        "div64_u64",
        "mul_u64_u32_shr",
        "sg_is_chain",
        "sg_chain_ptr",
        "list_empty",
        "ipv6_addr_v4mapped",
    ]
    text = "\n".join(f"long f{i}(void) {{ return (long)&{name}; }}" for i, name in enumerate(names))
    parse(preprocess(Source("t.c", text), Options("bcc"), target()), environment.is_type_name)
    body = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/usdt.bpf.h>
struct { __uint(type, 1); __type(key, int); __array(values, struct x); __ulong(map_extra, 5); __uint(pinning, LIBBPF_PIN_BY_NAME); } m SEC(".maps");
extern enum libbpf_tristate CONFIG_X __kconfig __weak;
extern void some(void) __ksym;
SEC("x") int BPF_PROG(a, int b, char *c) { bpf_printk("%d", b); bpf_printk("%d %d %d %d %d", 1, 2, 3, 4, 5); return b; }
SEC("y") int BPF_KPROBE(k) { int i; bpf_for(i, 0, 10) { } bpf_repeat(4) { } bpf_for_each(css, p, q, 1) { } return 0; }
SEC("z") int BPF_USDT(u, long x) { BPF_SEQ_PRINTF(s, "%d", 1); BPF_SNPRINTF(o, 5, "%d %d", 1, 2); barrier_var(x); return TRI_YES; }
static __always_inline __noinline int f(struct t *t __arg_trusted) {
    if (bpf_core_field_exists(t->a.b) && bpf_core_field_exists(struct t, a) && bpf_core_type_exists(struct t)) return 1;
    return bpf_core_enum_value_exists(enum e, V) + bpf_core_enum_value(enum e, V) + bpf_core_type_size(struct t)
        + BPF_CORE_READ_BITFIELD(t, x) + BPF_CORE_READ_BITFIELD_PROBED(t, x) + bpf_core_cast(t, struct u)->v
        + bpf_core_type_id_kernel(struct t) + bpf_core_type_matches(struct t) + bpf_core_field_offset(t->x) + bpf_core_field_size(t->x);
}
"""
    for arch in ("x86_64", "aarch64"):
        parse(preprocess(Source("t.c", body), Options("libbpf"), target(arch)), environment.is_type_name)
    assert libbpf.registers("riscv64").strip() == ""

"""BCC's dialect in the kernel: what the methods of tables do to maps, packets through the loads of proto.h, programs of each type that loads."""

from __future__ import annotations

from struct import pack, unpack

import pytest

from sonde.kernel import abi, syscall
from sonde.kernel.engine import KernelEngine, KernelObject
from sonde.kernel.syscall import address
from sonde.kernel.target import live_target
from sonde.lang.c.compile import Text, compile_c
from sonde.lang.c.options import Entry, Options
from sonde.lang.source import Source
from sonde.spec.object import ObjectSpec

pytestmark = pytest.mark.kernel
RAW = Entry("raw_tracepoint")


def compiled(text: str) -> Text:
    return compile_c(Source("test.c", text), live_target(), Options())


def load(text: str, entry: Entry = RAW, name: str = "f") -> KernelObject:
    unit = compiled(text)
    one = unit.compile_program(name, entry)
    return KernelEngine().load(ObjectSpec((one.program,), (*unit.maps, *one.maps)))


def run(body: str, tables: str, before: str = "") -> KernelObject:
    """Run a body once; the array `out` of u64 takes what it finds out."""
    text = f"""
BPF_ARRAY(out, u64, 16);
{tables}
static void put(int at, u64 value) {{ out.update(&at, &value); }}
{before}
int f(void *ctx)
{{
{body}
return 0;
}}
"""
    loaded = load(text)
    loaded.run("f")
    return loaded


def outputs(loaded: KernelObject, count: int) -> list[int]:
    return [int.from_bytes(loaded.maps["out"].lookup(pack("<I", i))[0], "little", signed=True) for i in range(count)]  # type: ignore[index]


# Tables -----------------------------------------------------------------------------------------------------------


def test_entries_are_found_inserted_updated_and_deleted() -> None:
    body = """
    u32 k = 7; u64 v = 1, w = 2, *p;
    put(0, h.lookup(&k) == 0);
    put(1, h.insert(&k, &v));
    put(2, h.insert(&k, &w));
    p = h.lookup(&k);
    if (p) { put(3, *p); *p += 40; }
    put(4, h.update(&k, &w));
    p = h.lookup(&k);
    if (p) put(5, *p);
    put(6, h.delete(&k));
    put(7, h.delete(&k));
    k = 8;
    p = h.lookup_or_try_init(&k, &v);
    if (p) put(8, (*p)++);
    p = h.lookup_or_init(&k, &w);
    put(9, *p);
    """
    with run(body, "BPF_HASH(h, u32);") as loaded:
        assert outputs(loaded, 10) == [1, 0, -17, 1, 0, 2, 0, -2, 1, 2]


def test_lookup_or_init_leaves_the_program_when_there_is_no_room() -> None:
    body = "u32 k = 1; u64 v = 5; h.update(&k, &v); k = 2; put(0, 1); u64 *p = h.lookup_or_init(&k, &v); put(1, *p);"
    with run(body, "BPF_HASH(h, u32, u64, 1);") as loaded:
        assert outputs(loaded, 2) == [1, 0]


def test_increments_begin_at_nothing_in_hashes_and_need_an_entry_in_arrays() -> None:
    body = """
    u32 k = 3; struct key s = {}; s.c = 'x';
    h.increment(k); h.increment(3, 10); h.atomic_increment(k, 100); h.atomic_increment(4);
    a.increment(1); a.atomic_increment(2, k); a.increment(999);
    s_h.increment(s);
    d.increment(bpf_log2l(1000));
    """
    tables = "BPF_HASH(h, u32); BPF_ARRAY(a, u64, 4); struct key { char c; int n; }; BPF_HASH(s_h, struct key, int); BPF_HISTOGRAM(d);"
    with run(body, tables) as loaded:
        found = {k: unpack("<Q", loaded.maps["h"].lookup(pack("<I", k))[0])[0] for k in (3, 4)}  # type: ignore[index]
        assert found == {3: 111, 4: 1}
        assert [unpack("<Q", loaded.maps["a"].lookup(pack("<I", k))[0])[0] for k in range(4)] == [0, 1, 3, 0]  # type: ignore[index]
        assert loaded.maps["s_h"].lookup(b"x" + bytes(7)) == [pack("<i", 1)]  # the padding of the key is clear
        assert loaded.maps["d"].lookup(pack("<I", 10)) == [pack("<Q", 1)]


def test_queues_and_stacks_give_back_what_they_took() -> None:
    body = """
    u64 a = 5, b = 6, x = 0;
    put(0, q.push(&a, 0)); q.push(&b, 0); put(1, q.peek(&x)); put(2, x); q.pop(&x); put(3, x);
    s.push(&a, 0); s.push(&b, 0); s.pop(&x); put(4, x); s.pop(&x); put(5, s.pop(&x));
    """
    with run(body, "BPF_QUEUE(q, u64, 10); BPF_STACK(s, u64, 10);") as loaded:
        assert outputs(loaded, 6) == [0, 0, 5, 5, 6, -2]


def test_keys_with_128_bits_and_pointers_as_values() -> None:
    tables = "struct k { unsigned __int128 a; u16 port; }; BPF_HASH(h, struct k, u64); BPF_HASH(tasks, u32, struct task_struct *);"
    body = """
    struct k k = { .a = (unsigned __int128)1 << 64 | 2, .port = 80 }, l;
    u64 v = 9; h.update(&k, &v);
    l = k; u64 *p = h.lookup(&l);
    if (p) put(0, *p);
    struct task_struct *t = (void *)bpf_get_current_task(); u32 zero = 0;
    tasks.update(&zero, &t);
    struct task_struct **tp = tasks.lookup(&zero);
    if (tp) { put(1, (*tp)->tgid == bpf_get_current_pid_tgid() >> 32); put(2, (*tp)->group_leader->pid == (*tp)->tgid); }
    """
    with run(body, tables) as loaded:
        assert outputs(loaded, 3) == [9, 1, 1]


def test_strings_structs_and_reads_of_the_kernel() -> None:
    body = """
    char comm[16], other[16] = "x"; struct task_struct *t = (struct task_struct *)bpf_get_current_task();
    bpf_get_current_comm(&comm, sizeof(comm));
    bpf_probe_read_kernel_str(&other, sizeof(other), t->comm);
    int same = 1;
    for (int i = 0; i < 16; i++) if (comm[i] != other[i] && other[i]) same = 0;
    put(0, same);
    put(1, t->comm[0] == comm[0]);
    struct list_head tasks = t->tasks;
    put(2, tasks.next == t->tasks.next);
    put(3, t->real_parent->tgid);
    put(4, t->nsproxy->uts_ns->name.sysname[0]);
    put(5, t->in_execve + 10);
    """
    import os

    with run(body, "", "#include <linux/sched.h>") as loaded:
        assert outputs(loaded, 6) == [1, 1, 1, os.getppid(), ord("L"), 10]


def test_timers_loops_and_callbacks() -> None:
    before = """
    struct state { u64 sum; int limit; };
    static int each(u32 i, struct state *s) { if (i == s->limit) return 1; s->sum += i; return 0; }
    static long visit(void *map, u32 *k, u64 *v, struct state *s) { s->sum += *v; *v = 0; return 0; }
    """
    body = """
    struct state s = { 0, 5 };
    put(0, bpf_loop(100, each, &s, 0)); put(1, s.sum);
    u32 k = 1; u64 v = 30; h.update(&k, &v); k = 2; h.update(&k, &v);
    s.sum = 0; put(2, bpf_for_each_map_elem(&h, visit, &s, 0)); put(3, s.sum);
    u64 *p = h.lookup(&k); if (p) put(4, *p);
    """
    with run(body, "BPF_HASH(h, u32);", before) as loaded:
        assert outputs(loaded, 5) == [6, 10, 2, 60, 0]


# Packets ----------------------------------------------------------------------------------------------------------

ETHERNET = bytes.fromhex("ffffffffffff0102030405060800")
IP = bytes.fromhex("4500002c00010000401100000a0000010a000002")
UDP = pack(">HHHH", 1000, 53, 24, 0)
PACKET = ETHERNET + IP + UDP + b"payload of 16 by"


def run_packet(loaded: KernelObject, packet: bytes) -> tuple[int, bytes]:
    """BPF_PROG_TEST_RUN with a packet: the result, and the packet behind it."""
    data, out = bytearray(packet), bytearray(2048)
    attr = bytearray(
        abi.PROG_TEST_RUN.pack(
            loaded.programs["f"].fd_as(), 0, len(data), len(out), address(data), address(out), 1, 0, 0, 0, 0, 0, 0, 0, 0
        )
    )
    result = syscall.bpf(abi.BPF_PROG_TEST_RUN, attr)
    assert result == 0, result
    size = int.from_bytes(attr[12:16], "little")
    return int.from_bytes(attr[4:8], "little", signed=True), bytes(out[:size])


def test_packet_headers_are_read_bit_by_bit() -> None:
    text = """
#include <bcc/proto.h>
BPF_ARRAY(out, u64, 16);
static void put(int at, u64 value) { out.update(&at, &value); }
int f(struct __sk_buff *skb)
{
    u8 *cursor = 0;
    struct ethernet_t *ethernet = cursor_advance(cursor, sizeof(*ethernet));
    put(0, ethernet->type);
    put(1, ethernet->src);
    if (ethernet->type != 0x0800) return 0;
    struct ip_t *ip = cursor_advance(cursor, sizeof(*ip));
    put(2, ip->ver); put(3, ip->hlen); put(4, ip->nextp); put(5, ip->src); put(6, ip->ttl);
    struct udp_t *udp = cursor_advance(cursor, sizeof(*udp));
    put(7, udp->sport); put(8, udp->dport);
    put(9, load_byte(skb, 14 + 20 + 8)); put(10, load_half(skb, 12)); put(11, load_word(skb, 26)); put(12, load_dword(skb, 0));
    return udp->dport == 53 ? -1 : 0;
}
"""
    with load(text, Entry("sched_cls")) as loaded:  # a socket filter would be run without the ethernet header
        run_packet(loaded, PACKET)
        found = outputs(loaded, 13)
        assert found[:9] == [0x800, 0x010203040506, 4, 5, 17, 0x0A000001, 64, 1000, 53]
        assert found[9:13] == [ord("p"), 0x800, 0x0A000001, int.from_bytes(ETHERNET[:8], "big", signed=True)]


def test_packet_headers_are_written_with_their_checksums() -> None:
    text = """
#include <bcc/proto.h>
int f(struct __sk_buff *skb)
{
    u8 *cursor = 0;
    struct ethernet_t *ethernet = cursor_advance(cursor, sizeof(*ethernet));
    struct ip_t *ip = cursor_advance(cursor, sizeof(*ip));
    u32 old = ip->dst, new = 0x0a0000fe;
    u8 tos = 0x12;
    ip->ttl = 17;
    ip->hlen = 6;
    incr_cksum_l3(&ip->hchecksum, old, new);
    ip->dst = new;
    return 0;
}
"""
    with load(text, Entry("sched_cls")) as loaded:
        _, changed = run_packet(loaded, PACKET)
    header = changed[14:34]
    assert (header[0], header[8], header[16:20]) == (0x46, 17, bytes.fromhex("0a0000fe"))
    assert header[10:12] != IP[10:12] and changed[34:] == PACKET[34:]


def test_xdp_reads_and_writes_within_the_bounds_that_it_checked() -> None:
    text = """
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
BPF_HASH(ports, u16, u64);
int f(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    struct iphdr *ip = data + sizeof(*eth);
    if ((void *)(ip + 1) > data_end) return XDP_PASS;
    if (eth->h_proto != htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP) return XDP_PASS;
    struct udphdr *udp = (void *)ip + ip->ihl * 4;
    if ((void *)udp + sizeof(*udp) > data_end) return XDP_ABORTED;
    u16 port = ntohs(udp->dest);
    ports.increment(port);
    ip->ttl--;
    __builtin_memcpy(eth->h_dest, eth->h_source, 6);
    return port == 53 ? XDP_DROP : XDP_PASS;
}
"""
    with load(text, Entry("xdp")) as loaded:
        result, changed = run_packet(loaded, PACKET)
        assert (result, changed[22], changed[:6]) == (1, 63, PACKET[6:12])
        assert loaded.maps["ports"].lookup(pack("<H", 53)) == [pack("<Q", 1)]
        assert run_packet(loaded, PACKET[:14] + bytes(40))[0] == 2


# Programs of other types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry("kprobe"), "int f(struct pt_regs *ctx, struct file *file) { return file->f_path.dentry->d_name.len + PT_REGS_IP(ctx); }"),
        (Entry("tracepoint"), "int f(struct tracepoint__sched__sched_switch *args) { return args->next_pid + args->prev_comm[3]; }"),
        (Entry("raw_tracepoint"), "int f(struct bpf_raw_tracepoint_args *ctx) { return ((struct task_struct *)ctx->args[1])->pid; }"),
        (Entry("perf_event"), "BPF_STACK_TRACE(s, 64); int f(struct bpf_perf_event_data *ctx) { return s.get_stackid(&ctx->regs, 0) + PT_REGS_IP(&ctx->regs); }"),
        (Entry("tracing", "trace_raw_tp", "sched_switch"), "int f(unsigned long long *ctx) { struct task_struct *n = (void *)ctx[2]; return n->real_parent->tgid; }"),
        (Entry("tracing", "trace_iter", "task"), "BPF_HASH(h); int f(struct bpf_iter__task *ctx) { struct task_struct *t = ctx->task; if (!t) return 0; u64 n = t->pid; h.increment(n); return 0; }"),
        (Entry("cgroup_skb"), "int f(struct __sk_buff *skb) { return skb->len > 10; }"),
    ],
)  # fmt: skip
def test_programs_of_all_types_are_accepted(entry: Entry, text: str) -> None:
    with load(text, entry) as loaded:
        assert loaded.programs["f"].fd_as() >= 0


def test_the_verifier_s_refusal_names_the_line() -> None:
    from sonde.errors import VerifierError

    text = "BPF_HASH(h, u32);\nint f(void *ctx)\n{\n    u32 k = 1;\n    u64 *v = h.lookup(&k);\n    return *v;\n}\n"
    with pytest.raises(VerifierError) as caught:
        load(text)
    assert "test.c:6:" in caught.value.render() and "return *v;" in caught.value.render()


def test_a_refusal_within_a_macro_names_the_line_that_calls_it() -> None:
    from sonde.errors import VerifierError

    text = "BPF_HASH(h, u32);\n#define VALUE(p) (*(p))\nint f(void *ctx)\n{\n    u32 k = 1;\n    return VALUE(h.lookup(&k));\n}\n"
    with pytest.raises(VerifierError) as caught:
        load(text)
    assert "test.c:6:" in caught.value.render() and "return VALUE(h.lookup(&k));" in caught.value.render()


def test_variables_that_do_not_fit_the_stack_work_all_the_same() -> None:
    body = """
    char big[2000] = {}; struct { u64 a[90]; } one = {}, two;
    big[1999] = 7; one.a[89] = 5; two = one;
    bpf_probe_read_kernel(&big[10], 4, &one.a[89]);
    put(0, big[1999] + big[10] * 10 + two.a[89] * 100);
    """
    with run(body, "") as loaded:
        assert outputs(loaded, 1) == [557]


METHODS = {
    "perf_submit": (RAW, "BPF_PERF_OUTPUT(t);", "void *ctx", "int n = 5; return t.perf_submit(ctx, &n, sizeof(n));"),
    "perf_submit_skb": (Entry("sched_cls"), "BPF_PERF_OUTPUT(t);", "struct __sk_buff *skb", "int n = 5; return t.perf_submit_skb(skb, skb->len, &n, 4);"),
    "perf_read": (Entry("kprobe"), "BPF_PERF_ARRAY(t, 8);", "void *ctx", "return t.perf_read(CUR_CPU_IDENTIFIER) > 5;"),
    "perf_counter_value": (Entry("kprobe"), "BPF_PERF_ARRAY(t, 8);", "void *ctx", "struct bpf_perf_event_value v = {}; t.perf_counter_value(CUR_CPU_IDENTIFIER, &v, sizeof(v)); return v.counter;"),
    "ringbuf": (RAW, "BPF_RINGBUF_OUTPUT(t, 8);", "void *ctx", "struct e { u64 a, b; } e = { 1, 2 }, *p = t.ringbuf_reserve(sizeof(e)); if (!p) return 1; *p = e; if (e.a) t.ringbuf_submit(p, 0); else t.ringbuf_discard(p, 0); t.ringbuf_output(&e, sizeof(e), 0); return t.ringbuf_query(0);"),
    "get_stackid": (Entry("tracepoint"), "BPF_STACK_TRACE(t, 100);", "void *ctx", "return t.get_stackid(ctx, BPF_F_USER_STACK) > 0;"),
    "check_current_task": (RAW, "BPF_CGROUP_ARRAY(t, 4);", "void *ctx", "return t.check_current_task(0) > 0;"),
    "call": (RAW, "BPF_PROG_ARRAY(t, 4);", "void *ctx", "t.call(ctx, 2); return 0;"),
    "devmap": (Entry("xdp"), "BPF_DEVMAP(t, 4);", "struct xdp_md *ctx", "return t.redirect_map(ctx->rx_queue_index & 3, 0);"),
    "cpumap": (Entry("xdp"), "BPF_CPUMAP(t, 2);", "struct xdp_md *ctx", "return t.redirect_map(0, 0);"),
    "xskmap": (Entry("xdp"), "BPF_XSKMAP(t, 4);", "struct xdp_md *ctx", "int i = 0; return t.lookup(&i) ? t.redirect_map(0, 0) : XDP_PASS;"),
    "sock_map_update": (Entry("sock_ops"), "BPF_SOCKMAP(t, 4);", "struct bpf_sock_ops *ctx", "u32 k = 1; t.sock_map_update(ctx, &k, 0); return 1;"),
    "sock_hash_update": (Entry("sock_ops"), "BPF_SOCKHASH(t, u64);", "struct bpf_sock_ops *ctx", "u64 k = 1; t.sock_hash_update(ctx, &k, 0); return 1;"),
    "msg_redirect_hash": (Entry("sk_msg"), "BPF_SOCKHASH(t, u64);", "struct sk_msg_md *ctx", "u64 k = ctx->size; return t.msg_redirect_hash(ctx, &k, 0);"),
    "sk_redirect_hash": (Entry("sk_skb"), "BPF_SOCKHASH(t, u64);", "struct __sk_buff *ctx", "u64 k = ctx->len; return t.sk_redirect_hash(ctx, &k, 0);"),
    "get_local_storage": (Entry("cgroup_skb"), "BPF_CGROUP_STORAGE(t, u64);", "struct __sk_buff *ctx", "u64 *v = t.get_local_storage(0); __sync_fetch_and_add(v, 1); return 1;"),
    "sk_storage": (Entry("sched_cls"), "BPF_SK_STORAGE(t, u64);", "struct __sk_buff *ctx", "struct bpf_sock *sk = ctx->sk; if (!sk) return 0; sk = bpf_sk_fullsock(sk); if (!sk) return 0; u64 *v = t.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE); if (v) (*v)++; return t.sk_storage_delete(sk);"),
    "task_storage": (Entry("tracing", "trace_raw_tp", "sched_process_exit"), "BPF_TASK_STORAGE(t, u64);", "void *ctx", "u64 *v = t.task_storage_get(bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE); if (v) (*v)++; return 0;"),
    "lpm_trie": (RAW, "struct k { u32 bits; u32 a; }; BPF_LPM_TRIE(t, struct k, u64, 10);", "void *ctx", "struct k k = { 32, 7 }; u64 v = 1; t.update(&k, &v); return t.lookup(&k) != 0;"),
    "percpu": (RAW, "BPF_PERCPU_ARRAY(t, u64, 4); BPF_PERCPU_HASH(h, u32, u64);", "void *ctx", "u32 k = 1; u64 z = 0, *v = h.lookup_or_try_init(&k, &z); if (v) *v += 3; t.increment(1); return 0;"),
    "maps in maps": (RAW, "BPF_TABLE(\"hash\", int, int, inner, 10); BPF_ARRAY_OF_MAPS(t, \"inner\", 4);", "void *ctx", "int k = 0, *v; void *m = t.lookup(&k); if (!m) return 0; v = bpf_map_lookup_elem(m, &k); return v ? *v : 0;"),
    "spin_lock": (Entry("sched_cls"), "struct v { struct bpf_spin_lock lock; int n; }; BPF_ARRAY(t, struct v, 1);", "void *ctx", "int k = 0; struct v *v = t.lookup(&k); if (!v) return 0; bpf_spin_lock(&v->lock); v->n++; bpf_spin_unlock(&v->lock); return v->n;"),
    "timer": (Entry("sched_cls"), "struct v { struct bpf_timer timer; u64 n; }; BPF_ARRAY(t, struct v, 1); static int later(void *map, int *key, struct v *v) { v->n++; return 0; }", "void *ctx", "int k = 0; struct v *v = t.lookup(&k); if (!v) return 0; bpf_timer_init(&v->timer, &t, 1); bpf_timer_set_callback(&v->timer, later); return bpf_timer_start(&v->timer, 1000, 0);"),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_accepted(name: str) -> None:
    entry, tables, params, body = METHODS[name]
    with load(f"{tables}\nint f({params})\n{{\n{body}\n}}\n", entry) as loaded:
        assert loaded.programs["f"].fd_as() >= 0

"""What every program of BCC's dialect has: map macros, probe macros, registers, small functions; and the packets of bcc/proto.h.

Names and meanings are those of BCC's reference guide; the words for kinds of tables are those that its Python side knows.
"""

from __future__ import annotations

# Tables. `__bcc_pick` chooses by the number of arguments.
_TABLES = """
#define BPF_F_TABLE(kind, key, leaf, name, max, flags) __bcc_table(kind, key, leaf, name, max, flags)
#define BPF_TABLE(kind, key, leaf, name, max) __bcc_table(kind, key, leaf, name, max, 0)
#define BPF_TABLE_PUBLIC(kind, key, leaf, name, max) __bcc_table("public_" kind, key, leaf, name, max, 0)
#define BPF_TABLE_SHARED(kind, key, leaf, name, max) __bcc_table("shared_" kind, key, leaf, name, max, 0)
#define BPF_TABLE_PINNED(kind, key, leaf, name, max, path, ...) \\
    __bcc_table("pinned_" kind, key, leaf, name, max, __bcc_or(0, ##__VA_ARGS__), path)
#define __bcc_or(x, ...) __bcc_second(x, ##__VA_ARGS__, x)
#define __bcc_second(a, b, ...) b
#define __bcc_pick(a, b, c, d, chosen, ...) chosen
#define BPF_HASH(...) __bcc_pick(__VA_ARGS__, __bcc_hash4, __bcc_hash3, __bcc_hash2, __bcc_hash1)("hash", 0, __VA_ARGS__)
#define BPF_PERCPU_HASH(...) \\
    __bcc_pick(__VA_ARGS__, __bcc_hash4, __bcc_hash3, __bcc_hash2, __bcc_hash1)("percpu_hash", 0, __VA_ARGS__)
#define BPF_LPM_TRIE(...) __bcc_pick(__VA_ARGS__, __bcc_hash4, __bcc_hash3, __bcc_hash2, __bcc_hash1)("lpm_trie", 1, __VA_ARGS__)
#define __bcc_hash1(kind, flags, name) __bcc_table(kind, unsigned long long, unsigned long long, name, 10240, flags)
#define __bcc_hash2(kind, flags, name, key) __bcc_table(kind, key, unsigned long long, name, 10240, flags)
#define __bcc_hash3(kind, flags, name, key, leaf) __bcc_table(kind, key, leaf, name, 10240, flags)
#define __bcc_hash4(kind, flags, name, key, leaf, max) __bcc_table(kind, key, leaf, name, max, flags)
#define BPF_ARRAY(...) __bcc_pick(__VA_ARGS__, , __bcc_array3, __bcc_array2, __bcc_array1)("array", __VA_ARGS__)
#define BPF_PERCPU_ARRAY(...) __bcc_pick(__VA_ARGS__, , __bcc_array3, __bcc_array2, __bcc_array1)("percpu_array", __VA_ARGS__)
#define __bcc_array1(kind, name) __bcc_table(kind, int, unsigned long long, name, 10240, 0)
#define __bcc_array2(kind, name, leaf) __bcc_table(kind, int, leaf, name, 10240, 0)
#define __bcc_array3(kind, name, leaf, max) __bcc_table(kind, int, leaf, name, max, 0)
#define BPF_HISTOGRAM(...) __bcc_pick(__VA_ARGS__, , __bcc_hist3, __bcc_hist2, __bcc_hist1)(__VA_ARGS__)
#define __bcc_hist1(name) __bcc_table("histogram", int, unsigned long long, name, 64, 0)
#define __bcc_hist2(name, key) __bcc_table("histogram", key, unsigned long long, name, 64, 0)
#define __bcc_hist3(name, key, max) __bcc_table("histogram", key, unsigned long long, name, max, 0)
#define BPF_STACK_TRACE(name, max) __bcc_table("stacktrace", int, struct bpf_stacktrace, name, max, 0)
#define BPF_STACK_TRACE_BUILDID(name, max) __bcc_table("stacktrace", int, struct bpf_stacktrace_buildid, name, max, 32)
#define BPF_PROG_ARRAY(name, max) __bcc_table("prog", unsigned int, unsigned int, name, max, 0)
#define BPF_PERF_OUTPUT(name) __bcc_table("perf_output", int, unsigned int, name, 0, 0)
#define BPF_PERF_ARRAY(name, max) __bcc_table("perf_array", int, unsigned int, name, max, 0)
#define BPF_RINGBUF_OUTPUT(name, pages) __bcc_table("ringbuf", int, unsigned int, name, pages, 0)
#define BPF_CGROUP_ARRAY(name, max) __bcc_table("cgroup_array", int, unsigned int, name, max, 0)
#define BPF_QUEUESTACK(kind, name, leaf, max, flags) __bcc_table(kind, , leaf, name, max, flags)
#define BPF_QUEUESTACK_PUBLIC(kind, name, leaf, max, flags) __bcc_table("public_" kind, , leaf, name, max, flags)
#define BPF_QUEUESTACK_SHARED(kind, name, leaf, max, flags) __bcc_table("shared_" kind, , leaf, name, max, flags)
#define BPF_QUEUESTACK_PINNED(kind, name, leaf, max, flags, path) __bcc_table("pinned_" kind, , leaf, name, max, flags, path)
#define BPF_QUEUE(name, leaf, max, ...) BPF_QUEUESTACK("queue", name, leaf, max, __bcc_or(0, ##__VA_ARGS__))
#define BPF_STACK(name, leaf, max, ...) BPF_QUEUESTACK("stack", name, leaf, max, __bcc_or(0, ##__VA_ARGS__))
#define BPF_QUEUE_PUBLIC(name, leaf, max, ...) BPF_QUEUESTACK_PUBLIC("queue", name, leaf, max, __bcc_or(0, ##__VA_ARGS__))
#define BPF_STACK_PUBLIC(name, leaf, max, ...) BPF_QUEUESTACK_PUBLIC("stack", name, leaf, max, __bcc_or(0, ##__VA_ARGS__))
#define BPF_QUEUE_SHARED(name, leaf, max, ...) BPF_QUEUESTACK_SHARED("queue", name, leaf, max, __bcc_or(0, ##__VA_ARGS__))
#define BPF_STACK_SHARED(name, leaf, max, ...) BPF_QUEUESTACK_SHARED("stack", name, leaf, max, __bcc_or(0, ##__VA_ARGS__))
#define BPF_QUEUE_PINNED(name, leaf, max, path, ...) \\
    BPF_QUEUESTACK_PINNED("queue", name, leaf, max, __bcc_or(0, ##__VA_ARGS__), path)
#define BPF_STACK_PINNED(name, leaf, max, path, ...) \\
    BPF_QUEUESTACK_PINNED("stack", name, leaf, max, __bcc_or(0, ##__VA_ARGS__), path)
#define BPF_DEVMAP(name, max) __bcc_table("devmap", unsigned int, int, name, max, 0)
#define BPF_CPUMAP(name, max) __bcc_table("cpumap", unsigned int, unsigned int, name, max, 0)
#define BPF_XSKMAP(...) __bcc_pick(__VA_ARGS__, , __bcc_xskmap3, __bcc_xskmap2, )(__VA_ARGS__)
#define __bcc_xskmap2(name, max) __bcc_table("xskmap", unsigned int, int, name, max, 0)
#define __bcc_xskmap3(name, max, path) __bcc_table("pinned_xskmap", unsigned int, int, name, max, 0, path)
#define BPF_ARRAY_OF_MAPS(name, inner, max) __bcc_table("array_of_maps", int, int, name, max, 0, inner)
#define BPF_HASH_OF_MAPS(...) __bcc_pick(__VA_ARGS__, __bcc_maps4, __bcc_maps3, __bcc_maps2, )(__VA_ARGS__)
#define __bcc_maps2(name, inner) __bcc_table("hash_of_maps", int, int, name, 10240, 0, inner)
#define __bcc_maps3(name, key, inner) __bcc_table("hash_of_maps", key, int, name, 10240, 0, inner)
#define __bcc_maps4(name, key, inner, max) __bcc_table("hash_of_maps", key, int, name, max, 0, inner)
#define BPF_SK_STORAGE(name, leaf) __bcc_table("sk_storage", int, leaf, name, 0, 1)
#define BPF_INODE_STORAGE(name, leaf) __bcc_table("inode_storage", int, leaf, name, 0, 1)
#define BPF_TASK_STORAGE(name, leaf) __bcc_table("task_storage", int, leaf, name, 0, 1)
#define BPF_SOCKMAP(name, max) __bcc_table("sockmap", unsigned int, int, name, max, 0)
#define BPF_SOCKHASH(...) __bcc_pick(__VA_ARGS__, , __bcc_sockhash3, __bcc_sockhash2, __bcc_sockhash1)(__VA_ARGS__)
#define __bcc_sockhash1(name) __bcc_table("sockhash", unsigned int, int, name, 10240, 0)
#define __bcc_sockhash2(name, key) __bcc_table("sockhash", key, int, name, 10240, 0)
#define __bcc_sockhash3(name, key, max) __bcc_table("sockhash", key, int, name, max, 0)
#define BPF_CGROUP_STORAGE(name, leaf) __bcc_table("cgroup_storage", struct bpf_cgroup_storage_key, leaf, name, 0, 0)
#define BPF_PERCPU_CGROUP_STORAGE(name, leaf) \\
    __bcc_table("percpu_cgroup_storage", struct bpf_cgroup_storage_key, leaf, name, 0, 0)
"""

# Functions that are programs, by their names' prefixes.
_PROBES = """
#define TRACEPOINT_PROBE(category, event) int tracepoint__##category##__##event(struct tracepoint__##category##__##event *args)
#define RAW_TRACEPOINT_PROBE(event) int raw_tracepoint__##event(struct bpf_raw_tracepoint_args *ctx)
#define BPF_PROG(name, args...) int __attribute__((bpf_args("tracing"))) name(unsigned long long *ctx, ##args)
#define KFUNC_PROBE(event, args...) BPF_PROG(kfunc__vmlinux__##event, ##args)
#define KRETFUNC_PROBE(event, args...) BPF_PROG(kretfunc__vmlinux__##event, ##args)
#define MODULE_KFUNC_PROBE(module, event, args...) BPF_PROG(kfunc__##module##__##event, ##args)
#define MODULE_KRETFUNC_PROBE(module, event, args...) BPF_PROG(kretfunc__##module##__##event, ##args)
#define KMOD_RET(event, args...) BPF_PROG(kmod_ret__vmlinux__##event, ##args)
#define MODULE_KMOD_RET(module, event, args...) BPF_PROG(kmod_ret__##module##__##event, ##args)
#define LSM_PROBE(event, args...) BPF_PROG(lsm__##event, ##args)
#define BPF_ITER(target) int bpf_iter__##target(struct bpf_iter__##target *ctx)
#define TP_DATA_LOC_READ_CONST(dst, field, length) \\
    do { bpf_probe_read((void *)(dst), length, (char *)args + (args->data_loc_##field & 0xffff)); } while (0)
#define TP_DATA_LOC_READ(dst, field) \\
    do { bpf_probe_read((void *)(dst), args->data_loc_##field >> 16, (char *)args + (args->data_loc_##field & 0xffff)); } while (0)
#define TP_DATA_LOC_READ_STR(dst, field, length) \\
    do { bpf_probe_read_str((void *)(dst), length, (char *)args + (args->data_loc_##field & 0xffff)); } while (0)
#define PT_REGS_SYSCALL_CTX(ctx) ((struct pt_regs *)PT_REGS_PARM1(ctx))
#define BPF_PACKET_HEADER __attribute__((packed)) __attribute__((deprecated("packet")))
#define BCC_SEC(name) __attribute__((section(name), used))
#define MASK(n) ((n) < 64 ? (1ull << (n)) - 1 : ~0ull)
#define MASK128(n) ((n) < 128 ? ((unsigned __int128)1 << (n)) - 1 : ~(unsigned __int128)0)
#define CUR_CPU_IDENTIFIER BPF_F_CURRENT_CPU
#define BPF_MAX_STACK_DEPTH 127
#define BPF_BUILD_ID_SIZE 20
#define bpf_ntohs(x) __builtin_bswap16(x)
#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohl(x) __builtin_bswap32(x)
#define bpf_htonl(x) __builtin_bswap32(x)
#define bpf_ntohll(x) __builtin_bswap64(x)
#define bpf_htonll(x) __builtin_bswap64(x)
"""

# By architecture: registers as struct pt_regs has them.
REGISTERS = {
    "x86_64": """
#define bpf_target_x86 1
#define PT_REGS_PARM1(ctx) ((ctx)->di)
#define PT_REGS_PARM2(ctx) ((ctx)->si)
#define PT_REGS_PARM3(ctx) ((ctx)->dx)
#define PT_REGS_PARM4(ctx) ((ctx)->cx)
#define PT_REGS_PARM5(ctx) ((ctx)->r8)
#define PT_REGS_PARM6(ctx) ((ctx)->r9)
#define PT_REGS_RC(ctx) ((ctx)->ax)
#define PT_REGS_IP(ctx) ((ctx)->ip)
#define PT_REGS_SP(ctx) ((ctx)->sp)
#define PT_REGS_FP(ctx) ((ctx)->bp)
#define PT_REGS_RET(ctx) ((ctx)->sp)
#define PT_REGS_PARM4_SYSCALL(ctx) ((ctx)->r10)
""",
    "aarch64": """
#define bpf_target_arm64 1
#define PT_REGS_PARM1(ctx) ((ctx)->regs[0])
#define PT_REGS_PARM2(ctx) ((ctx)->regs[1])
#define PT_REGS_PARM3(ctx) ((ctx)->regs[2])
#define PT_REGS_PARM4(ctx) ((ctx)->regs[3])
#define PT_REGS_PARM5(ctx) ((ctx)->regs[4])
#define PT_REGS_PARM6(ctx) ((ctx)->regs[5])
#define PT_REGS_RC(ctx) ((ctx)->regs[0])
#define PT_REGS_IP(ctx) ((ctx)->pc)
#define PT_REGS_SP(ctx) ((ctx)->sp)
#define PT_REGS_FP(ctx) ((ctx)->regs[29])
#define PT_REGS_RET(ctx) ((ctx)->regs[30])
#define PT_REGS_PARM4_SYSCALL(ctx) ((ctx)->regs[3])
""",
}

_SYSCALL = "".join(f"\n#define PT_REGS_PARM{i}_SYSCALL(ctx) PT_REGS_PARM{i}(ctx)" for i in (1, 2, 3, 5, 6))
MACROS = _TABLES + _PROBES + _SYSCALL

_INLINE = "static inline __attribute__((always_inline)) "

# What stands in front of the text when it uses the name: functions, and structs that no kernel has.
DEFINITIONS = {
    "bpf_log2": _INLINE
    + """unsigned int bpf_log2(unsigned int v)
{
    unsigned int log = (v > 0xffff) << 4;
    unsigned int step;
    v >>= log;
    step = (v > 0xff) << 3; v >>= step; log |= step;
    step = (v > 0xf) << 2; v >>= step; log |= step;
    step = (v > 0x3) << 1; v >>= step; log |= step;
    return log | (v >> 1);
}""",
    # Counts from one, unlike bpf_log2: slot 0 of a histogram is for 0.
    "bpf_log2l": _INLINE
    + """unsigned int bpf_log2l(unsigned long v)
{
    unsigned int high = v >> 32;
    return high ? bpf_log2(high) + 33 : bpf_log2(v) + 1;
}""",
    "bpf_ntoh128": _INLINE
    + """unsigned __int128 bpf_ntoh128(unsigned __int128 x)
{
    return ((unsigned __int128)__builtin_bswap64((unsigned long long)x) << 64) | __builtin_bswap64((unsigned long long)(x >> 64));
}""",
    "bpf_hton128": _INLINE
    + """unsigned __int128 bpf_hton128(unsigned __int128 x)
{
    return bpf_ntoh128(x);
}""",
    "bpf_stacktrace": "struct bpf_stacktrace { unsigned long long ip[127]; };",
    "bpf_stacktrace_buildid": "struct bpf_stacktrace_buildid { struct bpf_stack_build_id trace[127]; };",
}

# Headers of packets, most significant bit first; `#include <bcc/proto.h>` puts them in.
PROTO = """
#define ETHERNET_P_IP 0x0800
#define ETHERNET_P_ARP 0x0806
struct ethernet_t {
    unsigned long long dst:48;
    unsigned long long src:48;
    unsigned int type:16;
} BPF_PACKET_HEADER;
struct dot1q_t {
    unsigned short pri:3;
    unsigned short cfi:1;
    unsigned short vlanid:12;
    unsigned short type;
} BPF_PACKET_HEADER;
struct arp_t {
    unsigned short htype;
    unsigned short ptype;
    unsigned char hlen;
    unsigned char plen;
    unsigned short oper;
    unsigned long long sha:48;
    unsigned long long spa:32;
    unsigned long long tha:48;
    unsigned int tpa;
} BPF_PACKET_HEADER;
struct ip_t {
    unsigned char ver:4;
    unsigned char hlen:4;
    unsigned char tos;
    unsigned short tlen;
    unsigned short identification;
    unsigned short ffo_unused:1;
    unsigned short df:1;
    unsigned short mf:1;
    unsigned short foffset:13;
    unsigned char ttl;
    unsigned char nextp;
    unsigned short hchecksum;
    unsigned int src;
    unsigned int dst;
} BPF_PACKET_HEADER;
struct udp_t {
    unsigned short sport;
    unsigned short dport;
    unsigned short length;
    unsigned short crc;
} BPF_PACKET_HEADER;
struct tcp_t {
    unsigned short src_port;
    unsigned short dst_port;
    unsigned int seq_num;
    unsigned int ack_num;
    unsigned char offset:4;
    unsigned char reserved:4;
    unsigned char flag_cwr:1;
    unsigned char flag_ece:1;
    unsigned char flag_urg:1;
    unsigned char flag_ack:1;
    unsigned char flag_psh:1;
    unsigned char flag_rst:1;
    unsigned char flag_syn:1;
    unsigned char flag_fin:1;
    unsigned short rcv_wnd;
    unsigned short cksum;
    unsigned short urg_ptr;
} BPF_PACKET_HEADER;
struct vxlan_t {
    unsigned int rsv1:4;
    unsigned int iflag:1;
    unsigned int rsv2:3;
    unsigned int rsv3:24;
    unsigned int key:24;
    unsigned int rsv4:8;
} BPF_PACKET_HEADER;
struct vxlan_gbp_t {
    unsigned int gflag:1;
    unsigned int rsv1:3;
    unsigned int iflag:1;
    unsigned int rsv2:3;
    unsigned int rsv3:1;
    unsigned int dflag:1;
    unsigned int rsv4:1;
    unsigned int aflag:1;
    unsigned int rsv5:3;
    unsigned int tag:16;
    unsigned int key:24;
    unsigned int rsv6:8;
} BPF_PACKET_HEADER;
struct ip6_t {
    unsigned int ver:4;
    unsigned int priority:8;
    unsigned int flow_label:20;
    unsigned short payload_len;
    unsigned char next_header;
    unsigned char hop_limit;
    unsigned long long src_hi;
    unsigned long long src_lo;
    unsigned long long dst_hi;
    unsigned long long dst_lo;
} BPF_PACKET_HEADER;
struct ip6_opt_t {
    unsigned char next_header;
    unsigned char ext_len;
    unsigned char pad[6];
} BPF_PACKET_HEADER;
struct icmp6_t {
    unsigned char type;
    unsigned char code;
    unsigned short checksum;
} BPF_PACKET_HEADER;
struct icmp_t {
    unsigned char type;
    unsigned char code;
    unsigned short checksum;
} BPF_PACKET_HEADER;
"""

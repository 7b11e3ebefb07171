"""The macros of libbpf's headers for programs: bpf_helpers.h, bpf_tracing.h, bpf_core_read.h, bpf_endian.h, usdt.bpf.h.

Names and meanings are libbpf's (1.7). Arguments of `BPF_PROG` and its like are parameters of the program itself here, not of a
function that it calls: `__attribute__((bpf_args("…")))` says how they are had.
"""

from __future__ import annotations

_MOST = 12  # arguments that the counting macros count

_HELPERS = """
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
#define __array(name, value) typeof(value) *name[]
#define __ulong(name, value) enum { ___bpf_concat(__unique_value, __COUNTER__) = value } name
#define LIBBPF_PIN_NONE 0
#define LIBBPF_PIN_BY_NAME 1
#define TRI_NO 0
#define TRI_YES 1
#define TRI_MODULE 2
#define NULL ((void *)0)
#define offsetof(type, member) __builtin_offsetof(type, member)
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - __builtin_offsetof(type, member)))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __weak __attribute__((weak))
#define __hidden __attribute__((visibility("hidden")))
#define __kconfig __attribute__((section(".kconfig")))
#define __ksym __attribute__((section(".ksyms")))
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __kptr_untrusted __attribute__((btf_type_tag("kptr_untrusted")))
#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))
#define __uptr __attribute__((btf_type_tag("uptr")))
#define __arg_ctx __attribute__((btf_decl_tag("arg:ctx")))
#define __arg_nonnull __attribute__((btf_decl_tag("arg:nonnull")))
#define __arg_nullable __attribute__((btf_decl_tag("arg:nullable")))
#define __arg_trusted __attribute__((btf_decl_tag("arg:trusted")))
#define __arg_untrusted __attribute__((btf_decl_tag("arg:untrusted")))
#define __arg_arena __attribute__((btf_decl_tag("arg:arena")))
#define bpf_ksym_exists(sym) (!!(sym))
#define barrier() asm volatile("" : : : "memory")
#define barrier_var(x) asm volatile("" : "+r"(x))
#define __bpf_unreachable() __builtin_trap()
#define bpf_tail_call_static(ctx, map, slot) bpf_tail_call(ctx, map, slot)
#define ___bpf_concat(a, b) a##b
#define ___bpf_apply(fn, n) ___bpf_concat(fn, n)
#define bpf_printk(fmt, args...) ___bpf_pick_printk(args)(fmt, ##args)
#define ___bpf_pick_printk(...) ___bpf_apply(__bpf_printk_, ___bpf_is_more_than_3(__VA_ARGS__))
#define ___bpf_is_more_than_3(...) ___bpf_nth(_, ##__VA_ARGS__, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
#define __bpf_printk_0(fmt, args...) ({ static const char ____fmt[] = fmt; bpf_trace_printk(____fmt, sizeof(____fmt), ##args); })
#define __bpf_printk_1(fmt, args...) __bpf_vprintk(fmt, ##args)
#define __bpf_vprintk(fmt, args...) ({ static const char ____fmt[] = fmt; unsigned long long ____args[] = { ___bpf_fill(args) }; \\
    bpf_trace_vprintk(____fmt, sizeof(____fmt), ____args, sizeof(____args)); })
#define bpf_vprintk(fmt, args...) __bpf_vprintk(fmt, ##args)
#define ___bpf_fill(args...) ___bpf_apply(___bpf_fill, ___bpf_narg(args))(args)
#define ___bpf_values(args...) unsigned long long ____args[___bpf_narg(args) + !___bpf_narg(args)] = { ___bpf_fill(args) }
#define BPF_SEQ_PRINTF(seq, fmt, args...) ({ static const char ____fmt[] = fmt; ___bpf_values(args); \\
    bpf_seq_printf(seq, ____fmt, sizeof(____fmt), ____args, ___bpf_narg(args) * 8); })
#define BPF_SNPRINTF(out, size, fmt, args...) ({ static const char ____fmt[] = fmt; ___bpf_values(args); \\
    bpf_snprintf(out, size, ____fmt, ____args, ___bpf_narg(args) * 8); })
#define bpf_stream_printk(stream, fmt, args...) ({ static const char ____fmt[] = fmt; ___bpf_values(args); \\
    bpf_stream_vprintk(stream, ____fmt, ____args, ___bpf_narg(args) * 8, NULL); })
#define bpf_for_each(type, cur, args...) \\
    for (struct bpf_iter_##type ___it __attribute__((aligned(8), cleanup(bpf_iter_##type##_destroy))), \\
         *___unused __attribute__((unused)) = (bpf_iter_##type##_new(&___it, ##args), (void)bpf_iter_##type##_destroy, (void *)0); \\
         (((cur) = bpf_iter_##type##_next(&___it)));)
#define bpf_for(i, start, end) \\
    for (struct bpf_iter_num ___it __attribute__((aligned(8), cleanup(bpf_iter_num_destroy))), \\
         *___unused __attribute__((unused)) = (bpf_iter_num_new(&___it, (start), (end)), (void)bpf_iter_num_destroy, (void *)0); \\
         ({ int *___next = bpf_iter_num_next(&___it); (___next && ((i) = *___next, (i) >= (start) && (i) < (end))); });)
#define bpf_repeat(n) \\
    for (struct bpf_iter_num ___it __attribute__((aligned(8), cleanup(bpf_iter_num_destroy))), \\
         *___unused __attribute__((unused)) = (bpf_iter_num_new(&___it, 0, (n)), (void)bpf_iter_num_destroy, (void *)0); \\
         bpf_iter_num_next(&___it);)
"""

_TRACING = """
#define BPF_PROG(name, args...) __attribute__((bpf_args("tracing"))) name(unsigned long long *ctx, ##args)
#define BPF_PROG2(name, args...) __attribute__((bpf_args("tracing"))) name(unsigned long long *ctx, ##args)
#define BPF_KPROBE(name, args...) __attribute__((bpf_args("kprobe"))) name(struct pt_regs *ctx, ##args)
#define BPF_KRETPROBE(name, args...) __attribute__((bpf_args("kretprobe"))) name(struct pt_regs *ctx, ##args)
#define BPF_KSYSCALL(name, args...) __attribute__((bpf_args("ksyscall"))) name(struct pt_regs *ctx, ##args)
#define BPF_KPROBE_SYSCALL(name, args...) BPF_KSYSCALL(name, ##args)
#define BPF_UPROBE(name, args...) BPF_KPROBE(name, ##args)
#define BPF_URETPROBE(name, args...) BPF_KRETPROBE(name, ##args)
#define __PT_REGS_CAST(x) ((const struct pt_regs *)(x))
#define PT_REGS_SYSCALL_REGS(ctx) ((struct pt_regs *)PT_REGS_PARM1(ctx))
"""

_REGISTERS = {
    "x86_64": {
        "PARM1": "di", "PARM2": "si", "PARM3": "dx", "PARM4": "cx", "PARM5": "r8", "PARM6": "r9", "RC": "ax", "IP": "ip", "SP": "sp",
        "FP": "bp", "RET": "sp", "PARM4_SYSCALL": "r10",
    },
    "aarch64": {
        "PARM1": "regs[0]", "PARM2": "regs[1]", "PARM3": "regs[2]", "PARM4": "regs[3]", "PARM5": "regs[4]", "PARM6": "regs[5]",
        "PARM7": "regs[6]", "PARM8": "regs[7]", "RC": "regs[0]", "IP": "pc", "SP": "sp", "FP": "regs[29]", "RET": "regs[30]",
        "PARM1_SYSCALL": "orig_x0",
    },
}  # fmt: skip

_CORE_READ = """
#define bpf_core_read(dst, size, src) bpf_probe_read_kernel(dst, size, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_user(dst, size, src) bpf_probe_read_user(dst, size, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_str(dst, size, src) bpf_probe_read_kernel_str(dst, size, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_user_str(dst, size, src) bpf_probe_read_user_str(dst, size, (const void *)__builtin_preserve_access_index(src))
#define __bpf_path(args...) ___bpf_apply(__bpf_path, ___bpf_narg(args))(args)
#define __bpf_into(fn, last, dst, src, args...) ___bpf_apply(__bpf_into, ___bpf_narg(args))(fn, last, dst, src, args)
#define __bpf_value(fn, src, args...) ({ __typeof_unqual__(__bpf_path((src), args)) __r; __bpf_into(fn, fn, &__r, src, args); __r; })
#define BPF_CORE_READ(src, args...) __bpf_value(bpf_core_read, src, args)
#define BPF_CORE_READ_USER(src, args...) __bpf_value(bpf_core_read_user, src, args)
#define BPF_PROBE_READ(src, args...) __bpf_value(bpf_probe_read_kernel, src, args)
#define BPF_PROBE_READ_USER(src, args...) __bpf_value(bpf_probe_read_user, src, args)
#define BPF_CORE_READ_INTO(dst, src, args...) __bpf_into(bpf_core_read, bpf_core_read, dst, src, args)
#define BPF_CORE_READ_USER_INTO(dst, src, args...) __bpf_into(bpf_core_read_user, bpf_core_read_user, dst, src, args)
#define BPF_PROBE_READ_INTO(dst, src, args...) __bpf_into(bpf_probe_read_kernel, bpf_probe_read_kernel, dst, src, args)
#define BPF_PROBE_READ_USER_INTO(dst, src, args...) __bpf_into(bpf_probe_read_user, bpf_probe_read_user, dst, src, args)
#define BPF_CORE_READ_STR_INTO(dst, src, args...) __bpf_into(bpf_core_read, bpf_core_read_str, dst, src, args)
#define BPF_CORE_READ_USER_STR_INTO(dst, src, args...) __bpf_into(bpf_core_read_user, bpf_core_read_user_str, dst, src, args)
#define BPF_PROBE_READ_STR_INTO(dst, src, args...) __bpf_into(bpf_probe_read_kernel, bpf_probe_read_kernel_str, dst, src, args)
#define BPF_PROBE_READ_USER_STR_INTO(dst, src, args...) __bpf_into(bpf_probe_read_user, bpf_probe_read_user_str, dst, src, args)
#define BPF_CORE_READ_BITFIELD(s, field) ((unsigned long long)(s)->field)
#define BPF_CORE_READ_BITFIELD_PROBED(s, field) ({ unsigned long long __v = 0; \\
    bpf_probe_read_kernel(&__v, __builtin_preserve_field_info((s)->field, 1), \\
        (const char *)(s) + __builtin_preserve_field_info((s)->field, 0)); \\
    __v <<= __builtin_preserve_field_info((s)->field, 4); \\
    if (__builtin_preserve_field_info((s)->field, 3)) __v = (long long)__v >> __builtin_preserve_field_info((s)->field, 5); \\
    else __v >>= __builtin_preserve_field_info((s)->field, 5); \\
    __v; })
#define __bpf_field1(field) (field)
#define __bpf_field2(type, field) (((typeof(type) *)0)->field)
#define __bpf_field(args...) ___bpf_apply(__bpf_field, ___bpf_narg(args))(args)
#define bpf_core_field_exists(field...) __builtin_preserve_field_info(__bpf_field(field), 2)
#define bpf_core_field_size(field...) __builtin_preserve_field_info(__bpf_field(field), 1)
#define bpf_core_field_offset(field...) __builtin_preserve_field_info(__bpf_field(field), 0)
#define bpf_core_type_id_local(type) __builtin_btf_type_id(*(typeof(type) *)0, 0)
#define bpf_core_type_id_kernel(type) __builtin_btf_type_id(*(typeof(type) *)0, 1)
#define bpf_core_type_exists(type) __builtin_preserve_type_info(*(typeof(type) *)0, 0)
#define bpf_core_type_size(type) __builtin_preserve_type_info(*(typeof(type) *)0, 1)
#define bpf_core_type_matches(type) __builtin_preserve_type_info(*(typeof(type) *)0, 2)
#define bpf_core_enum_value_exists(type, value) __builtin_preserve_enum_value((typeof(type))(value), 0)
#define bpf_core_enum_value(type, value) __builtin_preserve_enum_value((typeof(type))(value), 1)
#define bpf_core_cast(ptr, type) ((typeof(type) *)bpf_rdonly_cast((ptr), bpf_core_type_id_kernel(type)))
"""

_ENDIAN = """
#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohs(x) __builtin_bswap16(x)
#define bpf_htonl(x) __builtin_bswap32(x)
#define bpf_ntohl(x) __builtin_bswap32(x)
#define bpf_cpu_to_be64(x) __builtin_bswap64(x)
#define bpf_be64_to_cpu(x) __builtin_bswap64(x)
"""

_USDT = """
#define BPF_USDT(name, args...) __attribute__((bpf_args("usdt"))) name(struct pt_regs *ctx, ##args)
#define bpf_usdt_arg(ctx, number, result) __builtin_bpf_usdt_readarg((number) + 1, ctx, result)
#define bpf_usdt_arg_size(ctx, number) __builtin_bpf_usdt_arg_size((number) + 1, ctx)
#define bpf_usdt_arg_cnt(ctx) __builtin_bpf_usdt_arg_cnt(ctx)
#define bpf_usdt_cookie(ctx) ((long)bpf_get_attach_cookie(ctx))
"""


def _counting() -> str:
    """`___bpf_narg` counts its arguments; `___bpf_nth` chooses by that; `___bpf_fillN` makes numbers of N arguments."""
    names = [f"_{i}" for i in range(1, _MOST + 1)]
    counts = ", ".join(str(i) for i in range(_MOST, -1, -1))
    lines = [
        f"#define ___bpf_nth(_, {', '.join(names)}, n, ...) n",
        f"#define ___bpf_narg(...) ___bpf_nth(_, ##__VA_ARGS__, {counts})",
        "#define ___bpf_fill0()",
    ]
    for i in range(1, _MOST + 1):
        params = ", ".join(names[:i])
        values = ", ".join(f"(unsigned long long)({name})" for name in names[:i])
        lines.append(f"#define ___bpf_fill{i}({params}) {values}")
    return "\n" + "\n".join(lines)


def _paths() -> str:
    """`__bpf_pathN` joins members to one access; `__bpf_intoN` reads along N members, through a pointer at each but the last."""
    lines: list[str] = []
    for n in range(1, _MOST):
        names = [f"m{i}" for i in range(n)]
        lines.append(f"#define __bpf_path{n}({', '.join(names)}) {'->'.join(names)}")
        hops = ["(src)"] + [f"((typeof((src)->{'->'.join(names[:i])}))__t)" for i in range(1, n)]
        reads = [f"fn(&__t, sizeof(__t), &{hops[i]}->{names[i]});" for i in range(n - 1)]
        reads.append(f"last(dst, sizeof(*(dst)), &{hops[-1]}->{names[-1]})")
        body = f"({{ const void *__t; {' '.join(reads)}; }})" if n > 1 else reads[0]
        lines.append(f"#define __bpf_into{n}(fn, last, dst, src, {', '.join(names)}) {body}")
    return "\n" + "\n".join(lines)


def registers(arch: str) -> str:
    """Return PT_REGS_PARM1 … for a machine, each also as _CORE (read through BPF_CORE_READ), _SYSCALL and _CORE_SYSCALL."""
    table = _REGISTERS.get(arch, {})
    lines: list[str] = []
    for name, member in table.items():
        core = name if "_SYSCALL" not in name else name.replace("_SYSCALL", "_CORE_SYSCALL")
        lines.append(f"#define PT_REGS_{name}(x) (__PT_REGS_CAST(x)->{member})")
        core = core if "_CORE" in core else core + "_CORE"
        lines.append(f"#define PT_REGS_{core}(x) BPF_CORE_READ(__PT_REGS_CAST(x), {member})")
        if name.startswith("PARM") and f"{name}_SYSCALL" not in table and "_SYSCALL" not in name:
            lines.append(f"#define PT_REGS_{name}_SYSCALL(x) PT_REGS_{name}(x)")
            lines.append(f"#define PT_REGS_{name}_CORE_SYSCALL(x) PT_REGS_{name}_CORE(x)")
    return "\n" + "\n".join(lines)


def make_text(name: str) -> str:
    """Return the macros of `bpf/NAME.h`."""
    parts = {
        "bpf_helpers": lambda: _HELPERS + _counting(),
        "bpf_tracing": lambda: _TRACING + _CORE_READ + _paths(),
        "bpf_core_read": lambda: _CORE_READ + _paths(),
        "bpf_endian": lambda: _ENDIAN,
        "usdt.bpf": lambda: _USDT,
    }
    return parts[name]()


# What stands in front of the text when it uses the name.
DEFINITIONS = {"libbpf_tristate": "enum libbpf_tristate { __TRI_NO = 0, __TRI_YES = 1, __TRI_MODULE = 2 };"}

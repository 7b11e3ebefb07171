"""The virtual headers against gcc: numbers against the headers of libc and the kernel, macros by running what they expand to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sonde.lang import constants
from sonde.lang.c.headers import kernel, kernel_group
from sonde.lang.c.options import Options
from sonde.lang.c.preprocessor import preprocess
from sonde.lang.source import Source

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed"),
]

REAL = """
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <signal.h>
#include <sched.h>
#include <fcntl.h>
#include <dirent.h>
#include <unistd.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <net/if_arp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/limits.h>
#include <linux/mount.h>
#include <linux/perf_event.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/xattr.h>
"""
# What a header of user space calls the same and means differently.
DIFFERENT = {"CAP_LAST_CAP", "IP_DF", "IP_MF", "IP_CE", "IP_OFFSET", "SOMAXCONN", "INET6_ADDRSTRLEN"}


def test_numbers_are_those_of_the_installed_headers(tmp_path: Path) -> None:
    tables = [
        constants.SOCKET, constants.SCHED, constants.ERRNO, constants.SIGNAL, constants.FCNTL, constants.STAT, constants.ETHER,
        constants.IN, constants.LIMITS, constants.STDINT, kernel.NUMBERS,
    ]  # fmt: skip
    numbers = {name: value for table in tables for name, value in table.items() if name not in DIFFERENT}
    lines = [REAL]
    for name, value in numbers.items():
        shown = f"{value}ULL" if value >= 1 << 63 else f"({value + 1} - 1)" if value < 0 else str(value)
        lines.append(f'#ifdef {name}\nint found_{name};\n_Static_assert(({name}) == ({shown}), "{name}");\n#endif')
    source = tmp_path / "numbers.c"
    source.write_text("\n".join(lines))
    done = subprocess.run(["gcc", "-w", "-S", "-o", "-", str(source)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("found_") > 250  # else the headers do not say much


def native(tmp_path: Path, text: str, *options: str) -> None:
    """Preprocess a text with the virtual headers, compile what is left with gcc, and run it: main() returns 0."""
    tokens = preprocess(Source("t.c", text), Options("libbpf"))
    left = tmp_path / "left.c"
    left.write_text(" ".join("\n" * t.line_start + t.text for t in tokens if t.kind != "pragma"))
    program = tmp_path / "program"
    flags = [
        "-std=gnu11",
        "-Wall",
        "-Werror",
        "-Wno-unused",
        "-D__typeof_unqual__=__typeof__",  # gcc has it since 14
        "-Wno-cast-qual",
        "-O1",
        "-o",
        str(program),
        str(left),
        *options,
    ]
    done = subprocess.run(["gcc", *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([str(program)], timeout=60).returncode == 0


CONSTANT = """
typedef unsigned short __u16; typedef unsigned int __u32; typedef unsigned long long __u64;
struct pair { int first; long second; char tail[3]; };
#include <linux/kernel.h>
#define CHECK(x) _Static_assert(x, #x)
CHECK(DIV_ROUND_UP(7, 2) == 4); CHECK(DIV_ROUND_CLOSEST(7, 2) == 4); CHECK(roundup(13, 5) == 15); CHECK(rounddown(13, 5) == 10);
CHECK(round_up(13, 8) == 16); CHECK(round_up(16, 8) == 16); CHECK(round_down(15, 8) == 8); CHECK(ALIGN(5, 4) == 8);
CHECK(ALIGN_DOWN(7, 4) == 4); CHECK(IS_ALIGNED(8, 4)); CHECK(!IS_ALIGNED(9, 4)); CHECK(BIT(5) == 32); CHECK(BIT_ULL(63) == 1ULL << 63);
CHECK(GENMASK(7, 4) == 0xf0); CHECK(GENMASK_ULL(63, 60) == 0xf000000000000000ULL); CHECK(BITS_TO_LONGS(65) == 2);
CHECK(ilog2(1024) == 10); CHECK(order_base_2(9) == 4); CHECK(roundup_pow_of_two(17) == 32); CHECK(roundup_pow_of_two(16) == 16);
CHECK(roundup_pow_of_two(1) == 1); CHECK(rounddown_pow_of_two(17) == 16); CHECK(fls(0) == 0); CHECK(fls(8) == 4); CHECK(fls64(1ULL << 40) == 41);
CHECK(is_power_of_2(64)); CHECK(!is_power_of_2(65)); CHECK(lower_32_bits(0x1122334455667788) == 0x55667788);
CHECK(upper_32_bits(0x1122334455667788) == 0x11223344); CHECK(htons(0x1234) == 0x3412); CHECK(cpu_to_be32(0x12345678) == 0x78563412);
CHECK(be64_to_cpu(1) == 1ULL << 56); CHECK(cpu_to_le32(7) == 7); CHECK(__constant_htonl(1) == 1 << 24);
CHECK(offsetof(struct pair, second) == 8); CHECK(offsetofend(struct pair, tail) == 19); CHECK(sizeof_field(struct pair, tail) == 3);
CHECK(S_ISREG(0100644)); CHECK(!S_ISREG(0040755)); CHECK(S_ISDIR(0040755)); CHECK(S_ISSOCK(0140777)); CHECK(S_ISLNK(0120777));
CHECK(MAJOR(MKDEV(8, 17)) == 8); CHECK(MINOR(MKDEV(8, 17)) == 17); CHECK(KERNEL_VERSION(6, 1, 300) == 0x601ff);
CHECK(NSEC_PER_SEC == 1000000000); CHECK(NSEC_PER_MSEC * MSEC_PER_SEC == NSEC_PER_SEC); CHECK(sizeof(__stringify(a b)) == 4);
CHECK(IS_ENABLED(CONFIG_NOTHING) == 0);
#define CONFIG_THIS 1
#define CONFIG_THAT_MODULE 1
CHECK(IS_ENABLED(CONFIG_THIS) && IS_BUILTIN(CONFIG_THIS) && !IS_MODULE(CONFIG_THIS));
CHECK(IS_ENABLED(CONFIG_THAT) && !IS_BUILTIN(CONFIG_THAT) && IS_MODULE(CONFIG_THAT));
CHECK(O_TMPFILE == 020200000); CHECK(ULONG_MAX == ~0UL); CHECK(U64_MAX == ~0ULL); CHECK(INT_MIN < 0 && LLONG_MIN < 0);
CHECK(sizeof(UINT_MAX) == 4 && UINT_MAX > 0 && sizeof(INT_MIN) == 4);
"""


def test_constant_macros(tmp_path: Path) -> None:
    native(tmp_path, CONSTANT + "int main(void) { return 0; }\n")


RUNNING = """
struct inner { long a; struct list { struct list *next, *prev; } node; };
#include <linux/kernel.h>
#define CHECK(x) if (!(x)) return __LINE__
static int calls;
static int once(int x) { calls++; return x; }
int main(void) {
    CHECK(min(once(3), once(4)) == 3 && calls == 2);
    CHECK(max(3, 4) == 4); CHECK(min_t(unsigned char, 30, 20) == 20); CHECK(max_t(long, -1, 1) == 1);
    CHECK(clamp(7, 1, 5) == 5 && clamp(0, 1, 5) == 1 && clamp_t(int, 3, 1, 5) == 3); CHECK(min3(3, 2, 1) == 1); CHECK(max3(1, 3, 2) == 3);
    int a = 1, b = 2; swap(a, b); CHECK(a == 2 && b == 1); CHECK(abs(-5) == 5 && abs(5) == 5);
    unsigned long long n = 1000000007; CHECK(do_div(n, 10) == 7 && n == 100000000);
    struct inner x = {1}; struct list *l = &x.node; CHECK(container_of(l, struct inner, node) == &x);
    x.node.next = &x.node; CHECK(list_first_entry(&x.node, struct inner, node) == &x);
    int array[7]; CHECK(ARRAY_SIZE(array) == 7);
    WRITE_ONCE(a, 9); CHECK(READ_ONCE(a) == 9);
    CHECK(IS_ERR((void *)-2L) && !IS_ERR(&a) && IS_ERR_OR_NULL(NULL) && PTR_ERR(ERR_PTR(-5)) == -5);
    unsigned long bits[2] = {0, 4}; CHECK(test_bit(66, bits) && !test_bit(65, bits));
    CHECK(likely(a) && !unlikely(!a)); barrier();
    CHECK(div_u64(10, 3) == 3 && div64_u64(1ULL << 40, 1ULL << 38) == 4 && mul_u64_u32_shr(1ULL << 40, 6, 10) == 6ULL << 30);
    return 0;
}
"""


def test_macros_that_run(tmp_path: Path) -> None:
    native(tmp_path, RUNNING)


READING = """
typedef unsigned long long u64;
struct leaf { int value; char name[8]; unsigned flag : 3; int small : 5; };
struct node { struct node *next; struct leaf *leaf; struct leaf inside; long number; };
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
static int kernel_reads, user_reads;
static long copy(void *to, unsigned n, const void *from) { for (unsigned i = 0; i < n; i++) ((char *)to)[i] = ((const char *)from)[i]; return 0; }
static long copy_str(void *to, unsigned n, const void *from) {
    unsigned i = 0;
    while (i < n) if (!(((char *)to)[i] = ((const char *)from)[i])) return i + 1; else i++;
    return n;
}
static long bpf_probe_read_kernel(void *to, unsigned n, const void *from) { kernel_reads++; return copy(to, n, from); }
static long bpf_probe_read_user(void *to, unsigned n, const void *from) { user_reads++; return copy(to, n, from); }
static long bpf_probe_read_kernel_str(void *to, unsigned n, const void *from) { kernel_reads++; return copy_str(to, n, from); }
static long bpf_probe_read_user_str(void *to, unsigned n, const void *from) { user_reads++; return copy_str(to, n, from); }
#define CHECK(x) if (!(x)) return __LINE__
int main(void) {
    struct leaf leaf = {42, "name", 5, -3};
    struct node n = {0, &leaf, {7, "inside", 2, 4}, 99};
    n.next = &n;
    struct node *p = &n;
    CHECK(BPF_CORE_READ(p, number) == 99 && kernel_reads == 1);
    CHECK(BPF_CORE_READ(p, leaf, value) == 42 && kernel_reads == 3);
    CHECK(BPF_CORE_READ(p, next, inside.value) == 7 && kernel_reads == 5);
    CHECK(BPF_CORE_READ(p, next, next, next, next, next, next, next, next, next, number) == 99 && kernel_reads == 15);
    CHECK(BPF_CORE_READ_USER(p, next, leaf, value) == 42 && user_reads == 3);
    CHECK(BPF_PROBE_READ(p, next, number) == 99 && BPF_PROBE_READ_USER(p, next, number) == 99);
    int value; CHECK(BPF_CORE_READ_INTO(&value, p, next, next, leaf, value) == 0 && value == 42);
    char name[8]; CHECK(BPF_CORE_READ_STR_INTO(&name, p, leaf, name) == 5 && name[0] == 'n' && name[4] == 0);
    CHECK(BPF_CORE_READ_USER_STR_INTO(&name, p, inside.name) == 7 && name[5] == 'e');
    CHECK(bpf_core_read(&value, sizeof(value), &p->inside.value) == 0 && value == 7);
    CHECK(BPF_CORE_READ(BPF_CORE_READ(p, next), leaf, value) == 42);
    CHECK(BPF_CORE_READ_BITFIELD(&leaf, flag) == 5);
    return 0;
}
"""


def test_reads_along_pointers(tmp_path: Path) -> None:
    native(tmp_path, READING, "-D__builtin_preserve_access_index(x)=(x)")


PRINTING = """
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
typedef unsigned long long u64;
static u64 seen[16]; static int count; static const char *text;
static long bpf_trace_printk(const char *fmt, unsigned size, ...) { text = fmt; count = -(int)size; return 0; }
static long bpf_trace_vprintk(const char *fmt, unsigned size, const void *data, unsigned bytes) {
    text = fmt; count = bytes / 8;
    for (int i = 0; i < count; i++) seen[i] = ((const u64 *)data)[i];
    return size;
}
static long bpf_snprintf(char *out, unsigned size, const char *fmt, const void *data, unsigned bytes) { count = bytes; return size; }
#define CHECK(x) if (!(x)) return __LINE__
int main(void) {
    bpf_printk("hi"); CHECK(count == -3);
    bpf_printk("%d %d %d", 1, 2, 3); CHECK(count == -9);
    bpf_printk("%d %d %d %p", 1, 2, -3, &count); CHECK(count == 4 && seen[2] == -3ull && seen[3] == (u64)&count);
    bpf_printk("", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12); CHECK(count == 12 && seen[11] == 12);
    char out[8]; BPF_SNPRINTF(out, sizeof(out), "%d %d", 1, 2); CHECK(count == 16);
    BPF_SNPRINTF(out, sizeof(out), "x"); CHECK(count == 0);
    CHECK(bpf_htons(0x1234) == 0x3412 && bpf_ntohl(1) == 1 << 24 && bpf_cpu_to_be64(1) == 1ull << 56);
    return 0;
}
"""


def test_printing(tmp_path: Path) -> None:
    native(tmp_path, PRINTING)


def test_bcc_functions(tmp_path: Path) -> None:
    text = """
int main(void) {
    if (bpf_log2(1) != 0 || bpf_log2(2) != 1 || bpf_log2(0xffffffff) != 31 || bpf_log2(0) != 0) return 1;
    if (bpf_log2l(0) != 1 || bpf_log2l(1) != 1 || bpf_log2l(2) != 2 || bpf_log2l(1ul << 32) != 33 || bpf_log2l(~0ul) != 64) return 2;
    if (bpf_ntoh128(bpf_hton128(5)) != 5 || (unsigned char)bpf_ntoh128((unsigned __int128)7 << 120) != 7) return 3;
    if (MASK(3) != 7 || MASK(64) != ~0ull || MASK128(65) >> 64 != 1) return 4;
    return 0;
}
"""
    tokens = preprocess(Source("t.c", text), Options("bcc"))
    left = tmp_path / "left.c"
    left.write_text(" ".join(t.text for t in tokens))
    subprocess.run(["gcc", "-o", str(tmp_path / "p"), str(left)], check=True, timeout=60)
    assert subprocess.run([str(tmp_path / "p")], timeout=60).returncode == 0


def test_every_kernel_macro_is_one() -> None:
    names = [name for name, definition in kernel_group().items() if isinstance(definition, (str, int))]
    assert len(names) > 500
    text = "#include <linux/kernel.h>\n" + "\n".join(f"#ifndef {name}\n#error {name}\n#endif\n{name}" for name in names)
    preprocess(Source("t.c", text), Options("bcc"))

"""The analysis of C on texts that are nearly right: whatever a mutation makes of a program, it is analysed or refused with a CompileError."""

from __future__ import annotations

import pytest
from c_analysed import small_target
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.errors import CompileError
from sonde.lang.c.environment import Environment
from sonde.lang.c.parser import parse
from sonde.lang.c.tokens import tokenize
from sonde.lang.c.types_unit import analyse
from sonde.lang.source import Source

BCC = """
typedef struct { u32 pid; char comm[TASK_COMM_LEN]; } key_t;
struct event { key_t key; u64 ts; union { int ret; unsigned bits : 3; }; enum { FIRST, SECOND = 5 } kind; };
struct packet { unsigned a : 4, b : 12; unsigned long long c : 48; } __attribute__((packed, deprecated("packet")));
__bcc_table("hash", key_t, struct event, start, 10240, 0);
__bcc_table("histogram", int, u64, dist, 64, 0);
__bcc_table("perf_output", int, u32, events, 0, 0);
__bcc_table("stacktrace", int, u64, stacks, 1024, 0);
static const int limits[] = { [1] = 10, 20, [5 ... 7] = 3 };
static inline int scale(int value, const int *by) { return value * by[1] / 10; }
static u64 (*clock)(void) = (void *)5;
int entry(struct pt_regs *ctx, struct task_struct *task)
{
    key_t key = { .pid = bpf_get_current_pid_tgid() >> 32 };
    struct event event = { .key.comm = "abc", .ret = -1, .kind = SECOND }, *found;
    bpf_get_current_comm(&key.comm, sizeof(key.comm));
    found = start.lookup_or_try_init(&key, &event);
    if (!found || task->real_parent->pid == 0) goto out;
    for (int i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        if (key.comm[i & 15] == 'x') continue;
        found->ret += scale(i, limits) ?: 1;
    }
    switch (event.kind) { case FIRST: break; case 2 ... 4: return 1; default: found->bits = 5; }
    typeof(event.ts) now = clock();
    __sync_fetch_and_add(&found->ts, now - task->whole);
    dist.increment(({ int slot = now > 5 ? 1 : 2; slot; }));
    event = *found;
    events.perf_submit(ctx, &event, sizeof(event));
    bpf_trace_printk("%d %s\\n", (int)event.ts, key.comm);
    return stacks.get_stackid(ctx, 0);
out:
    do { key.pid--; } while (key.pid > __builtin_offsetof(struct event, kind));
    return _Generic(key.pid, unsigned: 1, default: 0) + __builtin_types_compatible_p(u32, int);
}
"""
LIBBPF = """
struct inner { int (*type)[2]; u32 *key; u64 *value; int (*max_entries)[1]; } first __attribute__((section(".maps")));
struct { int (*type)[12]; int (*max_entries)[4]; u32 *key; struct inner *values[]; } outer __attribute__((section(".maps")))
    = { .values = { &first, [2] = &first } };
const volatile int wanted = 5;
char license[] __attribute__((section("license"))) = "GPL";
extern int do_something(struct task_struct *task, u32 flags) __attribute__((section(".ksyms")));
static long each(u32 index, void *data) { *(u64 *)data += index; return 0; }
__attribute__((section("kprobe/f"))) int f(struct pt_regs *ctx)
{
    u32 zero = 0; u64 sum = 0, *value;
    struct task_struct *task = (void *)bpf_get_current_task();
    struct inner *in = bpf_map_lookup_elem(&outer, &zero);
    if (in && (value = bpf_map_lookup_elem(in, &zero))) sum += __atomic_load_n(value, 0);
    bpf_loop(10, each, &sum, 0);
    unsigned __int128 wide = (unsigned __int128)sum << 64 | ctx->di;
    if (__builtin_preserve_field_info(task->pid, 2)) return do_something(task, (u32)(wide >> 3));
    asm volatile("%0 = %1" : "=r"(sum) : "r"(zero));
    return __builtin_add_overflow(sum, wanted, &sum) ? -1 : ((struct inner){}).type == 0;
}
"""


def words_of(text: str) -> list[str]:
    """The tokens of a text, as written."""
    return [token.text for token in tokenize(Source("x.c", text)) if token.kind != "end"]


def check(text: str, dialect: str) -> bool:
    """Analyse a text; tell whether it was accepted."""
    environment = Environment(small_target())
    source = Source("x.c", text)
    try:
        unit = parse(tokenize(source), environment.is_type_name)
        analyse(unit, environment, dialect=dialect, main=source)
    except CompileError as error:
        assert all(d.render() for d in error.diagnostics)
        return False
    return True


@pytest.mark.parametrize(("text", "dialect"), [(BCC, "bcc"), (LIBBPF, "libbpf")])
def test_the_texts_are_right(text: str, dialect: str) -> None:
    assert check(text, dialect)
    assert check(" ".join(words_of(text)), dialect)


_CHANGES = st.tuples(st.sampled_from(["drop", "double", "swap", "take"]), st.integers(0, 10**6), st.integers(0, 10**6))


@pytest.mark.parametrize(("text", "dialect"), [(BCC, "bcc"), (LIBBPF, "libbpf")])
@settings(max_examples=400, deadline=None)
@given(changes=st.lists(_CHANGES, min_size=1, max_size=4))
def test_mutations(text: str, dialect: str, changes: list[tuple[str, int, int]]) -> None:
    words = words_of(text)
    for change, first, second in changes:
        at, other = first % len(words), second % len(words)
        if change == "drop":
            del words[at]
        elif change == "double":
            words.insert(at, words[at])
        elif change == "swap":
            words[at], words[other] = words[other], words[at]
        else:
            words[at] = words[other]
    check(" ".join(words), dialect)

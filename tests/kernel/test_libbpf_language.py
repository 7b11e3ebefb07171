"""What libbpf's headers and newer kernels give to C: iterators in loops, clean-ups, callbacks, global functions. Programs of type `syscall`, run here."""

from __future__ import annotations

import os

import pytest

from sonde.errors import CompileError, SondeError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.lang.c.options import Options
from sonde.lang.c.sections import compile_object
from sonde.lang.source import Source
from sonde.spec.target import Target

pytestmark = pytest.mark.kernel
HEAD = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""


def result(body: str, before: str = "") -> int:
    """What `body` returns, as a program of its own."""
    text = f'{HEAD}{before}\nSEC("syscall") int f(void *ctx)\n{{\n{body}\n}}\n'
    with KernelEngine().load(compile_object(Source("x.bpf.c", text), live_target(), Options())) as loaded:
        return loaded.run("f")


def need_iterators() -> None:
    if live_target().btf().get_func("bpf_iter_num_new") is None:
        pytest.skip("this kernel has no open-coded iterators")


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("int i, n = 0; bpf_for(i, 3, 10) n += i; return n;", 42),
        (
            "int i, n = 0, a[16] = {}; bpf_for(i, 0, 16) { if (i == 12) break; a[i & 15] = i; n += a[i & 15]; } return n;",
            66,
        ),
        ("int i, n = 0; bpf_for(i, 0, 16) { if (i & 1) continue; n += i; } return n;", 56),
        ("int i; bpf_for(i, 0, 100) if (i * i > 50) return i; return 0;", 8),
        ("int i, j, n = 0; bpf_for(i, 0, 5) bpf_for(j, 0, i) n++; return n;", 10),
        ("int n = 0; bpf_repeat(10) n++; return n;", 10),
        ("int *v, n = 0; bpf_for_each(num, v, 0, 5) n += *v; return n;", 10),
        ("int i, n = 0; bpf_for(i, 0, 9) { if (i == 4) goto out; n += i; } n = 100; out: return n;", 6),
    ],
)
def test_iterators_in_loops(body: str, wanted: int) -> None:
    need_iterators()
    assert result(body) == wanted


def test_tasks_are_iterated() -> None:
    need_iterators()
    body = """
    struct task_struct *t;
    int n = 0;
    bpf_rcu_read_lock();
    bpf_for_each(task, t, NULL, BPF_TASK_ITER_ALL_PROCS)
        n += t->pid == OURS;
    bpf_rcu_read_unlock();
    return n;
    """
    assert result(body.replace("OURS", str(os.getpid()))) == 1


CLEANING = """
int trail;
static void note(int *p) { trail = trail * 10 + *p; }
#define NOTED(name, value) int name __attribute__((cleanup(note))) = value
static int inner(int way)
{
    NOTED(a, 1);
    if (way == 1) { NOTED(b, 2); return trail + 100 * a; }
    for (int i = 0; i < 3; i++) {
        NOTED(c, 3 + i);
        if (way == 2 && i == 1)
            break;
        if (way == 3 && i == 1)
            goto out;
        if (way == 4)
            continue;
    }
    ({ NOTED(d, 7); d; });
out:
    return 0;
}
"""


@pytest.mark.parametrize(("way", "trail"), [(1, 21), (2, 3471), (3, 341), (4, 34571)])
def test_cleanups_run_wherever_a_scope_is_left(way: int, trail: int) -> None:
    assert result(f"inner({way}); return trail;", CLEANING) == trail


def test_a_value_is_returned_as_it_was_before_the_cleanups() -> None:
    assert result("return inner(1);", CLEANING) == 100


CALLED = """
struct sum { int n; };
static long add(u32 i, void *ctx) { struct sum *s = ctx; s->n += i; return i == 5; }
static __noinline int twice(int a) { return a * 2; }
__noinline int store(int a, int *p) { if (!p) return 0; *p = a; return twice(a); }
__weak int weak(struct sum *s) { return s ? s->n + 1 : 0; }
"""


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("struct sum s = {}; bpf_loop(10, add, &s, 0); return s.n;", 15),
        ("int x = 0; return store(4, &x) * 10 + x;", 84),
        ("struct sum s = { 6 }; return weak(&s);", 7),
    ],
)
def test_functions_that_are_called_back_or_global(body: str, wanted: int) -> None:
    assert result(body, CALLED) == wanted


def test_an_iterator_that_the_kernel_has_not() -> None:
    live = live_target()

    class Without:
        """The kernel's BTF without one function."""

        def __getattr__(self, name: str) -> object:
            return getattr(live.btf(), name)

        def get_func(self, name: str) -> object:
            return None if name.startswith("bpf_iter_num") else live.btf().get_func(name)

    target = Target(live.arch, "5.15", 4096, 2, live.features, Without, live.tracepoint, live.ksym, live.kconfig)  # type: ignore[arg-type]
    text = f'{HEAD}SEC("syscall") int f(void *ctx) {{ int i; bpf_for(i, 0, 3); return i; }}'
    with pytest.raises(CompileError) as caught:
        compile_object(Source("x.bpf.c", text), target, Options())
    assert "5.15 has no such iterator" in caught.value.diagnostics[0].hint


NEWER = {
    "arenas": ("bpf_arena_alloc_pages", '''
struct { __uint(type, BPF_MAP_TYPE_ARENA); __uint(map_flags, BPF_F_MMAPABLE); __uint(max_entries, 10); } arena SEC(".maps");
SEC("tc") int f(struct __sk_buff *skb) { return 0; }'''),
    "work queues": ("bpf_wq_init", '''
struct job { struct bpf_wq wq; int n; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, struct job); } jobs SEC(".maps");
static int later(void *map, int *key, void *value) { struct job *job = value; job->n += *key + 1; return 0; }
SEC("tc") int f(struct __sk_buff *skb)
{
    int key = 0;
    struct job *job = bpf_map_lookup_elem(&jobs, &key);
    if (!job || bpf_wq_init(&job->wq, &jobs, 0))
        return 0;
    bpf_wq_set_callback_impl(&job->wq, later, 0, NULL);
    return bpf_wq_start(&job->wq, 0);
}'''),
    "kernel pointers": ("bpf_task_acquire", '''
struct v { struct task_struct __kptr *task; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, int); __type(value, struct v); } m SEC(".maps");
SEC("tp_btf/task_newtask") int BPF_PROG(f, struct task_struct *task, u64 flags)
{
    int key = 0;
    struct v zero = {}, *v;
    struct task_struct *t, *old;
    bpf_map_update_elem(&m, &key, &zero, 0);
    if (!(v = bpf_map_lookup_elem(&m, &key)) || !(t = bpf_task_acquire(task)))
        return 0;
    if ((old = bpf_kptr_xchg(&v->task, t)))
        bpf_task_release(old);
    return 0;
}'''),
    "slices of packets": ("bpf_dynptr_from_xdp", '''
SEC("xdp") int f(struct xdp_md *ctx)
{
    struct bpf_dynptr p;
    char room[14];
    struct ethhdr *eth;
    if (bpf_dynptr_from_xdp(ctx, 0, &p))
        return XDP_DROP;
    eth = bpf_dynptr_slice(&p, 0, room, sizeof(room));
    return eth && eth->h_proto == 8 ? XDP_PASS : XDP_DROP;
}'''),
}  # fmt: skip


@pytest.mark.parametrize("name", NEWER)
def test_newer_things_are_accepted(name: str) -> None:
    function, text = NEWER[name]
    if live_target().btf().get_func(function) is None:
        pytest.skip(f"this kernel has no {function}")
    head = HEAD + "#include <bpf/bpf_tracing.h>\n"
    spec = compile_object(Source("x.bpf.c", head + text), live_target(), Options())
    assert not spec.warnings
    KernelEngine().load(spec).close()


def test_a_kernel_function_that_may_not_be_there() -> None:
    before = "extern int nothere_at_all(int) __ksym __weak;\nextern void bpf_rcu_read_lock(void) __ksym __weak;\n"
    assert result("return bpf_ksym_exists(nothere_at_all) ? nothere_at_all(3) : 1;", before) == 1
    assert result("return bpf_ksym_exists(bpf_rcu_read_lock);", before) == int(
        live_target().btf().get_func("bpf_rcu_read_lock") is not None
    )


def test_variables_of_the_kernel_by_their_types() -> None:
    """Per-CPU data through the helpers for it; their types, not the list of symbols, say where they are."""
    if live_target().btf().get_var("runqueues") is None:
        pytest.skip("this kernel's BTF has no per-CPU variables")
    if not live_target().ksym("runqueues"):
        pytest.skip("this kernel does not know where its variables are (CONFIG_KALLSYMS_ALL): shown in the guests")
    before = "extern const struct rq runqueues __ksym;\n"
    body = """
    const struct rq *first = bpf_per_cpu_ptr(&runqueues, 0), *mine = bpf_this_cpu_ptr(&runqueues);
    const struct rq *none = bpf_per_cpu_ptr(&runqueues, 100000);
    return first ? first->cpu + 10 * (mine->cpu == bpf_get_smp_processor_id()) + 100 * !none : -1;
    """
    assert result(body, before) == 110


def test_a_map_without_entries_says_what_is_missing() -> None:
    text = f"""{HEAD}
    struct {{ __uint(type, BPF_MAP_TYPE_HASH); __type(key, u32); __type(value, u64); }} m SEC(".maps");
    SEC("syscall") int f(void *ctx) {{ u32 k = 0; return bpf_map_lookup_elem(&m, &k) != 0; }}
    """
    spec = compile_object(Source("x.bpf.c", text), live_target(), Options())
    with pytest.raises(SondeError) as caught:
        KernelEngine().load(spec)
    assert "max_entries" in caught.value.hint

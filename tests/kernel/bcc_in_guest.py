"""BCC programs on the kernel of a guest: C of our own as programs of types that not every kernel lets us load, and some of Debian's tools."""

from __future__ import annotations

import os
import sys

from bcc_texts import record
from kernel.test_bcc_tool_programs import compile_tool

from sonde.errors import SondeError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.lang.c.compile import compile_c
from sonde.lang.c.options import Entry, Options
from sonde.lang.source import Source
from sonde.spec.object import ObjectSpec

TYPES = {
    "fentry": (Entry("tracing", "trace_fentry", "vfs_read"), """
BPF_HASH(h, u64); KFUNC_PROBE(vfs_read, struct file *file, char *buf, size_t count)
{ u64 n = file->f_path.dentry->d_name.len + count + buf[0]; h.increment(n); return 0; }"""),
    "fexit": (Entry("tracing", "trace_fexit", "vfs_read"), """
BPF_HASH(h, u64); KRETFUNC_PROBE(vfs_read, struct file *file, char *buf, size_t count, loff_t *pos, long ret)
{ u64 n = ret + file->f_inode->i_ino; h.increment(n); return 0; }"""),
    "tp_btf": (Entry("tracing", "trace_raw_tp", "sched_process_exec"), """
int f(unsigned long long *ctx) { struct task_struct *t = (void *)ctx[0]; return t->real_parent->tgid; }"""),
    "iter": (Entry("tracing", "trace_iter", "task"), """
BPF_HASH(h); int f(struct bpf_iter__task *ctx) { struct task_struct *t = ctx->task; if (!t) return 0; u64 n = t->pid; h.increment(n); return 0; }"""),
    "kprobe": (Entry("kprobe"), """
BPF_HASH(h, u64); int f(struct pt_regs *ctx, struct file *file) { u64 n = file->f_path.dentry->d_inode->i_ino; h.increment(n); return 0; }"""),
    "syscall": (Entry("kprobe"), """
BPF_HASH(h, u64); int syscall__openat(struct pt_regs *ctx, int dfd, const char __user *name, int flags, int mode)
{ char path[64]; bpf_probe_read_user_str(path, sizeof(path), name); u64 n = path[0] + name[1] + mode; h.increment(n); return 0; }"""),
    "index": (Entry("raw_tracepoint"), """
struct counts { u64 of[69]; }; struct last { u64 id; struct counts counts; };
BPF_PERCPU_ARRAY(zero, struct counts, 1); BPF_HASH(by_id, u64, struct counts); BPF_PERCPU_ARRAY(cache, struct last, 1);
int f(struct bpf_raw_tracepoint_args *ctx) {
  int key = 0; u32 index = ctx->args[0]; if (index >= 69) return 0;
  u64 id = bpf_get_current_pid_tgid(); bool other = id & 1;
  struct last *last = cache.lookup(&key); struct counts *counts = NULL;
  if (!last) return 0;
  if (last->id == id) counts = &last->counts;
  else {
    other = 1; counts = by_id.lookup(&id);
    if (!counts) {
      struct counts *fresh = zero.lookup(&key);
      if (!fresh) return 0;
      by_id.update(&id, fresh); counts = by_id.lookup(&id);
      if (!counts) return 0;
    }
  }
  counts->of[index]++;
  if (other) { by_id.update(&last->id, &last->counts); last->id = id; bpf_probe_read(&last->counts, sizeof(*counts), counts); }
  return 0; }"""),
    "socket": (Entry("socket_filter"), """
#include <bcc/proto.h>
int f(struct __sk_buff *skb) { u8 *cursor = 0; struct ethernet_t *e = cursor_advance(cursor, sizeof(*e)); return e->type == 0x800 ? -1 : 0; }"""),
}  # fmt: skip


def types() -> int:
    """Load a program of each type that this kernel has."""
    bad = 0
    for name, (entry, text) in TYPES.items():
        if entry.type == "tracing" and not live_target().features.have(
            f"program:tracing:{entry.attach_type.removeprefix('trace_')}"
        ):
            print(f"{name}: not on this kernel")
            continue
        unit = compile_c(Source("t.c", text), live_target(), Options())
        compiled = unit.compile_program(unit.programs[0], entry)
        bad += _load(name, ObjectSpec((compiled.program,), (*unit.maps, *compiled.maps)))
    return bad


def tools() -> int:
    """Compile and load the programs of the tools that are named, as each wants them on this kernel."""
    bad = 0
    for tool in sys.argv[1:]:
        recorded = record(tool, kfunc=live_target().features.have("program:tracing:fentry"))
        assert recorded["texts"], recorded
        for text in recorded["texts"]:
            unit, programs = compile_tool(tool, text)
            for compiled in programs:
                bad += _load(
                    f"{tool} {compiled.program.name}", ObjectSpec((compiled.program,), (*unit.maps, *compiled.maps))
                )
    return bad


def _load(name: str, spec: ObjectSpec) -> int:
    try:
        with KernelEngine().load(spec):
            print(f"{name}: {len(spec.programs[0].insns) // 8} instructions on {os.uname().release}")
            return 0
    except SondeError as error:
        print(f"{name}: {error.render()}\n{getattr(error, 'log', '')[-1500:]}")
        return 1

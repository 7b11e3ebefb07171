"""Kernel pointers that BCC's rewriter of source text loses or refuses: kept in maps, structs and arrays, handed through functions and macros, chosen,
cast, walked along. Here they are found by their types. Each program reads what is known of this process."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from kernel.test_c_programs import outputs, run

pytestmark = pytest.mark.kernel
TASK = "struct task_struct *t = (struct task_struct *)bpf_get_current_task();\n"
BEFORE = """
#include <linux/sched.h>
#include <linux/cred.h>
#include <linux/fs.h>
#define TGID(task) ((task)->tgid)
#define PARENT(task) ((task)->real_parent)
#define FIRST_LETTER(task) ((task)->comm[0])
#define LOOK_UP(table, key) ({ struct kept *__k = table.lookup(&(key)); __k; })
#define of_member(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
struct kept { struct task_struct *task; u64 spare; struct { struct task_struct *parent; } in[2]; };
static struct task_struct *parent_of(struct task_struct *task) { return task->real_parent; }
static int tgid_of(const struct task_struct *task) { return task->tgid; }
static int through(struct task_struct **task) { return (*task)->tgid; }
static struct task_struct *chosen(struct task_struct *a, struct task_struct *b, int first) { return first ? a : b; }
static u32 distance_to(struct task_struct *task, u32 tgid)
{
    u32 n = 0;
    for (; n < 40 && task->tgid != tgid; n++)
        task = task->real_parent;
    return n;
}
"""
TABLES = "BPF_HASH(h, u32, struct kept); BPF_ARRAY(single, struct task_struct *, 1);"


def me() -> int:
    return os.getpid()


def parent() -> int:
    return os.getppid()


def letter() -> int:
    with open("/proc/self/comm", "rb") as file:
        return file.read(1)[0]


def grandparent() -> int:
    return ppid_of(os.getppid())


def ppid_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


CASES: dict[str, tuple[str, Callable[[], int]]] = {
    "kept in a map's value": ("struct task_struct **k; int z = 0; single.update(&z, &t); k = single.lookup(&z); if (k) put(0, (*k)->tgid);", me),
    "kept in a struct in a map": ("u32 k = 1; struct kept v = { t }, *p; h.update(&k, &v); p = h.lookup(&k); if (p) put(0, p->task->real_parent->tgid);", parent),
    "in an array in a struct in a map": ("u32 k = 1; struct kept v = {}, *p; v.in[1].parent = t->real_parent; h.update(&k, &v); p = h.lookup(&k); if (p) put(0, p->in[1].parent->tgid);", parent),
    "a method within a macro": ("u32 k = 1; struct kept v = { t }, *p; h.update(&k, &v); p = LOOK_UP(h, k); if (p) put(0, p->task->tgid);", me),
    "in a local struct": ("struct kept v = { .task = t }; put(0, v.task->tgid);", me),
    "in a local array": ("struct task_struct *both[2] = { t, t->real_parent }; int i = bpf_get_smp_processor_id() & 0; put(0, both[1 - i]->tgid);", parent),
    "what a function returns": ("put(0, parent_of(t)->tgid);", parent),
    "what a function of a function returns": ("put(0, tgid_of(parent_of(parent_of(t))));", grandparent),
    "by the address of a pointer": ("put(0, through(&t));", me),
    "macros that read": ("put(0, TGID(PARENT(t)));", parent),
    "macros that index": ("put(0, FIRST_LETTER(t));", letter),
    "a choice": ("int z = t->tgid > 0; put(0, (z ? t : t->real_parent)->tgid);", me),
    "a choice in a function": ("put(0, chosen(t, t->real_parent, t->tgid == 0)->tgid);", parent),
    "the default of a choice": ("struct task_struct *none = 0; put(0, (none ?: t)->tgid);", me),
    "cast to a number and back": ("u64 n = (u64)t; put(0, ((struct task_struct *)n)->tgid);", me),
    "arithmetic on bytes": ("char *at = (char *)t + offsetof(struct task_struct, tgid); put(0, *(int *)at);", me),
    "the struct around a member": ("struct list_head *l = &t->tasks; put(0, of_member(l, struct task_struct, tasks)->tgid);", me),
    "a statement as an expression": ("put(0, ({ struct task_struct *p = t->real_parent; p; })->tgid);", parent),
    "a comma": ("put(0, (bpf_ktime_get_ns(), t)->tgid);", me),
    "an assignment": ("struct task_struct *p; put(0, (p = t->real_parent)->tgid);", parent),
    "walked along in a loop": ("put(0, distance_to(t, GRANDPARENT));", lambda: 2),
    "characters of a variable index": ("int i = bpf_get_smp_processor_id() & 0; put(0, t->comm[i]);", letter),
    "a pointer that moves": ("char *c = t->comm; c += bpf_get_smp_processor_id() & 0; put(0, *c++);", letter),
    "several levels and an array": ("struct file **fds = t->files->fdt->fd; put(0, fds[0]->f_path.dentry->d_name.name[0] != 0);", lambda: 1),
    "bit-fields": ("put(0, t->in_execve + t->sched_reset_on_fork + 1);", lambda: 1),
    "a copy of a struct": ("struct cred c = *t->real_cred; put(0, c.uid.val);", os.getuid),
    "a member of a struct that a function gets": ("put(0, t->real_cred->user_ns->ns.inum != 0);", lambda: 1),
    "conditions and comparisons": ("if (t->real_parent != t && t->real_parent->tgid && !(t->flags & 0x00200000)) put(0, 1);", lambda: 1),
    "a switch": ("switch (t->real_parent->tgid == t->tgid) { case 0: put(0, 5); break; default: put(0, 6); }", lambda: 5),
    "within sizeof and typeof nothing is read": ("typeof(t->comm) copy; __builtin_memset(copy, 1, sizeof(t->comm)); put(0, sizeof(copy) + copy[3]);", lambda: 17),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_pointers(name: str) -> None:
    body, wanted = CASES[name]
    body = body.replace("GRANDPARENT", str(grandparent()))
    with run(TASK + body, "", BEFORE + TABLES) as loaded:
        assert outputs(loaded, 1) == [wanted()]

"""What a program takes and must give back, or may use for a time only: locks, timers, kernel pointers, references, iterators, dynptrs, RCU."""

from __future__ import annotations

import pytest

from sonde.bpf.asm import assemble
from sonde.bpf.isa import CALL, iter_pcs
from sonde.bpf.verifier import MapInfo, Verdict, verify
from sonde.debuginfo.ctype import Int, Member, Pointer, Struct

MAPS = {
    1: MapInfo("locked", "array", 4, 24, 1, special=((8, 12, "spin_lock"),)),
    2: MapInfo("alarms", "array", 4, 24, 1, special=((0, 16, "timer"),)),
    3: MapInfo("kept", "array", 4, 16, 1, special=((8, 16, "kptr:task_struct"),)),
    4: MapInfo("ring", "ringbuf", 0, 0, 4096),
    5: MapInfo("bytes", "array", 4, 64, 1),
    6: MapInfo("commands", "user_ringbuf", 0, 0, 4096),
    7: MapInfo("storage", "task_storage", 4, 8),
    8: MapInfo("others", "array", 4, 16, 1, special=((0, 16, "list"),)),
}
INT = Int("int", 4, True)
MM = Struct("struct", "mm_struct", 8, (Member("pages", INT, 0),))
TASK = Struct("struct", "task_struct", 32, lambda: (
    Member("pid", INT, 0), Member("tgid", INT, 32), Member("real_parent", Pointer(TASK, tag="rcu"), 64),
    Member("group_leader", Pointer(TASK), 128), Member("mm", Pointer(MM), 192),
))  # fmt: skip
VMA = Struct("struct", "vm_area_struct", 16, (Member("vm_start", INT, 0),))
STRUCTS = {"task_struct": TASK, "mm_struct": MM, "vm_area_struct": VMA}


def check(text: str, kind: str = "tracing", attach: str = "trace_raw_tp", *, sleepable: bool = False) -> Verdict:
    """The verdict on a program; `kfunc NAME` calls a kernel function."""
    names, lines = [], []
    for line in text.strip().split("\n"):
        before, found, name = line.partition("kfunc ")
        names += [name] if found else []
        lines.append(f"{before}call kfunc#{len(names)}" if found else line)
    insns = assemble("\n".join(lines))
    kfuncs = {pc: names[i.imm - 1] for pc, i in iter_pcs(insns) if i.opcode == CALL and i.src == 2}
    return verify(
        insns,
        kind,
        MAPS,
        types=(Pointer(TASK), INT),
        find_struct=STRUCTS.get,
        kfuncs=kfuncs,
        attach_type=attach,
        sleepable=sleepable,
        max_insns=1_500,
    )


def value(number: int) -> str:
    """r6 is a value of a map, or the program ends."""
    return f"*(u32 *)(r10 -4) = 0\nr2 = r10\nr2 += -4\nr1 = map[fd:{number}]\ncall map_lookup_elem\nif r0 == 0 goto out\nr6 = r0\n"


END = "out: r0 = 0\nexit\n"
LOCK, UNLOCK = "r1 = r6\nr1 += 8\ncall spin_lock\n", "r1 = r6\nr1 += 8\ncall spin_unlock\n"
TIMER = "r1 = r6\nr2 = map[fd:2]\nr3 = 1\ncall timer_init\n"
CALLBACK = "r1 = r6\nr2 = subprog[ring]\ncall timer_set_callback\n"
CURRENT = "call get_current_task_btf\nr6 = r0\n"
ACQUIRE = CURRENT + "r1 = r6\nkfunc bpf_task_acquire\nif r0 == 0 goto out\nr7 = r0\n"
RELEASE = "r1 = r7\nkfunc bpf_task_release\n"
NEW = "r1 = r10\nr1 += -8\nr2 = 0\nr3 = 16\nkfunc bpf_iter_num_new\n"
NEXT, DESTROY = "r1 = r10\nr1 += -8\nkfunc bpf_iter_num_next\n", "r1 = r10\nr1 += -8\nkfunc bpf_iter_num_destroy\n"
LOOP = f"again: {NEXT}if r0 == 0 goto done\n"
DYNPTR = "r1 = map[fd:4]\nr2 = 64\nr3 = 0\nr4 = r10\nr4 += -16\ncall ringbuf_reserve_dynptr\n"
SUBMIT = "r1 = r10\nr1 += -16\nr2 = 0\ncall ringbuf_submit_dynptr\n"
SLICE = "r1 = r10\nr1 += -16\nr2 = 0\nr3 = 8\ncall dynptr_data\n"
LOCAL = value(5) + "r1 = r6\nr2 = 64\nr3 = 0\nr4 = r10\nr4 += -24\ncall dynptr_from_mem\n"

ACCEPTED = {
    "a lock": value(1) + LOCK + "r1 = *(u64 *)(r6 +0)\nr1 += 1\n*(u64 *)(r6 +0) = r1\n" + UNLOCK + END,
    "a lock given back on both paths": value(1) + LOCK + "r7 = *(u64 *)(r6 +0)\nif r7 > 5 goto big\n" + UNLOCK + "goto out\nbig: " + UNLOCK + END,
    "a timer": value(2) + TIMER + CALLBACK + "r1 = r6\nr2 = 1000\nr3 = 0\ncall timer_start\n" + END + "ring: *(u64 *)(r3 +16) = 1\nr0 = 0\nexit",
    "a timer that starts itself again": value(2) + TIMER + CALLBACK + END + "ring: r1 = r3\nr2 = 9\nr3 = 0\ncall timer_start\nr0 = 0\nexit",
    "a reference": ACQUIRE + "r1 = *(u32 *)(r7 +0)\n" + RELEASE + END,
    "what the program was handed": "r1 = *(u64 *)(r1 +0)\nr0 = *(u32 *)(r1 +4)\nr0 = 0\nexit",
    "a task put into a map": value(3) + "r8 = r6\n" + ACQUIRE + "r1 = r8\nr1 += 8\nr2 = r7\ncall kptr_xchg\nif r0 == 0 goto out\nr7 = r0\n" + RELEASE + END,
    "null put into a map": value(3) + "r1 = r6\nr1 += 8\nr2 = 0\ncall kptr_xchg\nif r0 == 0 goto out\nr7 = r0\n" + RELEASE + END,
    "what a map keeps, looked at": value(3) + "r1 = *(u64 *)(r6 +8)\nr0 = *(u32 *)(r1 +0)\n" + END,
    "an iterator": NEW + LOOP + "r1 = *(u32 *)(r0 +0)\ngoto again\ndone: " + DESTROY + END,
    "an iterator with a count": "r6 = 0\n" + NEW + LOOP + "r6 += 1\ngoto again\ndone: " + DESTROY + END,
    "an iterator's number as an index": value(5) + NEW + LOOP + "r1 = *(u32 *)(r0 +0)\nif r1 > 63 goto again\nr2 = r6\nr2 += r1\n*(u8 *)(r2 +0) = 1\ngoto again\ndone: " + DESTROY + END,
    "iterators in each other": NEW + LOOP + "r1 = r10\nr1 += -24\nr2 = 0\nr3 = 3\nkfunc bpf_iter_num_new\ninner: r1 = r10\nr1 += -24\nkfunc bpf_iter_num_next\nif r0 != 0 goto inner\nr1 = r10\nr1 += -24\nkfunc bpf_iter_num_destroy\ngoto again\ndone: " + DESTROY + END,
    "a dynptr in a ring": DYNPTR + SLICE + "if r0 == 0 goto no\n*(u64 *)(r0 +0) = 1\nno: " + SUBMIT + "r0 = 0\nexit",
    "a dynptr over a value": LOCAL + "*(u64 *)(r10 -8) = 0\nr1 = r10\nr1 += -8\nr2 = 8\nr3 = r10\nr3 += -24\nr4 = 0\nr5 = 0\ncall dynptr_read\n" + END,
    "a dynptr overwritten": LOCAL + "*(u64 *)(r10 -24) = 1\nr0 = *(u64 *)(r10 -24)\n" + END,
    "RCU": "kfunc bpf_rcu_read_lock\nkfunc bpf_rcu_read_unlock\nr0 = 0\nexit",
    "a group's leader as a key": CURRENT + "r2 = *(u64 *)(r6 +16)\nr1 = map[fd:7]\nr3 = 0\nr4 = 1\ncall task_storage_get\nr0 = 0\nexit",
    "a walk through pointers that may be gone": CURRENT + "r1 = *(u64 *)(r6 +24)\nr0 = *(u32 *)(r1 +0)\nr0 = 0\nexit",
    "a drained ring": "*(u64 *)(r10 -8) = 0\nr1 = map[fd:6]\nr2 = subprog[each]\nr3 = r10\nr3 += -8\nr4 = 0\ncall user_ringbuf_drain\nr0 = 0\nexit\neach: r6 = r2\nr2 = 0\nr3 = 8\ncall dynptr_data\nif r0 == 0 goto e\nr1 = *(u64 *)(r0 +0)\n*(u64 *)(r6 +0) = r1\ne: r0 = 0\nexit",
    "a VMA": CURRENT + "r1 = r6\nr2 = 4096\nr3 = subprog[each]\nr4 = r10\nr4 += -8\nr5 = 0\n*(u64 *)(r10 -8) = 0\ncall find_vma\nr0 = 0\nexit\neach: r1 = *(u64 *)(r2 +0)\n*(u64 *)(r3 +0) = r1\nr0 = 0\nexit",
    "a counter changed by a callback, limited before use": value(5) + "*(u64 *)(r10 -16) = 0\nr1 = 9\nr2 = subprog[each]\nr3 = r10\nr3 += -16\nr4 = 0\ncall loop\nr1 = *(u64 *)(r10 -16)\nif r1 > 63 goto out\nr6 += r1\nr0 = *(u8 *)(r6 +0)\n" + END + "each: r3 = *(u64 *)(r2 +0)\nr3 += 1\n*(u64 *)(r2 +0) = r3\nr0 = 0\nexit",
}  # fmt: skip

REFUSED = {
    "a lock kept": (value(1) + LOCK + END, "holds a spin lock"),
    "a lock kept on one path": (value(1) + LOCK + "r7 = *(u64 *)(r6 +0)\nif r7 > 5 goto out\n" + UNLOCK + END, "holds a spin lock"),
    "a lock taken twice": (value(1) + LOCK + LOCK + UNLOCK + END, "called while a spin lock is held"),
    "a lock given back twice": (value(1) + LOCK + UNLOCK + UNLOCK + END, "no spin lock is held"),
    "another lock given back": (value(1) + "r7 = r6\n" + value(1) + LOCK + "r1 = r7\nr1 += 8\ncall spin_unlock\n" + END, "another lock"),
    "a helper while a lock is held": (value(1) + LOCK + "call ktime_get_ns\n" + UNLOCK + END, "while a spin lock is held"),
    "a lock at another place": (value(1) + "r1 = r6\ncall spin_lock\n" + END, "must lead to a spin lock"),
    "a lock on the stack": ("*(u64 *)(r10 -8) = 0\nr1 = r10\nr1 += -8\ncall spin_lock\nr0 = 0\nexit", "must lead to a spin lock"),
    "a lock written to": (value(1) + "*(u32 *)(r6 +8) = 1\n" + END, "only be used through its helpers"),
    "a lock read": (value(1) + "r1 = *(u64 *)(r6 +8)\n" + END, "only be used through its helpers"),
    "a list touched": (value(8) + "r1 = *(u64 *)(r6 +8)\n" + END, "only be used through its helpers"),
    "a timer of another map": (value(2) + "r1 = r6\nr2 = map[fd:1]\nr3 = 1\ncall timer_init\n" + END, "not in the map"),
    "a timer that is none": (value(2) + "r1 = r6\nr1 += 8\nr2 = map[fd:2]\nr3 = 1\ncall timer_init\n" + END, "must lead to a timer"),
    "a timer's function that returns 1": (value(2) + TIMER + CALLBACK + END + "ring: r0 = 1\nexit", "must return 0"),
    "a timer's function that writes beyond": (value(2) + TIMER + CALLBACK + END + "ring: *(u64 *)(r3 +24) = 1\nr0 = 0\nexit", "beyond its end"),
    "a timer's function that keeps a record": (value(2) + TIMER + CALLBACK + END + "ring: r1 = map[fd:4]\nr2 = 8\nr3 = 0\ncall ringbuf_reserve\nr0 = 0\nexit", "give back what it takes"),
    "a reference kept": (ACQUIRE + END, "another reference"),
    "a reference given back twice": (ACQUIRE + RELEASE + RELEASE + END, "r7"),
    "a reference used after it was given back": (ACQUIRE + RELEASE + "r1 = *(u32 *)(r7 +0)\n" + END, "r7"),
    "a reference not looked at": (CURRENT + "r1 = r6\nkfunc bpf_task_acquire\nr7 = r0\n" + RELEASE + END, "acquired"),
    "what is not ours given back": (CURRENT + "r1 = r6\nkfunc bpf_task_release\nr0 = 0\nexit", "acquired and not yet given back"),
    "another struct": ("r1 = *(u64 *)(r1 +0)\nr1 = *(u64 *)(r1 +24)\nkfunc bpf_task_acquire\nr0 = 0\nexit", "task_struct"),
    "a number for a task": ("r1 = 5\nkfunc bpf_task_acquire\nr0 = 0\nexit", "must be a pointer to struct task_struct"),
    "what a map keeps, taken for trusted": (value(3) + "r1 = *(u64 *)(r6 +8)\nkfunc bpf_task_acquire\n" + END, "may be gone"),
    "what a map keeps, written over": (value(3) + "*(u64 *)(r6 +8) = 0\n" + END, "only be used through its helpers"),
    "what is not held put into a map": (value(3) + "r8 = r6\n" + CURRENT + "r1 = r8\nr1 += 8\nr2 = r6\ncall kptr_xchg\n" + END, "acquired"),
    "what came out of a map kept": (value(3) + "r1 = r6\nr1 += 8\nr2 = 0\ncall kptr_xchg\n" + END, "another reference"),
    "an iterator not destroyed": (NEW + LOOP + "goto again\ndone: r0 = 0\nexit", "another reference"),
    "an iterator not made": (NEXT + "r0 = 0\nexit", "no initialised iter"),
    "an iterator made twice": (NEW + NEW + DESTROY + "r0 = 0\nexit", "overwritten"),
    "an iterator destroyed twice": (NEW + DESTROY + DESTROY + "r0 = 0\nexit", "no initialised iter"),
    "an iterator written over": (NEW + "*(u64 *)(r10 -8) = 0\n" + DESTROY + "r0 = 0\nexit", "overwritten"),
    "an iterator read": (NEW + "r1 = *(u64 *)(r10 -8)\n" + DESTROY + "r0 = 0\nexit", "only its helpers"),
    "an iterator handed to a helper": (NEW + "r1 = r10\nr1 += -16\nr2 = 16\ncall get_current_comm\n" + DESTROY + "r0 = 0\nexit", "only its helpers"),
    "an element not looked at": (NEW + NEXT + "r1 = *(u32 *)(r0 +0)\n" + DESTROY + "r0 = 0\nexit", "no address"),
    "an element used after its iterator": (NEW + NEXT + "if r0 == 0 goto done\nr6 = r0\n" + DESTROY + "r1 = *(u32 *)(r6 +0)\nr0 = 0\nexit\ndone: " + DESTROY + "r0 = 0\nexit", "r6"),
    "an index that grows in a loop": (value(5) + "r7 = 0\n" + NEW + LOOP + "r2 = r6\nr2 += r7\n*(u8 *)(r2 +0) = 1\nr7 += 1\ngoto again\ndone: " + DESTROY + END, "value of map bytes"),
    "iterators for ever": ("again: " + NEW + "r1 = r10\nr1 += -8\nkfunc bpf_iter_num_next\n" + DESTROY + "goto again", "followed"),
    "callbacks for ever": ("r6 = 0\nagain: r1 = 3\nr2 = subprog[each]\nr3 = 0\nr4 = 0\ncall loop\ngoto again\neach: r0 = 0\nexit", "never ends"),
    "may_goto for ever": ("again: may_goto out\ngoto again\nout: goto again", "followed"),
    "a dynptr kept": (DYNPTR + "r0 = 0\nexit", "another reference"),
    "a dynptr given back twice": (DYNPTR + SUBMIT + SUBMIT + "r0 = 0\nexit", "no initialised dynptr"),
    "a dynptr in a ring overwritten": (DYNPTR + "*(u64 *)(r10 -8) = 0\n" + SUBMIT + "r0 = 0\nexit", "overwritten"),
    "half a dynptr": (LOCAL + "*(u64 *)(r10 -16) = 0\nr1 = r10\nr1 += -24\nr2 = 0\nr3 = 8\ncall dynptr_data\n" + END, "no initialised dynptr"),
    "a slice used after its dynptr": (DYNPTR + SLICE + "if r0 == 0 goto no\nr6 = r0\n" + SUBMIT + "*(u64 *)(r6 +0) = 1\nr0 = 0\nexit\nno: " + SUBMIT + "r0 = 0\nexit", "r6"),
    "a slice not looked at": (DYNPTR + SLICE + "*(u64 *)(r0 +0) = 1\n" + SUBMIT + "r0 = 0\nexit", "without a check"),
    "beyond a slice": (DYNPTR + SLICE + "if r0 == 0 goto no\n*(u64 *)(r0 +1) = 1\nno: " + SUBMIT + "r0 = 0\nexit", "beyond its end"),
    "a local dynptr given back": (LOCAL + "r1 = r10\nr1 += -24\nr2 = 0\ncall ringbuf_submit_dynptr\n" + END, "bpf_ringbuf_reserve_dynptr"),
    "a dynptr over the stack": ("*(u64 *)(r10 -32) = 0\nr1 = r10\nr1 += -32\nr2 = 8\nr3 = 0\nr4 = r10\nr4 += -16\ncall dynptr_from_mem\nr0 = 0\nexit", "map's value"),
    "a sample kept": ("*(u64 *)(r10 -8) = 0\nr1 = map[fd:6]\nr2 = subprog[each]\nr3 = r10\nr3 += -8\nr4 = 0\ncall user_ringbuf_drain\nr1 = *(u64 *)(r10 -8)\nr0 = *(u64 *)(r1 +0)\nr0 = 0\nexit\neach: r6 = r2\nr2 = 0\nr3 = 8\ncall dynptr_data\nif r0 == 0 goto e\n*(u64 *)(r6 +0) = r0\ne: r0 = 0\nexit", "r1"),
    "RCU kept": ("kfunc bpf_rcu_read_lock\nr0 = 0\nexit", "RCU read lock"),
    "RCU given back twice": ("kfunc bpf_rcu_read_unlock\nr0 = 0\nexit", "was not taken"),
    "preemption off": ("kfunc bpf_preempt_disable\nr0 = 0\nexit", "preemption off"),
    "an exception": ("r1 = 0\nkfunc bpf_throw\nr0 = 0\nexit", "exceptions"),
    "a kernel function that nobody knows": ("kfunc bpf_no_such_function\nr0 = 0\nexit", "not known here"),
    "an arena": ("r1 = 0\nr2 = 0\nkfunc bpf_arena_alloc_pages\nr0 = 0\nexit", "arenas"),
    "a member beyond its struct": (CURRENT + "r0 = *(u64 *)(r6 +32)\nr0 = 0\nexit", "not in it"),
    "a write to the kernel": (CURRENT + "*(u32 *)(r6 +0) = 1\nr0 = 0\nexit", "may be written"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_given_back_is_accepted(name: str) -> None:
    found = check(ACCEPTED[name])
    assert found.refusal is None, found.refusal


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_is_refused(name: str) -> None:
    text, message = REFUSED[name]
    found = check(text)
    assert found.refusal is not None, "accepted"
    assert message in found.refusal.message, found.refusal


@pytest.mark.parametrize("kind", ["kprobe", "tracepoint", "perf_event", "raw_tracepoint"])
def test_locks_and_timers_are_not_for_programs_that_interrupt(kind: str) -> None:
    for text in (ACCEPTED["a lock"], ACCEPTED["a timer"]):
        found = check(text, kind)
        assert found.refusal is not None and "may interrupt" in found.refusal.message


def test_what_sleeps_is_for_programs_that_may() -> None:
    text = "r1 = r10\nr1 += -8\nr2 = 8\nr3 = 0\ncall copy_from_user\nr0 = 0\nexit"
    assert not check(text).safe
    assert check(text, sleepable=True).safe
    locked = text.replace("r1 = r10", "kfunc bpf_rcu_read_lock\nr1 = r10", 1).replace(
        "r0 = 0", "kfunc bpf_rcu_read_unlock\nr0 = 0"
    )
    found = check(locked, sleepable=True)
    assert found.refusal is not None and "may sleep" in found.refusal.message


def test_arguments_of_functions_are_less_trusted_than_those_of_tracepoints() -> None:
    text = "r1 = *(u64 *)(r1 +0)\nkfunc bpf_task_acquire\nif r0 == 0 goto out\nr1 = r0\nkfunc bpf_task_release\n" + END
    assert check(text).safe
    found = check(text, attach="trace_fentry")
    assert found.refusal is not None and "may be gone" in found.refusal.message


def test_fentry_programs_return_0() -> None:
    assert check("r0 = 0\nexit", attach="trace_fentry").safe
    found = check("r0 = 1\nexit", attach="trace_fentry")
    assert found.refusal is not None and "returns 0 to 0" in found.refusal.message


def test_sockets() -> None:
    lookup = "r6 = r1\n*(u64 *)(r10 -16) = 0\n*(u64 *)(r10 -8) = 0\nr2 = r10\nr2 += -16\nr3 = 12\nr4 = 0\nr5 = 0\ncall sk_lookup_tcp\n"
    release = "if r0 == 0 goto out\nr6 = r0\nr7 = *(u32 *)(r0 +4)\nr1 = r0\ncall sk_release\n"
    assert check(lookup + release + END, "sched_cls").safe
    for text, message in (
        (lookup + "r0 = 0\nexit", "another reference"),
        (lookup + "r1 = r0\ncall sk_release\nr0 = 0\nexit", "looked up"),
        (lookup + release + "r1 = *(u32 *)(r6 +4)\n" + END, "r6"),
        (lookup + release + "r1 = r6\ncall sk_release\n" + END, "r6"),
        (lookup + "if r0 == 0 goto out\nr1 = *(u64 *)(r0 +76)\n" + END, "no 8 bytes"),
    ):
        found = check(text, "sched_cls")
        assert found.refusal is not None and message in found.refusal.message, found.refusal

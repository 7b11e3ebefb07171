"""The kernel functions (kfuncs) that tracing programs use: prototypes as one table, and their calls.

The kernel's BTF has their types, but not what they ask of their caller, so that stands here; a function that is not here is refused. Kinds are those of
`bpf.helpers`, and for pointers to kernel structs (alternatives are separated by |)

    trusted:NAME   handed over by the kernel, or acquired          rcu:NAME    or protected by RCU
    untrusted:NAME any, null included                              release:NAME  acquired; given back by the call
    iter_new:KIND iter:KIND iter_end:KIND   an iterator on the stack, made, stepped, given back
    const_size     a known number of bytes of the pointer before it

Flags: acquire (the result must be given back), rcu_lock, rcu_unlock, preempt_off, preempt_on, sleeps, needs_rcu, in_rcu (the result is protected by RCU).
"""

from __future__ import annotations

from ..helpers import Helper
from .arguments import Call
from .problem import Problem
from .state import NONE, UNTRUSTED, Reg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .explore import Walker
    from .state import State

Kfunc = Helper  # a prototype; its number means nothing

_TABLE = """
rcu_read_lock void - ; rcu_lock
rcu_read_unlock void - ; rcu_unlock
preempt_disable void - ; preempt_off
preempt_enable void - ; preempt_on
task_acquire btf:task_struct? rcu:task_struct ; acquire
task_release void release:task_struct
task_from_pid btf:task_struct? scalar ; acquire
task_from_vpid btf:task_struct? scalar ; acquire
task_under_cgroup scalar rcu:task_struct rcu:cgroup
task_get_cgroup1 btf:cgroup? trusted:task_struct scalar ; acquire
cgroup_acquire btf:cgroup? rcu:cgroup ; acquire
cgroup_release void release:cgroup
cgroup_ancestor btf:cgroup? rcu:cgroup scalar ; acquire
cgroup_from_id btf:cgroup? scalar ; acquire
cpumask_create btf:bpf_cpumask? - ; acquire
cpumask_acquire btf:bpf_cpumask trusted:bpf_cpumask ; acquire
cpumask_release void release:bpf_cpumask
cpumask_first scalar rcu:cpumask|bpf_cpumask
cpumask_first_zero scalar rcu:cpumask|bpf_cpumask
cpumask_set_cpu void scalar rcu:bpf_cpumask
cpumask_clear_cpu void scalar rcu:bpf_cpumask
cpumask_test_cpu scalar scalar rcu:cpumask|bpf_cpumask
cpumask_setall void rcu:bpf_cpumask
cpumask_clear void rcu:bpf_cpumask
cpumask_copy void rcu:bpf_cpumask rcu:cpumask|bpf_cpumask
cpumask_weight scalar rcu:cpumask|bpf_cpumask
cpumask_empty scalar rcu:cpumask|bpf_cpumask
get_task_exe_file btf:file? trusted:task_struct ; acquire
put_file void release:file
path_d_path scalar trusted:path mem_out size
iter_num_new scalar iter_new:num scalar scalar
iter_num_next elem? iter:num
iter_num_destroy void iter_end:num
iter_task_new scalar iter_new:task trusted:task_struct? scalar ; needs_rcu
iter_task_next elem? iter:task
iter_task_destroy void iter_end:task
iter_task_vma_new scalar iter_new:task_vma rcu:task_struct scalar
iter_task_vma_next elem? iter:task_vma
iter_task_vma_destroy void iter_end:task_vma
iter_css_new scalar iter_new:css trusted:cgroup_subsys_state scalar ; needs_rcu
iter_css_next elem? iter:css
iter_css_destroy void iter_end:css
iter_css_task_new scalar iter_new:css_task trusted:cgroup_subsys_state scalar
iter_css_task_next elem? iter:css_task
iter_css_task_destroy void iter_end:css_task
iter_bits_new scalar iter_new:bits scalar scalar
iter_bits_next elem? iter:bits
iter_bits_destroy void iter_end:bits
dynptr_slice mem? dynptr scalar mem_rw? const_size
dynptr_slice_rdwr mem? dynptr scalar mem_rw? const_size
dynptr_adjust scalar dynptr scalar scalar
dynptr_is_null scalar dynptr
dynptr_is_rdonly scalar dynptr
dynptr_size scalar dynptr
dynptr_copy scalar dynptr scalar dynptr scalar scalar
session_is_return scalar -
ktime_get_ns scalar -
get_fsverity_digest scalar trusted:file dynptr ; sleeps
copy_from_user_str scalar mem_out size scalar scalar ; sleeps
copy_from_user_task_str scalar mem_out size scalar rcu:task_struct scalar ; sleeps
strcmp scalar scalar scalar
strchr scalar scalar scalar
strlen scalar scalar
strnlen scalar scalar scalar
strstr scalar scalar scalar
"""
_REFUSED = {
    "throw": "exceptions leave functions that hold something, which cannot be followed here",
    "arena_alloc_pages": "arenas cannot be followed here",
    "arena_free_pages": "arenas cannot be followed here",
    "wq_init": "work queues cannot be followed here",
    "obj_new_impl": "objects of the program's own, lists and trees cannot be followed here",
}
_parsed: dict[str, Kfunc] = {}


def find_kfunc(name: str) -> Kfunc | None:
    """The prototype of a kernel function by its name, with or without bpf_; None for one that is not known here."""
    if not _parsed:
        for line in _TABLE.strip().split("\n"):
            prototype, _, flags = line.partition(" ; ")
            known, result, *args = prototype.split()
            arguments = () if args == ["-"] else tuple(args)
            _parsed[known] = Kfunc(0, known, result, arguments, "", tuple(flags.split()))
    return _parsed.get(name.removeprefix("bpf_"))


def find_kfuncs(names: Mapping[int, str]) -> dict[int, Kfunc]:
    """The prototypes of the functions that a program calls, by the pc of the call; one without a prototype is there to be refused."""
    return {pc: find_kfunc(name) or Kfunc(0, name.removeprefix("bpf_"), "", (), "") for pc, name in names.items()}


def call_kfunc(walker: Walker, state: State, pc: int) -> None:
    """Check a call and put its result into r0. Raises Problem."""
    from .calls import check_arguments, finish_call
    from .stackobjects import step

    kfunc = walker.kfuncs.get(pc)
    if kfunc is None or not kfunc.result:
        name = f"bpf_{kfunc.name}" if kfunc is not None else "the kernel function that is called"
        raise Problem(
            f"{name} is not known here: {_REFUSED.get(kfunc.name if kfunc else '', 'what it asks of its caller cannot be checked')}"
        )
    walker.helpers.add(kfunc.name)
    if state.lock is not None:
        raise Problem(f"bpf_{kfunc.name} is called while a spin lock is held", "call bpf_spin_unlock before")
    if "sleeps" in kfunc.flags and (state.rcu or state.preempt or not walker.sleepable):
        raise Problem(f"bpf_{kfunc.name} may sleep, which is not allowed here")
    if "needs_rcu" in kfunc.flags and walker.sleepable and not state.rcu:
        raise Problem(f"bpf_{kfunc.name} needs RCU", "call bpf_rcu_read_lock before")
    _change_regions(state, kfunc)
    call = Call(kfunc)
    check_arguments(walker, state, call, kfunc.args)
    if kfunc.result == "elem?":
        assert call.pointer is not None
        found = step(walker, state, call.pointer)
        state.regs[:6] = [found] + [NONE] * 5
        return
    finish_call(walker, state, call)


def _change_regions(state: State, kfunc: Kfunc) -> None:
    """Regions where RCU is locked, or preemption disabled."""
    for flag, field, step in (
        ("rcu_lock", "rcu", 1),
        ("rcu_unlock", "rcu", -1),
        ("preempt_off", "preempt", 1),
        ("preempt_on", "preempt", -1),
    ):
        if flag in kfunc.flags:
            depth = getattr(state, field) + step
            if depth < 0:
                raise Problem(f"bpf_{kfunc.name} gives back what was not taken")
            setattr(state, field, depth)
            if flag == "rcu_unlock" and not depth:
                _leave_rcu(state)


def _leave_rcu(state: State) -> None:
    """What RCU protected may be gone from now on."""
    from .state import IN_RCU

    for frame in state.frames:
        frame.regs = [
            _unprotected(reg) if reg.kind.startswith("btf") and reg.size == IN_RCU else reg for reg in frame.regs
        ]
        for slot, kept in frame.slots.items():
            if isinstance(kept, Reg) and kept.kind.startswith("btf") and kept.size == IN_RCU:
                frame.slots[slot] = _unprotected(kept)


def _unprotected(reg: Reg) -> Reg:
    return Reg("btf", reg.number, reg.off, reg.thing, UNTRUSTED)

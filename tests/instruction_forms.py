"""Every form of instruction that the table has, in a small program of its own, and where it is refused, why: what the parity page's table of forms is made of."""

from __future__ import annotations

from sonde.bpf.asm import assemble
from sonde.bpf.isa import BPF_LD, CALL, FREE, LDDW, LOW, Insn, Op, iter_ops

OPS = list(iter_ops())
GROUPS = {
    0x00: "legacy and wide loads", 0x01: "loads", 0x02: "stores of numbers", 0x03: "stores and atomics", 0x04: "arithmetic, 32 bits",
    0x05: "jumps and calls", 0x06: "jumps, 32 bits", 0x07: "arithmetic, 64 bits",
}  # fmt: skip

# What has no meaning outside the kernel, by engine, and what its message says.
NO_MEANING = {"gotox": "jumps through a table", "lddw_btf": "kernel variables are"}
UNVERIFIED = {
    "gotox": "jumps through a table", "cast": "arenas", "percpu": "per-CPU addresses",
    "nospec": "only the kernel's own passes", "callx": "calls through a register",
}  # fmt: skip
NOTES = {
    "gotox": "refused: only the kernel has the table", "lddw_btf": "kernel variables are only in the kernel: verified where their types are given, run nowhere else",
    "cast": "there is one address space outside the kernel: a move; the verifier refuses arenas", "percpu": "written by the kernel's own passes only",
    "kfunc": "by a table of functions; the verifier knows those that tracing programs use", "callx": "the kernel takes none: nor does the verifier", "nospec": "written by the kernel's own passes only",
}  # fmt: skip


# What the verifier is told of the kernel, by pc of these programs.
KFUNCS = {0: "preempt_disable", 1: "preempt_enable"}
SYMBOLS = {2: None}


def sample(op: Op) -> Insn:
    """One instruction of a form."""
    dst, src, off, imm = (
        default if value in (FREE, LOW) else value
        for value, default in ((op.dst, 6), (op.src, 7), (op.off, 0), (op.imm, 3))
    )
    return Insn(op.opcode, dst, src, off, imm)


def program(op: Op) -> tuple[list[Insn], str]:
    """A program with one instruction of a form that is safe if the form can be, and the type of program; map 1 is an array of one value of 64 bytes."""
    special = _SPECIAL.get(op.name)
    if special is not None:
        return special(sample(op)), "raw_tracepoint"
    insn, end = sample(op), assemble("r0 = 0\nexit")
    class_ = op.opcode & 7
    if class_ == BPF_LD and op.opcode != LDDW:
        return [*assemble("r6 = r1\nr7 = 2"), insn, *end], "socket_filter"
    if class_ in (1, 2, 3) and op.name != "nospec":
        insn.off = -8
        value = "" if class_ == 1 or op.name.startswith("acquire") else "r7 = 5"
        return [*assemble(f"*(u64 *)(r10 -8) = 0\nr6 = r10\nr7 = r10\nr0 = 0\n{value}"), insn, *end], "raw_tracepoint"
    return [*assemble("r6 = 1\nr7 = 2"), insn, *end], "raw_tracepoint"


_SPECIAL = {
    "exit": lambda insn: [*assemble("r0 = 0"), insn],
    "gotol": lambda insn: [Insn(insn.opcode, imm=0), *assemble("r0 = 0\nexit")],
    "kfunc": lambda insn: [insn, Insn(CALL, 0, 2, 0, 3), *assemble("r0 = 0\nexit")],
    "call": lambda insn: [Insn(CALL, imm=7), *assemble("r0 = 0\nexit")],
    "callsub": lambda insn: [Insn(CALL, 0, 1, 0, 2), *assemble("r0 = 0\nexit\nr0 = 1\nexit")],
    "callx": lambda insn: [Insn(LDDW, 6, 4, 0, 3), insn, *assemble("exit\nr0 = 1\nexit")],
    "lddw_func": lambda insn: [Insn(LDDW, 6, 4, 0, 3), *assemble("r0 = 0\nexit\nr0 = 1\nexit")],
    "lddw_map": lambda insn: [Insn(LDDW, 6, 1, 0, 1), *assemble("r0 = 0\nexit")],
    "lddw_idx": lambda insn: [Insn(LDDW, 6, 5, 0, 1), *assemble("r0 = 0\nexit")],
    "lddw_val": lambda insn: [Insn(LDDW, 6, 2, 0, 1), *assemble("r0 = *(u64 *)(r6 +0)\nr0 = 0\nexit")],
    "lddw_ival": lambda insn: [Insn(LDDW, 6, 6, 0, 1), *assemble("r0 = *(u64 *)(r6 +0)\nr0 = 0\nexit")],
}


def render_table() -> list[str]:
    """The lines of the page's table: one for each form, and in each column whether it is done, or refused with a reason."""
    lines = [
        "| form | opcode | text | assembler, disassembler | interpreter | x86-64 | aarch64 | verifier | note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for op in sorted(OPS, key=lambda op: op.opcode & 7):
        runs = "refused" if op.name in NO_MEANING else "done"
        verified = "refused" if op.name in UNVERIFIED else "done"
        text = op.text.replace("|", "\\|")
        lines.append(
            f"| {op.name} | {op.opcode:02x} | `{text}` | done | {runs} | {runs} | {runs} | {verified} | {NOTES.get(op.name, '')} |"
        )
    return lines

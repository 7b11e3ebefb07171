"""From the verifier's log to the line that matters, the instruction that it is about, and the script line behind that."""

from __future__ import annotations

from ..errors import Diagnostic
from ..spec.object import find_span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.object import LineInfo

# Starts of log lines that tell nothing about the refusal: statistics, states, back-tracking, source lines.
_CHATTER = (
    "processed ", "verification time", "stack depth", "peak_states", "mark_precise", "last_idx", "regs=", "parent ",
    "from ", "func#", "cur state:", "old state:", "; ", "arg#", "Live regs", "propagating", "BPF program load", "max_states",
)  # fmt: skip


def find_summary(log: str) -> str:
    """Return the last line of the log that says why, or "" when there is none."""
    fallback = ""
    for line in reversed(log.splitlines()):
        text = line.strip().strip("\0")
        if not text or text.startswith(_CHATTER):
            continue
        if _is_state(text):
            fallback = fallback or text
            continue
        return text
    return fallback


def find_failing_pc(log: str) -> tuple[int, str]:
    """Return the index of the refused instruction and its text as the log has it; (-1, "") when the log names none."""
    named = _named_in(find_summary(log))
    last = (-1, "")
    for line in reversed(log.splitlines()):
        pc, text = _parse_instruction(line)
        if pc < 0:
            continue
        if named < 0 or pc == named:
            return pc, text
        if last[0] < 0:
            last = (pc, text)
    return (named, "") if named >= 0 else last


def _named_in(summary: str) -> int:
    """The number in "unreachable insn 5", "back-edge from insn 7 to 3", "jump out of range from insn 2 to 90"."""
    words = summary.replace(",", " ").split()
    for i, word in enumerate(words[:-1]):
        if word == "insn" and words[i + 1].isdigit():
            return int(words[i + 1])
    return -1


def _parse_instruction(line: str) -> tuple[int, str]:
    """`12: (79) r1 = *(u64 *)(r0 +0)  ; R0=…` -> (12, "r1 = *(u64 *)(r0 +0)")."""
    number, colon, rest = line.partition(": (")
    if not colon or not number.isdigit() or rest[2:4] != ") ":
        return -1, ""
    return int(number), rest[4:].split(" ;")[0].strip()


def _is_state(text: str) -> bool:
    """Instructions and register states are not reasons."""
    number, colon, rest = text.partition(": ")
    if colon and number.isdigit():
        return True
    return colon != "" and not rest and number.isdigit()


def explain(log: str, lines: Sequence[LineInfo]) -> tuple[str, Diagnostic | None]:
    """Return the summary and, where the program says which script line it came from, a Diagnostic at that line."""
    summary = find_summary(log)
    pc, text = find_failing_pc(log)
    span = find_span(lines, pc)
    if span is None:
        return summary, None
    shown = f"instruction {pc}: {text}" if text else f"instruction {pc}"
    return summary, Diagnostic("ERROR", f"the verifier refused this ({shown})", span, span.excerpt)


def hint_for(summary: str) -> str:
    """Return what to do about the commonest refusals, or ""."""
    for sign, hint in _HINTS:
        if sign in summary:
            return hint
    return ""


_HINTS = (
    ("unknown func", "this kernel lacks that helper, or not for this type of program"),
    ("invalid func unknown", "this kernel lacks that helper"),
    ("program of this type cannot use helper", "the helper is not allowed at this type of probe"),
    ("cannot use helper", "the helper is not allowed at this type of probe"),
    ("GPL", "the helper is for programs under the GPL only: set the license config"),
    ("too large. Processed", "the verifier gave up after a million instructions: shorten loops and strings"),
    ("combined stack size", "values on the stack take more than 512 bytes: shorten strings, or lower on_stack_limit"),
    ("back-edge", "this kernel allows no such loop"),
    ("lockdown", "the kernel is locked down"),
    ("_or_null'", "this pointer may be NULL (a map without the key, a buffer without room): test it before it is used"),
    (
        "Unreleased reference",
        "what was reserved or acquired has to be submitted, discarded or released on every way to the end",
    ),
    (
        "reference leak",
        "what was reserved or acquired has to be submitted, discarded or released on every way to the end",
    ),
    (
        "infinite loop detected",
        "nothing that the verifier sees changes from round to round: give the loop a counter with a bound",
    ),
    ("is too complex", "the verifier gave up: shorten loops, or move their bodies to functions that bpf_loop() calls"),
    ("unbounded min value", "limit the number before it is an index or a size: if (i < N), or i & (N - 1)"),
    ("unbounded memory access", "limit the number before it is an index or a size: if (i < N), or i & (N - 1)"),
    ("min value is negative", "the number may be negative: make it unsigned, or test it"),
    (
        "outside of the allowed memory range",
        "the index or the size may be too large: limit it before, if (i < N), or i & (N - 1)",
    ),
    ("outside of the packet", "compare with data_end before reading: if (data + size > data_end) return …"),
    ("invalid access to packet", "compare with data_end before reading: if (data + size > data_end) return …"),
    ("cannot pass map_type", "this helper is for maps of another type"),
    (
        "expected=percpu_ptr_",
        "per-CPU data is handed on by its type: this kernel's BTF may not describe that variable (5.10 often does not)",
    ),
    ("type=scalar expected=", "the helper wants an address there: of a variable, a map's value, a record"),
    (
        "invalid indirect read from stack",
        "all bytes of the variable have to be set before its address is handed on, padding too: = {}",
    ),
    (
        "invalid read from stack",
        "these bytes were never set (= {} does it), or lie outside of the variable: an index with a bound keeps within",
    ),
    (
        "same insn cannot be used with different pointers",
        "pointers of several kinds meet in one variable here: use one for each",
    ),
    ("modified ctx ptr", "the context has to be handed on as it is: no arithmetic on it"),
    ("only read from bpf_array is supported", "this map cannot be written by programs"),
    ("write into map forbidden", "this map cannot be written by programs: is the variable const?"),
    (
        "sleepable",
        "the program or what it calls may sleep, and the other may not: use the section with .s, or another helper",
    ),
)

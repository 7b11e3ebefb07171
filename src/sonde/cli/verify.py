"""`sonde verify`: is each program of a script, or of an ELF object, safe, by sonde's own verifier? Needs no privilege."""

from __future__ import annotations

import sys

from .options import HELP, Option, format_help, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..bpf.verifier.state import State
    from ..spec.object import ObjectSpec
    from .options import Arguments

OPTIONS = (
    Option("program", ("-e",), "the text of the script", "PROGRAM"),
    Option("unsafe", ("--unsafe",), "allow functions that change the system"),
    Option("explain", ("--explain",), "show what is known before each instruction, on every path"),
    HELP,
)
USAGE = "sonde verify [option...] -e PROGRAM | SCRIPT | FILE.o"


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns 0 when all programs are safe, else 1."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    from ..api.verify import verify

    spec = _find_object(arguments)
    found = verify(spec, trace=_show if arguments.have("explain") else None)
    for each in found:
        if each.text:
            print(each.text, file=sys.stderr)
            continue
        if each.note:
            print(each.note, file=sys.stderr)
        verdict = each.verdict
        longest = (
            "as long as its callbacks take" if verdict.longest < 0 else f"at most {verdict.longest} instructions a run"
        )
        kept = f" ({', '.join(each.stack)})" if each.stack else ""
        uses = f"; calls {', '.join(verdict.helpers)}" if verdict.helpers else ""
        uses += f"; maps {', '.join(verdict.maps)}" if verdict.maps else ""
        print(f"{each.program}: safe; {longest}, {verdict.stack_bytes} bytes of stack{kept}{uses}")
    return int(any(each.text for each in found))


def _find_object(arguments: Arguments) -> ObjectSpec:
    from ..api.objects import is_object, read_object

    words = arguments.positionals
    if len(words) == 1 and "program" not in arguments.options and is_object(words[0]):
        return read_object(words[0], find_places=False)
    from ..api.trace import compile
    from .script import find_source, trace_options

    source, parameters = find_source(arguments)
    return compile(source, None, trace_options(arguments, parameters))


def _show(program: str, pc: int, state: State) -> None:
    """One line for each instruction followed, with the registers that hold something."""
    known = ", ".join(f"r{i}: {reg}" for i, reg in enumerate(state.regs[:10]) if reg.kind != "none")
    print(f"{program} {pc:4} {'  ' * (len(state.frames) - 1)}{known}")

"""The `sonde` command: finds the subcommand, prints errors, sets the exit status (0 done, 1 failed, 2 wrong usage)."""

from __future__ import annotations

import sys

from ..errors import AttachError, SondeError, UsageError, VerifierError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMMANDS = {
    "trace": "run a bpftrace script: sonde trace -e 'PROGRAM' | FILE",
    "list": "list probes: sonde list 'tracepoint:sched:*'",
    "features": "show what this kernel can do for tracing",
    "verify": "check programs with sonde's own verifier: sonde verify SCRIPT | FILE.o",
    "build": "compile a script or C to an ELF object: sonde build SCRIPT -o FILE.o",
    "load": "load an ELF object, attach its programs: sonde load FILE.o",
    "dump": "show what an ELF object holds: sonde dump FILE.o",
    "clean": "take out of processes what a killed sonde has left: sonde clean [-p PID]",
    "bcc": "run a tool that was written for BCC: sonde bcc opensnoop -T",
    "bpftrace": "take bpftrace's own command line",
    "version": "print the version",
}

USAGE = "usage: sonde COMMAND [option...]\n\ncommands:\n" + "".join(f"  {n:<10} {h}\n" for n, h in COMMANDS.items())


def run(program: str, words: Sequence[str]) -> int:
    """Run one command line; returns the exit status."""
    named_bpftrace = program.rsplit("/", 1)[-1] == "bpftrace"
    if named_bpftrace or words[:1] == ["bpftrace"]:
        from .bpftrace import main as bpftrace

        return guarded(bpftrace, words if named_bpftrace else words[1:], usage_status=1, attach_status=255)
    return guarded(_dispatch, words, usage_status=2)


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0 if words else 2
    name, rest = words[0], words[1:]
    if name == "trace":
        from .trace import main as command
    elif name == "list":
        from .list import main as command
    elif name == "features":
        from .features import main as command
    elif name == "verify":
        from .verify import main as command
    elif name == "build":
        from .build import main as command
    elif name == "load":
        from .load import main as command
    elif name == "dump":
        from .dump import main as command
    elif name == "clean":
        from .clean import main as command
    elif name == "bcc":
        from .bcc import main as command
    elif name == "--explain":
        from .trace import main as command

        rest = ["--explain", *rest]
    elif name in ("version", "--version", "-V"):
        from .. import __version__

        sys.stdout.write(f"sonde {__version__}\n")
        return 0
    else:
        from difflib import get_close_matches

        close = get_close_matches(name, list(COMMANDS), 1)
        raise UsageError(f"unknown command {name!r}", hint=f"did you mean {close[0]}?" if close else "see sonde --help")
    return command(rest)


def guarded(
    command: Callable[[Sequence[str]], int], words: Sequence[str], *, usage_status: int, attach_status: int = 1
) -> int:
    """Run `command`; turn errors into text on stderr and an exit status; a closed pipe and Ctrl-C are silent."""
    try:
        status = command(words)
        sys.stdout.flush()
        return status
    except UsageError as error:
        _complain(error.render())
        return usage_status
    except SondeError as error:
        _complain(error.render())
        return attach_status if isinstance(error, (AttachError, VerifierError)) else getattr(error, "exit_status", 1)
    except BrokenPipeError:
        _drop_stdout()
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        _complain(f"ERROR: cannot write the output: {error.strerror}")
        _drop_stdout()
        return 1


def _complain(text: str) -> None:
    from ..output.colour import paint

    print(paint(text, 2), file=sys.stderr)


def _drop_stdout() -> None:
    """Point stdout at /dev/null, so that the interpreter's own flush at exit has nothing to complain about."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)

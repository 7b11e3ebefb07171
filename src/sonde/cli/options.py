"""A small option parser: GNU long and short options, permuted, from one table that also prints the help.

`argparse` costs 5 ms of start-up, a tenth of what a whole trace may take until its first event.
"""

from __future__ import annotations

from ..errors import UsageError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Option(Record):
    """One option. `value` names its argument ("" for a switch); a repeated switch counts, a repeated value replaces, or (`many`) adds."""

    key: str
    names: tuple[str, ...]
    help: str
    value: str = ""
    hidden: bool = False
    many: bool = False


class Arguments(Record, eq=False):
    """What a command line said: option values by key, positionals, and the words after `--`."""

    options: dict[str, str]
    switches: dict[str, int]
    positionals: tuple[str, ...]
    rest: tuple[str, ...]
    values: dict[str, tuple[str, ...]]  # of options that may be repeated

    def all(self, key: str) -> tuple[str, ...]:
        """Return all values of an option that may be repeated, in order."""
        return self.values.get(key, ())

    def get(self, key: str, default: str = "") -> str:
        """Return the value of an option, or `default`."""
        return self.options.get(key, default)

    def have(self, key: str) -> int:
        """Return how often a switch was given."""
        return self.switches.get(key, 0)


HELP = Option("help", ("-h", "--help"), "show this help")


def parse(table: Sequence[Option], words: Sequence[str]) -> Arguments:
    """Read a command line. Raises UsageError on unknown options and missing or superfluous values."""
    by_name = {name: option for option in table for name in option.names}
    result = Arguments({}, {}, (), (), {})
    positionals: list[str] = []
    rest: tuple[str, ...] = ()
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            rest = tuple(queue)
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            _take(result, _find(by_name, name), name, value if equals else None, queue)
        elif word.startswith("-") and len(word) > 1:
            _take_cluster(result, by_name, word, queue)
        else:
            positionals.append(word)
    return Arguments(result.options, result.switches, tuple(positionals), rest, result.values)


def _take_cluster(result: Arguments, by_name: dict[str, Option], word: str, queue: list[str]) -> None:
    """Read `-ve PROG`: switches up to the first option with a value, which takes the rest of the word or the next."""
    for i, letter in enumerate(word[1:], 1):
        name = "-" + letter
        option = _find(by_name, name)
        if option.value:
            _take(result, option, name, word[i + 1 :] or None, queue)
            return
        _take(result, option, name, None, queue)


def _take(result: Arguments, option: Option, name: str, value: str | None, queue: list[str]) -> None:
    if not option.value:
        if value is not None:
            raise UsageError(f"option {name} takes no value")
        result.switches[option.key] = result.switches.get(option.key, 0) + 1
        return
    if value is None:
        if not queue:
            raise UsageError(f"option {name} needs a value: {name} {option.value}")
        value = queue.pop(0)
    result.options[option.key] = value
    if option.many:
        result.values[option.key] = (*result.all(option.key), value)


def _find(by_name: dict[str, Option], name: str) -> Option:
    if name in by_name:
        return by_name[name]
    from difflib import get_close_matches

    close = get_close_matches(name, list(by_name), 1)
    raise UsageError(f"unknown option {name}", hint=f"did you mean {close[0]}?" if close else "see --help")


def format_help(usage: str, table: Sequence[Option], after: str = "") -> str:
    """Return the help text of a command."""
    lines = [f"usage: {usage}", "", "options:"]
    for option in table:
        if option.hidden:
            continue
        left = ", ".join(option.names) + (f" {option.value}" if option.value else "")
        lines.append(f"  {left:<28} {option.help}" if len(left) < 28 else f"  {left}\n  {'':<28} {option.help}")
    return "\n".join(lines) + ("\n" + after if after else "") + "\n"

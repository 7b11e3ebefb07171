"""What programs do to maps, and which events they send: what says whether two engines can share a script."""

from __future__ import annotations

import pytest
from script_machine import lower_script

CASES = [
    ("@ = count()", {"@": {"add"}}),
    ("@[pid] = hist(@x); @x = 3", {"@": {"add"}, "@x": {"read", "write"}}),
    ("@n++", {"@n": {"read", "write"}}),
    ("@n += @m[1]; @m[@k] = 1; @k = 5", {"@n": {"read", "write"}, "@m": {"read", "write"}, "@k": {"read", "write"}}),
    ("@c[1] = count(); print(@c); print(@c[1]); clear(@c); zero(@c)", {"@c": {"add"}}),
    ("@c[1] = count(); print((@c[1], 1))", {"@c": {"add", "read"}}),
    ("@p[1] = 5; print(@p[1])", {"@p": {"read", "write"}}),
    ("@p[1] = 5; print(@p)", {"@p": {"write"}}),
    ("@c[1] = count(); delete(@c, 1)", {"@c": {"add", "read", "write"}}),
    ("@c = count(); delete(@c)", {"@c": {"add", "read", "write"}}),
    ("@c[1] = sum(2); if (has_key(@c, 1)) { @d = len(@c) }", {"@c": {"add", "read"}, "@d": {"write"}}),
    ("@c[1] = sum(2); for ($kv : @c) { print($kv) }", {"@c": {"add", "read"}}),
    ("@x = 1; if (@x) { @y = count() } else { @z = count() }", {"@x": {"read", "write"}, "@y": {"add"}, "@z": {"add"}}),
    ("@x = 1; $p = &@x; print(*$p)", {"@x": {"read", "write"}}),
    ("@x = 1; print(sizeof(@x))", {"@x": {"write"}}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), CASES)
def test_uses(body: str, expected: dict[str, set[str]]) -> None:
    lowered = lower_script("begin { " + body + " }")
    found: dict[str, set[str]] = {}
    for use in next(iter(lowered.uses.values())):
        found.setdefault(use.view, set()).add(use.how)
    assert found == expected


def test_each_program_has_its_own() -> None:
    lowered = lower_script(
        'begin /@a/ { printf("x"); clear(@b) } interval:s:1 { @a = 1; @b = count(); clear(@b); print(@b) } end { }'
    )
    uses = [{(use.view, use.how) for use in each} for each in lowered.uses.values()]
    assert uses == [{("@a", "read")}, {("@a", "write"), ("@b", "add")}, set()]
    kinds = {event.ident: event.kind for event in lowered.events}
    sent = [[kinds[ident] for ident in each] for each in lowered.sent.values()]
    assert sent == [["printf", "clear"], ["clear", "print_map"], []]

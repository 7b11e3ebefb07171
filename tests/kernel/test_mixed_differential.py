"""Scripts at random, on the kernel engine and mixed: the same output, or a reason why both cannot share one.

Each script has programs inside the process and in the kernel, of statements that work on maps of all kinds; what happens is the same in each run: `work(i)`, then
getppid(), with pauses that keep the rows apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

import pytest
from mixed_app import build, traced
from user_running import Running, at_work

pytestmark = pytest.mark.kernel

SEEDS = range(12)
NUMBERS = ("1", "2", "7", "100", "-3")
PLACES = (
    ("uprobe:PATH:work", "(int64)arg0"),
    ("uretprobe:PATH:work", "(int64)retval"),
    ("tracepoint:syscalls:sys_enter_getppid", "5"),
    ("tracepoint:syscalls:sys_exit_getppid", "6"),
    ("rawtracepoint:sys_enter /arg1 == 110/", "8"),
)


class Script:
    """A script in the making. `hashes`: how likely it is that a map with keys is plain, which cannot be shared."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.hashes = self.random.choice((0, 0, 0, 0.3))

    def any(self, *texts: str) -> str:
        return self.random.choice(texts)

    def value(self, own: str) -> str:
        return self.any(
            own, own, *NUMBERS, f"({own} * 3) & 63", *(["@x0", "@x1 + 1"] if self.random.random() < 0.3 else [])
        )

    def key(self, own: str) -> str:
        return self.any("1", "2", f"{own} & 3")

    def aggregation(self, own: str) -> str:
        value, number = self.value(own), self.random.randrange(2)
        name, call = self.random.choice(
            [
                ("c", "count()"), ("s", f"sum({value})"), ("lo", f"min({value})"), ("hi", f"max({value})"), ("a", f"avg({value})"),
                ("st", f"stats({value})"), ("h", f"hist({value})"), ("l", f"lhist({value}, 0, 64, 8)"),
            ]
        )  # fmt: skip
        if self.random.random() < 0.5:
            return f"@{name}k{number}[{self.key(own)}] = {call};"
        return f"@{name}{number} = {call};"

    def plain(self, own: str) -> str:
        name = f"@x{self.random.randrange(3)}"
        if self.random.random() < self.hashes:
            name = f"@k[{self.key(own)}]"
        return self.any(f"{name}++;", f"{name} = {self.value(own)};", f"{name} += {self.value(own)};", f"{name}--;")

    def statement(self, own: str, depth: int = 0) -> str:
        kind = self.random.random()
        if kind < 0.5:
            return self.aggregation(own)
        if kind < 0.7:
            return self.plain(own)
        if kind < 0.8:
            return f'printf("{self.any("a", "b", "c")} %d\\n", {self.value(own)});'
        if kind < 0.85:
            return f'@t{self.random.randrange(2)} = "{self.any("one", "two", "three")}";'
        if kind < 0.9 and depth < 2:
            return f"if ({self.value(own)} > {self.any('1', '5', '@x0')}) {{ {self.statement(own, depth + 1)} }}"
        if kind < 0.93:
            return f"delete(@ck0, {self.key(own)});"
        if kind < 0.96:
            return "if (@c0 > 3) { @x2 = 9; }"
        return 'printf("%s\\n", @t0);'

    def text(self) -> str:
        inside, outside = PLACES[:2], PLACES[2:]
        places = [
            *self.random.sample(inside, self.random.randint(1, 2)),
            *self.random.sample(outside, self.random.randint(0, 2)),
            outside[2],
        ]
        self.random.shuffle(places)
        probes = [f"{place} {{ {self.body(own)} }}" for place, own in places]
        known = (
            'begin { @x0 = 0; @x1 = 0; @x2 = 0; @t0 = "none"; @k[9] = 1; '
            + (self.statement("3") if self.random.random() < 0.5 else "")
            + " }"
        )
        never = "interval:s:1000 { @c0 = count(); @ck0[9] = count(); }"  # so that both are known to every script
        return "\n".join([known, *probes, never, f"end {{ {self.statement('4')} }}"])

    def body(self, own: str) -> str:
        return " ".join(self.statement(own) for _ in range(self.random.randint(1, 4)))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("mixed"))


@pytest.fixture
def app(path: str) -> Iterator[Running]:
    yield from at_work(path)


SHARED: list[int] = []


@pytest.mark.parametrize("seed", SEEDS)
def test_output_is_that_of_the_kernel(app: Running, seed: int) -> None:
    script = Script(seed).text()
    try:
        mixed, said = traced(app, "mixed", script, lambda app: app.ask("9 300"))
    except AssertionError as failure:
        if not re.search("share no memory|system calls of sonde's own", str(failure)):
            raise AssertionError(f"{script}\n{failure}") from None
        pytest.skip(f"cannot be shared: {str(failure).strip().splitlines()[-2]}")
    assert "engine: mixed" in said
    kernel, _ = traced(app, "kernel", script, lambda app: app.ask("9 300"))
    assert canonical(mixed) == canonical(kernel), f"{script}\n--- mixed\n{mixed}\n--- kernel\n{kernel}"
    SHARED.append(seed)


def canonical(output: str) -> tuple[str, list[str]]:
    """Rows in their order, and what the maps show, whose entries have none."""
    rows, _, maps = output.partition("\n\n")
    return rows, sorted(maps.split("\n"))


def test_many_of_them_can_be_shared() -> None:
    if not SHARED:
        pytest.skip("runs behind the others")
    assert len(SHARED) * 2 >= len(SEEDS)

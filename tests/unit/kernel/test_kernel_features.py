"""The feature table without a kernel that may be asked: its names, what counts as absent, what BTF tells instead."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from btf_builder import BtfBuilder

from sonde.debuginfo.btf import Btf
from sonde.errors import FormatError, PrivilegeError
from sonde.kernel import features, target
from sonde.kernel.features import FEATURES, MAPS, FeatureTable


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without capabilities, on a kernel whose BTF knows loops, ring buffers and uprobe_multi."""
    types = BtfBuilder()
    types.enum("bpf_func_id", {"BPF_FUNC_loop": 181})
    types.enum("bpf_map_type", {"BPF_MAP_TYPE_HASH": 1, "BPF_MAP_TYPE_RINGBUF": 27})
    types.enum("bpf_link_type", {"BPF_LINK_TYPE_UPROBE_MULTI": 12})
    monkeypatch.setattr("sonde.kernel.btf._kernel_btf", Btf.from_bytes(types.build()))
    monkeypatch.setattr(features, "missing_capability", lambda *names: names[0])
    monkeypatch.setattr("sonde.kernel.refusal.missing_capability", lambda *names: names[0])


def test_unknown_names_are_key_errors() -> None:
    table = FeatureTable()
    for name in ("nonsense", "helper:", "map:nonsense", "link:nonsense", ""):
        with pytest.raises(KeyError):
            table.have(name)


def test_what_is_left_out_counts_as_absent() -> None:
    table = FeatureTable(frozenset(["link:kprobe_multi"]))
    assert not table.have("link:kprobe_multi")


def test_each_question_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(name: str) -> bool:
        asked.append(name)
        return True

    monkeypatch.setattr(features, "ask", ask)
    table = FeatureTable()
    assert table.have("map:hash") and table.have("map:hash")
    assert asked == ["map:hash"]


def test_without_privileges_the_kernels_btf_answers(unprivileged: None) -> None:
    table = FeatureTable()
    answers = {
        "helper:loop": True,
        "helper:loop:kprobe": True,
        "helper:ktime_get_tai_ns": False,
        "map:ringbuf": True,
        "map:arena": False,
        "link:uprobe_multi": True,
        "link:kprobe_multi": False,
        "isa:v3": True,
        "isa:v4": True,
        "isa:may_goto": False,
    }
    assert {name: table.have(name) for name in answers} == answers


def test_what_btf_cannot_tell_needs_privileges(unprivileged: None) -> None:
    for name in ("perf:hardware", "kfunc:bpf_rcu_read_lock", "isa:load_acquire"):
        with pytest.raises(PrivilegeError, match=name):
            FeatureTable().have(name)


def test_every_guess_belongs_to_a_feature() -> None:
    assert set(features._ENUMERATORS) <= set(FEATURES)
    assert set(features._MAP_SHAPES) <= set(features.MAP_TYPES)
    assert set(MAPS) <= set(features.MAP_TYPES)


def test_iter_features_reports_what_it_may_not_ask(unprivileged: None) -> None:
    rows = {name: (have, note) for name, have, note in features.iter_features()}
    assert rows["map:ringbuf"] == (True, "Linux 5.8")
    assert rows["perf:hardware"][0] is False
    assert "CAP_" in rows["perf:hardware"][1]
    assert rows["helper:loop"][0]


# The target's kernel configuration ----------------------------------------------------------------------------------


def test_kconfig_text() -> None:
    text = b'# CONFIG_A is not set\nCONFIG_HZ=250\nCONFIG_BPF=y\nCONFIG_NAME="x=y"\nnonsense\n'
    assert target.parse_kconfig(text) == {"CONFIG_HZ": "250", "CONFIG_BPF": "y", "CONFIG_NAME": "x=y"}


def test_kconfig_that_is_not_gzip(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not gzip data"):
        target._unzip(b"nonsense", "config.gz")
    packed = gzip.compress(b"CONFIG_HZ=100\n")
    assert target._unzip(packed, "config.gz") == b"CONFIG_HZ=100\n"
    assert target._unzip(packed[:-9], "config.gz").startswith(b"CONFIG")


@pytest.mark.parametrize(
    ("version", "signature", "expected"),
    [
        ("#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-11-03)", "", "6.1.192"),
        ("#1 SMP Debian 5.10.251-1 (2026-10-03)", "", "5.10.251"),
        ("#55-Ubuntu SMP PREEMPT_DYNAMIC Fri Jun 2 2026", "Ubuntu 6.8.0-55.57-generic 6.8.12\n", "6.8.12"),
        ("#1 SMP PREEMPT_DYNAMIC @0", "", ""),
        ("#1 built for Debian", "", ""),
        ("", "something else 1.2.3", ""),
    ],
)
def test_version_of_the_source(version: str, signature: str, expected: str) -> None:
    """What LINUX_VERSION_CODE is made of: releases like 6.1.0-56-amd64 do not tell it."""
    assert target.source_version(version, signature) == expected

"""kallsyms: names to addresses and back; modules; hidden addresses; garbage."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.debuginfo.kallsyms import Kallsyms
from sonde.errors import FeatureError, FormatError, PrivilegeError

TEXT = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000040 t helper
ffffffff81000100 T vfs_read
ffffffff81000180 T vfs_read_iter
ffffffff81000200 t helper
ffffffffc0001000 t bpf_prog_1\t[bpf]
ffffffffc0000100 T xfs_open\t[xfs]
ffffffffc0000080 T xfs_close\t[xfs]
"""


@pytest.fixture(params=["bytes", "file"])
def symbols(request, tmp_path) -> Kallsyms:  # type: ignore[no-untyped-def]
    if request.param == "bytes":
        return Kallsyms.from_bytes(TEXT)
    path = tmp_path / "kallsyms"
    path.write_bytes(TEXT)
    return Kallsyms(str(path))


@pytest.mark.parametrize(
    ("name", "address"),
    [("_stext", 0xFFFFFFFF81000000), ("_text", 0xFFFFFFFF81000000), ("vfs_read", 0xFFFFFFFF81000100),
     ("helper", 0xFFFFFFFF81000040), ("xfs_close", 0xFFFFFFFFC0000080), ("vfs", 0), ("read", 0), ("nosuch", 0), ("", 0),
     ("T vfs_read", 0), ("[xfs]", 0)],
)  # fmt: skip
def test_addresses(symbols: Kallsyms, name: str, address: int) -> None:
    assert symbols.address(name) == address
    assert symbols.address(name) == address  # and again, now that the text is there


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (0xFFFFFFFF81000000, ("_stext", 0, "")),
        (0xFFFFFFFF8100003F, ("_stext", 0x3F, "")),
        (0xFFFFFFFF81000040, ("helper", 0, "")),
        (0xFFFFFFFF81000181, ("vfs_read_iter", 1, "")),
        (0xFFFFFFFF81000203, ("helper", 3, "")),
        (0xFFFFFFFFC0000080, ("xfs_close", 0, "xfs")),
        (0xFFFFFFFFC0000101, ("xfs_open", 1, "xfs")),
        (0xFFFFFFFFC0001004, ("bpf_prog_1", 4, "bpf")),
        (0x5000000, None),
        (0xFFFFFFFFFFFFFFFF, None),
        (0xFFFFFFFF80FFFFFF, None),
    ],
)
def test_resolving(symbols: Kallsyms, address: int, found: tuple[str, int, str] | None) -> None:
    assert symbols.resolve(address) == found


def test_every_symbol_is_listed(symbols: Kallsyms) -> None:
    listed = list(symbols.iter_symbols())
    assert len(listed) == 10
    assert listed[1] == (0xFFFFFFFF81000000, "T", "_stext", "")
    assert listed[-1] == (0xFFFFFFFFC0000080, "T", "xfs_close", "xfs")


def test_names_at_the_seam_of_two_reads_are_found(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "kallsyms"
    path.write_bytes(TEXT.partition(b"\n")[2])
    for size in range(1, 80):
        monkeypatch.setattr("sonde.debuginfo.kallsyms._READ_BYTES", size + 16)
        assert Kallsyms(str(path)).address("vfs_read") == 0xFFFFFFFF81000100
        assert Kallsyms(str(path)).address("xfs_close") == 0xFFFFFFFFC0000080
        assert Kallsyms(str(path)).address("vfs") == 0


def test_hidden_addresses_are_a_privilege_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    hidden = b"0000000000000000 T _stext\n0000000000000000 T vfs_read\n"
    with pytest.raises(PrivilegeError) as caught:
        Kallsyms.from_bytes(hidden)
    assert caught.value.capability == "CAP_SYSLOG" and "kptr_restrict" in caught.value.hint
    path = tmp_path / "kallsyms"
    path.write_bytes(hidden)
    for question in (lambda k: k.address("vfs_read"), lambda k: k.resolve(5), lambda k: list(k.iter_symbols())):
        with pytest.raises(PrivilegeError):
            question(Kallsyms(str(path)))


def test_a_missing_file_is_a_missing_feature() -> None:
    with pytest.raises(FeatureError):
        Kallsyms("/nonexistent").address("x")


@pytest.mark.parametrize(
    "text", [b"garbage\n", b"zz T x\n", b"12 TT x\n", b"12 T a b c\n", b"1" * 40 + b" T x\n", b"12 T\n", b"\n"]
)
def test_garbage_is_a_format_error(text: bytes) -> None:
    with pytest.raises(FormatError):
        list(Kallsyms.from_bytes(text).iter_symbols())


@given(st.lists(st.tuples(st.integers(0, len(TEXT) - 1), st.integers(0, 255)), max_size=5), st.integers(0, len(TEXT)))
@settings(max_examples=300, deadline=None)
def test_damaged_text_only_raises_errors_of_ours(changes: list[tuple[int, int]], size: int) -> None:
    data = bytearray(TEXT)
    for place, value in changes:
        data[place] = value
    with contextlib.suppress(FormatError, PrivilegeError):
        symbols = Kallsyms.from_bytes(bytes(data[:size]))
        symbols.address("vfs_read")
        symbols.resolve(0xFFFFFFFF81000181)
        symbols.resolve(0xFFFFFFFFC0000101)


def test_resolving_an_empty_table() -> None:
    assert Kallsyms.from_bytes(b"").resolve(5) is None
    assert Kallsyms.from_bytes(b"").address("x") == 0

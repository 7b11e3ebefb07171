"""Sets of programs in place of a struct of the kernel's functions: a congestion control of TCP, registered, used and gone again."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sonde.api.build import build
from sonde.api.objects import bind, load_object, open_object, read_object
from sonde.api.trace import compile
from sonde.bpf.objfile.combine import combine_objects
from sonde.bpf.objfile.model import ObjectFile
from sonde.bpf.objfile.read import read_object as read
from sonde.bpf.objfile.write import write_object
from sonde.cli.main import run
from sonde.debuginfo.ctype import Member, Struct
from sonde.errors import AttachError, CompileError, FeatureError, FormatError
from sonde.kernel import structops
from sonde.lang.source import Source
from sonde.record import replace

pytestmark = pytest.mark.kernel
OBJECT = Path(__file__).parents[1] / "objects" / "congestion.o"
KNOWN = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
NAME = "sonde_test"


@pytest.fixture(autouse=True)
def gone_again() -> Iterator[None]:
    assert NAME not in KNOWN.read_text()
    yield
    assert NAME not in KNOWN.read_text()


def talk() -> bytes:
    """A connection to ourselves that uses the congestion control; return what the kernel calls it."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, NAME.encode())
        client.connect(server.getsockname())
        with server.accept()[0] as other:
            client.sendall(bytes(100_000))
            left = 100_000
            while left:
                left -= len(other.recv(left))
            return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def counts(data: list[bytes] | None) -> tuple[int, int]:
    assert data is not None
    started, asked = struct.unpack("<qq", data[0])
    return started, asked


def test_registered_as_long_as_it_is_loaded() -> None:
    loaded = load_object(read_object(str(OBJECT)))
    with loaded.object as live:
        assert [(link.probes[0].name, link.method) for link in loaded.links] == [
            ("struct_ops:sonde_test", "struct_ops link")
        ]
        assert NAME in KNOWN.read_text()
        assert counts(live.maps[".bss"].lookup(bytes(4))) == (0, 0)
        assert talk() == NAME.encode()
        started, asked = counts(live.maps[".bss"].lookup(bytes(4)))
        assert started == 1 and asked > 0


def test_loaded_only() -> None:
    with load_object(read_object(str(OBJECT)), attach=False).object:
        assert NAME not in KNOWN.read_text()


def test_without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on kernels before 6.4: the entry of the map is the registration, and is deleted."""
    monkeypatch.setattr(structops, "_LINK_FLAG", 0)
    loaded = load_object(read_object(str(OBJECT)))
    with loaded.object as live:
        assert [link.method for link in loaded.links] == ["struct_ops map"]
        assert talk() == NAME.encode()
        assert counts(live.maps[".bss"].lookup(bytes(4)))[0] == 1


def test_registered_twice_is_refused() -> None:
    with load_object(read_object(str(OBJECT))).object:
        with pytest.raises(AttachError, match="struct_ops:sonde_test") as caught:
            load_object(read_object(str(OBJECT)))
        assert "registered already" in caught.value.hint
        assert NAME in KNOWN.read_text()


@pytest.mark.parametrize("how", ["written", "linked"])
def test_written_and_linked(how: str) -> None:
    data = OBJECT.read_bytes()
    data = write_object(read(data)) if how == "written" else combine_objects([("x.o", data)])
    with load_object(bind(read(data))).object:
        assert talk() == NAME.encode()


def test_sonde_s_verifier_knows_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sonde", ["verify", str(OBJECT)]) == 0
    assert capsys.readouterr().out.count(": safe") == 4


def changed(**fields: object) -> ObjectFile:
    found = open_object(str(OBJECT))
    (ops,) = [each for each in found.maps if each.name == NAME]
    return replace(found, maps=tuple(replace(m, **fields) if m is ops else m for m in found.maps))


def own_struct() -> Struct:
    (ops,) = [each for each in open_object(str(OBJECT)).maps if each.name == NAME]
    assert isinstance(ops.value, Struct)
    return ops.value


def test_a_struct_that_the_kernel_does_not_let_replace() -> None:
    other = Struct("struct", "file_operations", 56, own_struct().members)
    with pytest.raises(FeatureError, match="takes no programs in place of struct file_operations") as caught:
        load_object(bind(changed(value=other)))
    assert "tcp_congestion_ops" in caught.value.hint


def test_flavours_and_members_that_are_gone() -> None:
    members = own_struct().members
    more = (*members, Member("no_such_member", members[-1].ctype, 8 * 52))
    flavour = Struct("struct", "tcp_congestion_ops___other", 56, more)
    with load_object(bind(changed(value=flavour))).object:
        assert NAME in KNOWN.read_text()
    content = open_object(str(OBJECT)).maps[0].initial
    content = content[:52] + b"\1\0\0\0"
    with pytest.raises(FeatureError, match="sets no_such_member, which this kernel's struct tcp_congestion_ops"):
        load_object(bind(changed(value=flavour, initial=content)))


def test_what_cannot_be_bound() -> None:
    with pytest.raises(FormatError, match=r"stands in several members: .*cong_avoid, .*ssthresh"):
        bind(changed(values=((0, "sonde_avoid"), (8, "sonde_avoid"))))
    with pytest.raises(FormatError, match="has no programs"):
        bind(changed(values=()))
    left = bind(changed(values=((0, "sonde_ssthresh"),)))
    assert [program.name for program in left.programs] == ["sonde_ssthresh"]
    assert sum("stands in no set of programs" in each.message for each in left.warnings) == 3


# From C text ------------------------------------------------------------------------------------------------------

TEXT = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
long started, asked;
SEC("struct_ops/sonde_init") void BPF_PROG(sonde_init, struct sock *sk) { __sync_fetch_and_add(&started, 1); }
SEC("struct_ops/sonde_ssthresh") u32 BPF_PROG(sonde_ssthresh, struct sock *sk) { __sync_fetch_and_add(&asked, 1); return 2; }
SEC("struct_ops/sonde_undo") u32 BPF_PROG(sonde_undo, struct sock *sk) { return ((struct tcp_sock *)sk)->snd_cwnd; }
SEC("struct_ops/sonde_avoid") void BPF_PROG(sonde_avoid, struct sock *sk, u32 ack, u32 acked) { __sync_fetch_and_add(&asked, 1); }
SEC("struct_ops/alone") u32 BPF_PROG(alone, struct sock *sk) { return 0; }
SEC(".struct_ops.link") struct tcp_congestion_ops sonde_test = {
	.init = (void *)sonde_init, .ssthresh = (void *)sonde_ssthresh, .cong_avoid = (void *)sonde_avoid, .undo_cwnd = (void *)sonde_undo,
	.name = "sonde_test",
};
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.mark.parametrize("how", ["at once", "built"])
def test_of_c_text(how: str) -> None:
    source = Source("x.bpf.c", TEXT)
    spec = compile(source) if how == "at once" else bind(read(build(source)))
    assert [program.name for program in spec.programs] == ["sonde_init", "sonde_ssthresh", "sonde_undo", "sonde_avoid"]
    loaded = load_object(spec)
    with loaded.object as live:
        assert [link.method for link in loaded.links] == ["struct_ops link"]
        assert talk() == NAME.encode()
        started, asked = counts(live.maps[".bss"].lookup(bytes(4)))
        assert started == 1 and asked > 0


@pytest.mark.skipif(not shutil.which("bpftool"), reason="needs bpftool (Debian package bpftool)")
def test_bpftool_registers_what_was_built(tmp_path: Path) -> None:
    """Without `.link`, which libbpf 1.1 does not know."""
    path = tmp_path / "x.o"
    path.write_bytes(
        build(
            Source("x.bpf.c", TEXT.replace(".struct_ops.link", ".struct_ops").replace('SEC("struct_ops/alone', "// "))
        )
    )
    try:
        subprocess.run(["bpftool", "struct_ops", "register", str(path)], check=True, capture_output=True)
        assert talk() == NAME.encode()
    finally:
        subprocess.run(["bpftool", "struct_ops", "unregister", "name", NAME], check=True, capture_output=True)


def test_c_text_that_is_wrong() -> None:
    with pytest.raises(CompileError, match="no struct of functions"):
        compile(Source("x.bpf.c", TEXT + 'SEC(".struct_ops") long number = 3;'))

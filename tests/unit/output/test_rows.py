"""Rows that are more than a value: reports, files, commands, times; what goes to stderr; writing to broken outputs."""

from __future__ import annotations

import json as standard_json
import os
import re

import pytest
from unit.output.printers import S8, S32, STR, U64, event, json, segments, snapshot, text, view

from sonde.errors import OutputError, Span
from sonde.output.file import Sink, open_sink, write_atomically
from sonde.output.text import TextPrinter
from sonde.output.timetext import format_time
from sonde.record import replace
from sonde.spec.engine import Row
from sonde.spec.layout import Layout
from sonde.spec.object import EventSpec

SPAN = Span("e3.bt", 1, 203, 1, 222)


def both(row: Row) -> tuple[tuple[str, str], tuple[str, str]]:
    return text(lambda p: p.row(row)), json(lambda p: p.row(row))


def test_errorf_and_warnf() -> None:
    for kind, severity in (("errorf", "ERROR"), ("warnf", "WARNING")):
        spec = replace(event(kind, S8, segments=segments("bad %d\n")), span=SPAN)
        as_text, as_json = both(Row(spec, (5,)))
        assert as_text == ("", f"e3.bt:1:203-222: {severity}: bad 5\n")
        assert as_json == (
            f'{{"type": "{kind}", "msg": "bad 5\\n", "filename": "e3.bt", "line": 1, "col": 203}}\n',
            "",
        )


def test_helper_error() -> None:
    params = {"helper": "map_update_elem", "message": "Map full.", "excerpt": "BEGIN { @m[$i]=1; }"}
    spec = replace(event("helper_error", S32, **params), span=Span("e6.bt", 1, 9, 1, 15))
    as_text, as_json = both(Row(spec, (-7,)))
    assert as_text == (
        "",
        "e6.bt:1:9-15: WARNING: Map full.\n"
        "Additional Info - helper: map_update_elem, retcode: -7\n"
        "BEGIN { @m[$i]=1; }\n"
        "        ~~~~~~\n",
    )
    assert as_json[0] == (
        '{"type": "helper_error", "msg": "Argument list too long", "helper": "map_update_elem", "retcode": -7, '
        '"filename": "e6.bt", "line": 1, "col": 9}\n'
    )


def test_helper_error_without_place() -> None:
    assert text(lambda p: p.row(Row(event("helper_error", S32, helper="x"), (-2,))))[1].startswith(
        "WARNING: No such file or directory\n"
    )


def test_runtime_error() -> None:
    spec = replace(
        event("runtime_error", message="Divide by 0.", excerpt="BEGIN { 5 / $x }"), span=Span("a.bt", 1, 9, 1, 15)
    )
    as_text, as_json = both(Row(spec, ()))
    assert as_text == ("", "a.bt:1:9-15: WARNING: Divide by 0.\nBEGIN { 5 / $x }\n        ~~~~~~\n")
    assert as_json[0] == '{"type": "runtime_error", "msg": "Divide by 0.", "filename": "a.bt", "line": 1, "col": 9}\n'


def test_join() -> None:
    spec = event("join", *[STR] * 5)
    as_text, as_json = both(Row(spec, ("/bin/echo", "a b", "", "", ",")))
    assert as_text[0] == "/bin/echo,a b\n"
    assert as_json[0] == '{"type": "join", "data": "/bin/echo,a b"}\n'


def test_cat(tmp_path: object) -> None:
    path = f"{tmp_path}/file"
    with open(path, "w") as file:
        file.write('l1\nl"2\n')
    spec = event("cat", STR, segments=segments("%s"), max_bytes=0)
    as_text, as_json = both(Row(spec, (path,)))
    assert as_text == ('l1\nl"2\n', "")
    assert as_json == ('{"type": "cat", "data": "l1\\nl\\"2\\n"}\n', "")
    short = event("cat", STR, segments=segments("%s"), max_bytes=2)
    assert text(lambda p: p.row(Row(short, (path,))))[0] == "l1"


def test_cat_of_what_is_not_there() -> None:
    as_text, as_json = both(Row(event("cat", segments=segments("/nonexistent")), ()))
    assert as_text == ("", "ERROR: failed to open file '/nonexistent' (No such file or directory)\n")
    assert as_json == as_text


def test_system() -> None:
    spec = event("system", STR, segments=segments("echo hi %s; echo err >&2"))
    as_text, as_json = both(Row(spec, ("you",)))
    assert as_text == ("hi you\nerr\n\n", "")
    assert as_json == ('{"type": "syscall", "data": "hi you\\nerr\\n"}\n', "")


def test_system_that_fails() -> None:
    """bpftrace drops what such a command wrote."""
    as_text, _ = both(Row(event("system", segments=segments("echo hi; exit 3")), ()))
    assert as_text == ("hi\n\n", "ERROR: command exited with code 3\n")


def test_time() -> None:
    out = text(lambda p: p.row(Row(event("time", format="%H:%M\n"), ())))[0]
    assert re.fullmatch(r"\d\d:\d\d\n", out)
    default = json(lambda p: p.row(Row(event("time"), ())))[0]
    assert re.fullmatch(r"\d\d:\d\d:\d\d\n", standard_json.loads(default)["data"])


def test_microseconds_in_times() -> None:
    assert format_time("%f|%%f|%%%f", 1_000_002_003) == "000002|%f|%000002"


def test_packets(tmp_path: object) -> None:
    path = f"{tmp_path}/x.pcap"
    spec = event("skboutput", U64, Layout("buffer", 64), path=path)
    both(Row(spec, (100, b"packet")))
    with open(path, "rb") as file:
        data = file.read()
    assert data[:4] == bytes.fromhex("d4c3b2a1")
    assert len(data) == 24 + 2 * (16 + 6)
    assert data[24 + 8 : 24 + 16] == (6).to_bytes(4, "little") + (100).to_bytes(4, "little")


def test_attached() -> None:
    assert text(lambda p: p.attached(1)) == ("", "Attached 1 probe\n")
    assert text(lambda p: p.attached(2)) == ("", "Attached 2 probes\n")
    assert text(lambda p: p.attached(2), quiet=True) == ("", "")
    assert json(lambda p: p.attached(3)) == ('{"type": "attached_probes", "count": 3, "data": {"probes": 3}}\n', "")
    assert json(lambda p: p.attached(3), quiet=True) == ("", "")


def test_notice_for_programs_that_wait() -> None:
    assert text(lambda p: p.attached(1), notify=True, quiet=True)[0] == "__BPFTRACE_NOTIFY_PROBES_ATTACHED\n"
    assert json(lambda p: p.attached(1), notify=True, quiet=True)[0] == "__BPFTRACE_NOTIFY_PROBES_ATTACHED\n"


def test_closed_stderr_is_no_failure() -> None:
    printer = TextPrinter(Sink(1), error_fd=9999)
    printer.message("WARNING", "nobody hears this")


def test_lost_events() -> None:
    def lose(printer: TextPrinter) -> None:
        printer.lost(5)
        printer.lost(7)

    assert text(lose) == ("", "Lost 5 events\nLost 7 events\nWARNING: Total lost event count: 12\n")
    out, err = json(lambda p: p.lost(5))
    assert out == '{"type": "lost_events", "count": 5, "data": {"events": 5}}\n'
    assert err == "WARNING: Total lost event count: 5\n"


def test_maps_are_set_apart_at_the_end() -> None:
    assert text(lambda p: p.ending())[0] == "\n\n"
    assert json(lambda p: p.ending())[0] == ""


def test_messages_go_to_stderr_after_the_rows_before_them() -> None:
    with open(os.devnull, "w") as null:
        sink = Sink(null.fileno())
        printer = TextPrinter(sink, error_fd=null.fileno())
        sink.write(b"row\n")
        printer.message("WARNING", "careful")
        assert sink.chunks == []
    assert text(lambda p: p.message("WARNING", "careful")) == ("", "WARNING: careful\n")


# Buffering and failures --------------------------------------------------------------------------------------------


def written(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    ("buffering", "after_row", "after_flush"),
    [("none", b"row\n", b"row\n"), ("line", b"", b"row\n"), ("full", b"", b"")],
)
def test_buffering(tmp_path: object, buffering: str, after_row: bytes, after_flush: bytes) -> None:
    path = f"{tmp_path}/out"
    printer = TextPrinter(open_sink(path, buffering))
    printer.row(Row(event("printf", segments=segments("row\n")), ()))
    assert written(path) == after_row
    printer.flush()
    assert written(path) == after_flush
    printer.close()
    assert written(path) == b"row\n"


def test_full_buffering_writes_when_there_is_much(tmp_path: object) -> None:
    path = f"{tmp_path}/out"
    sink = open_sink(path, "full")
    sink.write(b"x" * 100_000)
    sink.flush()
    assert len(written(path)) == 100_000
    sink.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_disk_is_an_output_error() -> None:
    sink = open_sink("/dev/full")
    sink.write(b"x")
    with pytest.raises(OutputError, match="/dev/full: No space left"):
        sink.flush()
    sink.close()


def test_output_file_that_cannot_be_opened() -> None:
    with pytest.raises(OutputError, match="/nonexistent/x"):
        open_sink("/nonexistent/x")


def test_closed_pipe_is_a_broken_pipe() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    sink = Sink(write_end, owned=True)
    sink.write(b"x")
    with pytest.raises(BrokenPipeError):
        sink.flush()
    sink.close()


def test_large_writes_are_finished_on_non_blocking_pipes() -> None:
    import threading

    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(read_end, True)
    got: list[int] = []

    def read() -> None:
        while chunk := os.read(read_end, 1 << 16):
            got.append(len(chunk))

    thread = threading.Thread(target=read)
    thread.start()
    sink = Sink(write_end, owned=True)
    sink.write(b"x" * 1_000_000)
    sink.flush()
    sink.close()
    thread.join(10)
    os.close(read_end)
    assert sum(got) == 1_000_000


def test_write_atomically(tmp_path: object) -> None:
    path = f"{tmp_path}/script.bt"
    write_atomically(path, "one")
    write_atomically(path, "two")
    assert written(path) == b"two"
    assert os.listdir(str(tmp_path)) == ["script.bt"]
    with pytest.raises(OutputError):
        write_atomically("/nonexistent/x", "three")


@pytest.mark.parametrize("kind", ["printf", "print", "time", "join", "cat", "system", "errorf", "warnf", "debugf"])
def test_both_printers_know_each_kind_of_row(kind: str) -> None:
    layouts = [STR, STR] if kind == "join" else [STR]
    row = Row(event(kind, *layouts, segments=segments("%s"), format="%Y"), ("x", "y")[: len(layouts)])
    as_text, as_json = both(row)
    assert "".join(as_text)
    assert "".join(as_json)


def test_a_snapshot_of_nothing_prints_nothing() -> None:
    shot = snapshot(view("@x", None, U64), {})
    assert text(lambda p: p.snapshot(shot)) == json(lambda p: p.snapshot(shot)) == ("", "")


def test_line_format_is_for_printf_only() -> None:
    printer = TextPrinter(Sink(1))
    assert printer.line_format(EventSpec(1, "print", 16)) is None
    assert printer.line_format(event("printf", U64, segments=segments("%llu\n"))) is not None

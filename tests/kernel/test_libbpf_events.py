"""`sonde trace x.bpf.c`: the records of ring and perf buffers as rows, by the type of what programs submit; losses counted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from kernel.test_libbpf_command import run

pytestmark = pytest.mark.kernel
RING = "{ __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); }"
PERF = "{ __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); }"
EVENT = """
enum what { ENTER = 1, LEAVE };
struct event { u64 ts; u32 pid; enum what what; char comm[16]; struct { s16 low : 4, high : 12; } bits; u8 tail[3]; };
"""
FILL = """
    e->ts = 5;
    e->pid = bpf_get_current_pid_tgid() >> 32;
    e->what = LEAVE;
    bpf_get_current_comm(e->comm, sizeof(e->comm));
    e->bits.low = -3;
    e->bits.high = 100;
    e->tail[0] = 9; e->tail[1] = 0; e->tail[2] = 255;
"""


def comm() -> str:
    return Path("/proc/self/comm").read_text().strip()


def rows(out: str, name: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(f"{name}: ")]


def expected(name: str) -> str:
    bits = "{ .low = -3, .high = 100 }"
    return f"{name}: {{ .ts = 5, .pid = {os.getpid()}, .what = LEAVE, .comm = {comm()}, .bits = {bits}, .tail = [9,0,255] }}"


RESERVED = f"""{EVENT}
struct {RING} events SEC(".maps");
SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
{{
    OURS
    struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
    if (!e)
        return 0;
    {FILL}
    bpf_ringbuf_submit(e, 0);
    return 0;
}}
"""


def test_reserved_records_are_rows(tmp_path: Path) -> None:
    assert rows(run(tmp_path, RESERVED).stdout, "events") == [expected("events")] * 3


def test_as_json(tmp_path: Path) -> None:
    out = run(tmp_path, RESERVED, "-f", "json", "-B", "none", calls=1).stdout
    (row,) = [row for row in map(json.loads, out.splitlines()) if row["type"] == "record"]
    assert row["data"] == {
        "events": {
            "ts": 5, "pid": os.getpid(), "what": 2, "comm": comm(), "bits": {"low": -3, "high": 100}, "tail": [9, 0, 255],
        }
    }  # fmt: skip


def test_perf_buffers_and_records_put_out_from_the_stack(tmp_path: Path) -> None:
    text = f"""{EVENT}
    struct {PERF} perf SEC(".maps");
    struct {RING} ring SEC(".maps");
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
    {{
        OURS
        struct event event = {{}}, *e = &event;
        {FILL}
        bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &event, sizeof(event));
        bpf_ringbuf_output(&ring, e, sizeof(*e), 0);
        return 0;
    }}
    """
    out = run(tmp_path, text, calls=2).stdout
    assert rows(out, "perf") == [expected("perf")] * 2
    assert rows(out, "ring") == [expected("ring")] * 2


def test_through_functions_that_know_no_type(tmp_path: Path) -> None:
    """libbpf-tools' compat.bpf.h: a function reserves bytes, another submits them."""
    text = f"""{EVENT}
    struct {RING} events SEC(".maps");
    static __always_inline void *reserve_buf(u64 size) {{ return bpf_ringbuf_reserve(&events, size, 0); }}
    static __always_inline long submit_buf(void *ctx, void *buf, u64 size) {{ bpf_ringbuf_submit(buf, 0); return 0; }}
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
    {{
        OURS
        struct event *e;
        e = reserve_buf(sizeof(*e));
        if (!e)
            return 0;
        {FILL}
        submit_buf(ctx, e, sizeof(*e));
        return 0;
    }}
    """
    assert rows(run(tmp_path, text, calls=2).stdout, "events") == [expected("events")] * 2


def test_types_are_told_apart_by_their_sizes(tmp_path: Path) -> None:
    text = f"""
    struct small {{ u32 a; }};
    struct large {{ u32 a, b, c; char text[]; }};
    struct {RING} ring SEC(".maps");
    struct {PERF} perf SEC(".maps");
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
    {{
        OURS
        struct small s = {{ 1 }};
        struct {{ struct large head; char text[4]; }} l = {{ {{ 2, 3, 4 }}, "abc" }};
        bpf_ringbuf_output(&ring, &s, sizeof(s), 0);
        bpf_ringbuf_output(&ring, (struct large *)&l.head, sizeof(l.head), 0);
        bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &l.head, sizeof(l));
        return 0;
    }}
    """
    out = run(tmp_path, text, calls=1).stdout
    assert rows(out, "ring") == ["ring: { .a = 1 }", "ring: { .a = 2, .b = 3, .c = 4, .text =  }"]
    assert rows(out, "perf") == ["perf: { .a = 2, .b = 3, .c = 4, .text = abc }"]


def test_types_of_one_size_and_bytes_without_a_type(tmp_path: Path) -> None:
    text = f"""
    struct here {{ u32 a; }};
    struct there {{ u32 b; }};
    struct {RING} mixed SEC(".maps");
    struct {RING} plain SEC(".maps");
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
    {{
        OURS
        struct here a = {{ 0x41424344 }};
        struct there b = {{ 1 }};
        void *p = &a;
        bpf_ringbuf_output(&mixed, &a, sizeof(a), 0);
        bpf_ringbuf_output(&mixed, &b, sizeof(b), 0);
        bpf_ringbuf_output(&plain, p, 4, 0);
        return 0;
    }}
    """
    done = run(tmp_path, text, calls=1)
    lines = done.stdout.splitlines()
    assert lines.count("mixed: 4 bytes") == 2 and lines.count("plain: 4 bytes") == 1
    assert lines.count("    0000  44 43 42 41                                      DCBA") == 2
    assert "they may be struct here or struct there" in done.stderr
    assert "no call tells their type" in done.stderr


def test_losses_are_counted(tmp_path: Path) -> None:
    """A ring of a page has room for 4 of 1,000 bytes; nobody reads while the program runs."""
    text = f"""
    struct large {{ char bytes[1000]; }};
    struct {RING} ring SEC(".maps");
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
    {{
        OURS
        for (int i = 0; i < 20; i++) {{
            struct large *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);
            if (!e)
                continue;
            e->bytes[0] = 'x';
            e->bytes[1] = 0;
            bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
        }}
        return 0;
    }}
    """
    done = run(tmp_path, text, calls=1)
    assert rows(done.stdout, "ring") == ["ring: { .bytes = x }"] * 4
    assert "Lost 16 events" in done.stderr


def test_members_without_a_name_are_members_of_the_struct_around_them(tmp_path: Path) -> None:
    text = f"""
    struct event {{ u32 a; union {{ u32 word; struct {{ u8 low; u8 : 4, high : 4; }}; }}; struct {{ s16 x : 4, : 4, y : 8; }}; }};
    struct {RING} ring SEC(".maps");
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
    {{
        OURS
        struct event e = {{ .a = 1, .word = 0x5007, .x = -2, .y = 3 }};
        bpf_ringbuf_output(&ring, &e, sizeof(e), 0);
        return 0;
    }}
    """
    wanted = {"a": 1, "word": 0x5007, "low": 7, "high": 5, "x": -2, "y": 3}
    out = run(tmp_path, text, "-f", "json", "-B", "none", calls=1).stdout
    (row,) = [row for row in map(json.loads, out.splitlines()) if row["type"] == "record"]
    assert row["data"]["ring"] == wanted


def test_numbers_of_128_bits(tmp_path: Path) -> None:
    text = f"""
    struct event {{ __int128 minus; unsigned __int128 large; __int128 both[2]; }};
    struct {RING} ring SEC(".maps");
    unsigned __int128 total;
    struct {{ __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, unsigned __int128); __type(value, u32); }} by SEC(".maps");
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
    {{
        OURS
        struct event e = {{ -5, (unsigned __int128)3 << 70, {{ 1, -2 }} }};
        u32 one = 1;
        bpf_ringbuf_output(&ring, &e, sizeof(e), 0);
        bpf_map_update_elem(&by, &e.large, &one, 0);
        total += e.large;
        return 0;
    }}
    """
    out = run(tmp_path, text, calls=1).stdout
    assert rows(out, "ring") == [f"ring: {{ .minus = -5, .large = {3 << 70}, .both = [1,-2] }}"]
    assert f"by[{3 << 70}]: 1" in out and f"total: {3 << 70}" in out


def test_records_by_dynamic_pointers(tmp_path: Path) -> None:
    """Their type is that of the size that is reserved; those that find no room are counted."""
    text = f"""
    struct event {{ u32 a; char text[8]; }};
    struct {RING} ring SEC(".maps");
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
    {{
        OURS
        for (int i = 0; i < 300; i++) {{
            struct bpf_dynptr d;
            struct event *e;
            if (bpf_ringbuf_reserve_dynptr(&ring, sizeof(struct event), 0, &d)) {{
                bpf_ringbuf_discard_dynptr(&d, BPF_RB_NO_WAKEUP);
                continue;
            }}
            e = bpf_dynptr_data(&d, 0, sizeof(*e));
            if (e) {{
                e->a = i;
                __builtin_memcpy(e->text, "abc", 4);
            }}
            bpf_ringbuf_submit_dynptr(&d, BPF_RB_NO_WAKEUP);
        }}
        return 0;
    }}
    """
    done = run(tmp_path, text, calls=1)
    room = 4096 // 24
    assert rows(done.stdout, "ring") == [f"ring: {{ .a = {i}, .text = abc }}" for i in range(room)]
    assert f"Lost {300 - room} events" in done.stderr

"""Runs pure Python inputs through whichever `bcc` is on the path, and prints what comes out: the original in one process, ours in another.

The tables of both are made without a kernel map: their items are set from outside, so that only what turns them into text is compared.
"""

import ctypes as ct
import json
import random
import sys


class Pair(ct.Structure):
    _fields_ = [("name", ct.c_char * 8), ("slot", ct.c_ulonglong)]


class Wide(ct.Structure):
    _fields_ = [("dev", ct.c_uint), ("__pad_1", ct.c_ubyte * 4), ("slot", ct.c_ulonglong)]


def table_of(base, key, items):
    """A table whose entries are `items`."""
    made = type("Fixed", (base,), {"__init__": lambda self: None, "items": lambda self: items})()
    made.Key, made.Leaf = key, ct.c_ulonglong
    return made


def histograms(base):
    """Print histograms of many shapes."""
    rng = random.Random(7)
    for limit in (1, 2, 5, 31, 32, 33, 40, 63):
        for most in (1, 3, 100, 1 << 20, 1 << 45):
            slots = sorted(rng.sample(range(limit + 1), min(limit, 6)))
            items = [(ct.c_uint(s), ct.c_ulonglong(rng.randrange(most + 1))) for s in slots]
            t = table_of(base, ct.c_uint, items)
            for options in ({}, {"strip_leading_zero": True}, {"val_type": "usecs"}):
                t.print_log2_hist(**options)
                t.print_linear_hist(**options)
            t.print_json_hist(val_type="msecs")
    sections = [
        (Pair(n, s), ct.c_ulonglong(c)) for n, s, c in ((b"sdb", 3, 5), (b"sda", 1, 2), (b"sdb", 9, 1), (b"\xff", 2, 2))
    ]
    t = table_of(base, Pair, sections)
    for printer in (t.print_log2_hist, t.print_linear_hist, t.print_json_hist):
        printer()
        printer("usecs", "disk", section_print_fn=lambda name: name.decode(errors="replace"))
        printer("usecs", "disk", bucket_fn=lambda name: name[:1], bucket_sort_fn=sorted)
    padded = [(Wide(7, (ct.c_ubyte * 4)(), 3), ct.c_ulonglong(4))]
    table_of(base, Wide, padded).print_log2_hist("x", "dev")


LINES = [
    b"            bash-1234    [001] d...1 12345.678901: bpf_trace_printk: hello: world",
    b"           <...>-99      [000] d... 1.000001: : open /etc/passwd",
    b"  kworker/0:1-H-7       [003] d..21   99.5: 0x00000001: a:b:c",
    b"CPU:1 [LOST 5 EVENTS]",
    b"a task without an end",
    b"0123456789abcdef-5 [000] .... 3.5: 0: x",
]


def trace_lines(BPF):
    """Print the fields of lines, and what trace_print prints."""

    class Pipe:
        def __init__(self):
            self.lines = [line + b"\n" for line in LINES]

        def readline(self, limit):
            if not self.lines:
                raise KeyboardInterrupt
            return self.lines.pop(0)

        def close(self):
            pass

    for fmt in (None, "pid {1}, msg = {5}", "{0} {2} {3} {4:.6f}"):
        b = BPF.__new__(BPF)
        b.tracefile = Pipe()
        try:
            b.trace_print(fmt)
        except KeyboardInterrupt:
            pass
    b = BPF.__new__(BPF)
    b.tracefile = Pipe()
    try:
        while True:
            print(b.trace_fields())
    except KeyboardInterrupt:
        pass


def helpers():
    """Print what the small modules say."""
    from bcc import ArgString, tcp
    from bcc.syscall import syscall_name
    from bcc.utils import StrcmpRewrite, get_online_cpus, get_possible_cpus, printb

    print([tcp.flags2str(f) for f in range(256)], sorted(tcp.tcpstate.items()))
    print([syscall_name(n) for n in range(335)], syscall_name(100000))
    print(bytes(ArgString("x\udcff")) if hasattr(sys, "never") else bytes(ArgString("xyz")), str(ArgString("xyz")))
    print(get_online_cpus(), get_possible_cpus())
    sys.stdout.flush()
    printb(b"bytes \xff")
    printb(b"no newline", nl=0)
    printb(b"")
    for binary in (False, True):
        for user in (False, True):
            text = 'STRCMP("{1, 2}", arg1) || x && STRCMP("text", (char *)arg2)'
            print(
                json.dumps(StrcmpRewrite.rewrite_expr(text, binary, user, ["arg1"], "/* before */", 4), sort_keys=True)
            )


def constants():
    """Print the values of all constants that the original has."""
    import bcc

    for name in ("PerfType", "PerfHWConfig", "PerfSWConfig", "PerfEventSampleFormat", "BPFProgType", "BPFAttachType",
                 "XDPAction", "XDPFlags", "BPF"):  # fmt: skip
        cls = getattr(bcc, name)
        values = {}
        for base in reversed(cls.__mro__):
            values.update((k, v) for k, v in vars(base).items() if k.isupper() and isinstance(v, int))
        print(name, json.dumps(values, sort_keys=True))
    print(sorted(f[0] for f in bcc.perf.Perf.perf_event_attr._fields_ if not f[0].startswith("_"))[:10])
    attr = bcc.perf.Perf.perf_event_attr()
    for field in (
        "config",
        "sample_period",
        "sample_type",
        "wakeup_events",
        "bp_addr",
        "config2",
        "clockid",
        "aux_sample_size",
    ):
        print(field, getattr(type(attr), field).offset)


def main():
    what = sys.argv[1]
    if what == "histograms":
        import bcc.table
        from bcc.table import HashTable

        if hasattr(bcc.table, "strftime"):
            bcc.table.strftime = lambda form: "NOW"
        else:
            from sonde.api.bcc.tables import histogram

            histogram.strftime = lambda form: "NOW"
        histograms(HashTable)
    elif what == "trace":
        from bcc import BPF

        trace_lines(BPF)
    elif what == "helpers":
        helpers()
    else:
        constants()


main()

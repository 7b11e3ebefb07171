"""Snapshots that a store takes, by shard: the arguments of a USDT probe, each of another size, counted in a hash."""

import sys
import time

from bcc import BPF, USDT

text = r"""
#include <uapi/linux/ptrace.h>

struct shard_t {
    u64 snapshots;
    u64 keys;
    s64 lag;
    s32 worst;
};
BPF_HASH(shards, u16, struct shard_t);

int on_snapshot(struct pt_regs *ctx)
{
    u16 shard = 0;
    u64 keys = 0;
    s32 lag = 0;
    struct shard_t zero = {}, *found;

    bpf_usdt_readarg(1, ctx, &shard);
    bpf_usdt_readarg(2, ctx, &keys);
    bpf_usdt_readarg(3, ctx, &lag);
    found = shards.lookup_or_try_init(&shard, &zero);
    if (found) {
        found->snapshots++;
        found->keys += keys;
        found->lag += lag;
        if (lag < found->worst)
            found->worst = lag;
    }
    return 0;
}
"""

usdt = USDT(pid=int(sys.argv[1]))
usdt.enable_probe(probe="snapshot_taken", fn_name="on_snapshot")
b = BPF(text=text, usdt_contexts=[usdt])
print("Counting snapshots... Hit Ctrl-C to end.", flush=True)
try:
    while True:
        time.sleep(1)
except KeyboardInterrupt:
    print()
print("%-6s %-10s %-20s %-12s %s" % ("SHARD", "SNAPSHOTS", "KEYS", "LAG", "WORST"))
for shard, seen in sorted(b["shards"].items(), key=lambda item: item[0].value):
    print("%-6d %-10d %-20d %-12d %d" % (shard.value, seen.snapshots, seen.keys, seen.lag, seen.worst))

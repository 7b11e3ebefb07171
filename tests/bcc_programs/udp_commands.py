"""Commands by UDP, handled before the network stack sees them: packets to one port are dropped, what those to another carry is kept in a map."""

import sys
import time

from bcc import BPF

text = r"""
#define KBUILD_MODNAME "udp_commands"
#include <uapi/linux/bpf.h>
#include <linux/in.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ip.h>
#include <linux/udp.h>

#define COMMAND_SIZE 32

struct command_t {
    u32 source;
    u16 port;
    u16 size;
    char text[COMMAND_SIZE];
};
BPF_ARRAY(counts, u64, 3);
BPF_HASH(commands, u32, struct command_t);

int filter(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data;
    void *data_end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    struct iphdr *ip = data + sizeof(*eth);
    struct udphdr *udp;
    char *payload;
    struct command_t command = {};
    u32 number;
    u64 *seen;

    if (data + sizeof(*eth) + sizeof(*ip) + sizeof(*udp) > data_end)
        return XDP_PASS;
    if (eth->h_proto != htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP || ip->ihl != 5)
        return XDP_PASS;
    udp = (void *)ip + sizeof(*ip);
    if (udp->dest == htons(DROP_PORT)) {
        counts.atomic_increment(0);
        return XDP_DROP;
    }
    if (udp->dest != htons(COMMAND_PORT)) {
        counts.atomic_increment(2);
        return XDP_PASS;
    }
    payload = (void *)udp + sizeof(*udp);
    command.source = ip->saddr;
    command.port = ntohs(udp->source);
    command.size = ntohs(udp->len) - sizeof(*udp);
#pragma unroll
    for (int i = 0; i < COMMAND_SIZE; i++) {
        if (i >= command.size || (void *)(payload + i + 1) > data_end)
            break;
        command.text[i] = payload[i];
    }
    number = 1;
    seen = counts.lookup((int *)&number);
    if (!seen)
        return XDP_PASS;
    number = __sync_fetch_and_add(seen, 1);
    commands.update(&number, &command);
    return XDP_PASS;
}
"""
device, drop_port, command_port = sys.argv[1:4]
b = BPF(text=text, cflags=["-w", "-DDROP_PORT=%s" % drop_port, "-DCOMMAND_PORT=%s" % command_port])
b.attach_xdp(device, b.load_func("filter", BPF.XDP), 0)
print("Filtering... Hit Ctrl-C to end.", flush=True)
try:
    while True:
        time.sleep(1)
except KeyboardInterrupt:
    print()
finally:
    b.remove_xdp(device, 0)
dropped, kept, passed = (b["counts"][i].value for i in range(3))
print("dropped %d, commands %d, passed %d" % (dropped, kept, passed))
for number, command in sorted(b["commands"].items(), key=lambda item: item[0].value):
    address = ".".join(str(byte) for byte in command.source.to_bytes(4, "little"))
    print(
        "command %d from %s:%d, %d bytes: %s"
        % (number.value, address, command.port, command.size, command.text.decode())
    )

// Lines that people type into shells, and calls of user functions with structs, by uprobes that name nothing yet; sleepable reads.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define LINE_BYTES 256
struct line { __u32 pid; long length; char text[LINE_BYTES]; };
struct request { int fd; struct { const char *data; size_t size; } body; struct request *next; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 20); } lines SEC(".maps");
__u64 bytes, requests, longest;

SEC("uretprobe")
int BPF_URETPROBE(on_line, const void *ret)
{
	struct line *line;

	if (!ret)
		return 0;
	line = bpf_ringbuf_reserve(&lines, sizeof(*line), 0);
	if (!line)
		return 0;
	line->pid = bpf_get_current_pid_tgid() >> 32;
	line->length = bpf_probe_read_user_str(line->text, sizeof(line->text), ret);
	if (line->length < 0)
		bpf_ringbuf_discard(line, 0);
	else
		bpf_ringbuf_submit(line, 0);
	return 0;
}

SEC("uprobe.s")
int BPF_UPROBE(on_request, struct request *first)
{
	struct request r;

	for (int i = 0; i < 8 && first; i++) {
		if (bpf_copy_from_user(&r, sizeof(r), first))
			break;
		requests++;
		bytes += r.body.size;
		longest = r.body.size > longest ? r.body.size : longest;
		first = r.next;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// Iterators that write text for whoever reads them: tasks, maps, TCP sockets.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

static const char *const states[] = { "running", "sleeping", "blocked", "other" };

SEC("iter/task")
int dump_tasks(struct bpf_iter__task *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task;
	unsigned int state;

	if (!task) {
		BPF_SEQ_PRINTF(seq, "end\n");
		return 0;
	}
	if (ctx->meta->seq_num == 0)
		BPF_SEQ_PRINTF(seq, "%8s %8s %s\n", "tgid", "pid", "comm");
	state = task->__state;
	state = state > 2 ? 3 : state;
	BPF_SEQ_PRINTF(seq, "%8d %8d %s %s\n", task->tgid, task->pid, task->comm, states[state & 3]);
	return 0;
}

SEC("iter/bpf_map")
int dump_maps(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;

	if (!map)
		return 0;
	BPF_SEQ_PRINTF(ctx->meta->seq, "%4u %-16s %6d\n", map->id, map->name, map->max_entries);
	return 0;
}

SEC("iter/tcp")
int dump_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tp;

	if (!common)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (tp)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%pI4 %u -> %pI4\n", &common->skc_rcv_saddr, tp->snd_cwnd, &common->skc_daddr);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

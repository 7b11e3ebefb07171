#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct rq { int cpu; } __attribute__((preserve_access_index));
extern const struct rq runqueues __ksym;
extern const struct rq no_such_queues __ksym __weak;
extern const int bpf_prog_active __ksym;
long here = -1, first = -1, none = -1, active = -1;

SEC("raw_tp") int run(void *ctx)
{
	const struct rq *own = bpf_this_cpu_ptr(&runqueues), *other = bpf_per_cpu_ptr(&runqueues, 0);
	const int *count = bpf_this_cpu_ptr(&bpf_prog_active);
	here = own->cpu - (int)bpf_get_smp_processor_id();
	first = other ? other->cpu : -2;
	none = &no_such_queues ? 1 : 0;
	active = *count;
	return 0;
}
char LICENSE[] SEC("license") = "GPL";

"""How old pages that were read ahead are when somebody first uses them, as a histogram; and how many nobody used.

The names of the kernel's functions differ: reading ahead, allocating a page of the page cache and marking one as used are looked for.
"""

import sys

from bcc import BPF

text = r"""
#include <linux/mm_types.h>

BPF_HASH(inside, u32, u8);
BPF_HASH(birth, u64, u64, 65536);
BPF_ARRAY(totals, u64, 2);
BPF_HISTOGRAM(age);

int enter_readahead(struct pt_regs *ctx)
{
    u32 tid = bpf_get_current_pid_tgid();
    char comm[TASK_COMM_LEN], wanted[] = COMM;
    u8 one = 1;

    bpf_get_current_comm(&comm, sizeof(comm));
    for (int i = 0; i < sizeof(wanted); i++)
        if (comm[i] != wanted[i])
            return 0;
    inside.update(&tid, &one);
    return 0;
}

int leave_readahead(struct pt_regs *ctx)
{
    u32 tid = bpf_get_current_pid_tgid();

    inside.delete(&tid);
    return 0;
}

int leave_alloc(struct pt_regs *ctx)
{
    u32 tid = bpf_get_current_pid_tgid();
    u64 page = PT_REGS_RC(ctx), now = bpf_ktime_get_ns();

    if (inside.lookup(&tid) == NULL || page == 0)
        return 0;
    birth.update(&page, &now);
    totals.increment(0);
    return 0;
}

int mark_used(struct pt_regs *ctx, struct page *page)
{
    u64 key = (u64)page;
    u64 *born = birth.lookup(&key);

    if (born) {
        u64 delta_ms = (bpf_ktime_get_ns() - *born) / 1000000;

        age.increment(bpf_log2l(delta_ms));
        totals.increment(1);
        birth.delete(&key);
    }
    return 0;
}
"""


def first_of(*names):
    for name in names:
        if BPF.get_kprobe_functions(b"^" + name + b"$"):
            return name
    sys.exit("none of these functions can be traced: " + b" ".join(names).decode())


b = BPF(text=text, cflags=['-DCOMM="%s"' % sys.argv[1][:15]])
readahead = first_of(b"page_cache_ra_order", b"page_cache_ra_unbounded", b"__do_page_cache_readahead")
names = {readahead, first_of(b"page_cache_ra_unbounded", b"__do_page_cache_readahead")}
for name in sorted(names):
    b.attach_kprobe(event=name, fn_name="enter_readahead")
    b.attach_kretprobe(event=name, fn_name="leave_readahead")
alloc = first_of(b"filemap_alloc_folio_noprof", b"filemap_alloc_folio", b"__page_cache_alloc", b"folio_alloc_noprof")
b.attach_kretprobe(event=alloc, fn_name="leave_alloc")
mark = first_of(b"folio_mark_accessed", b"mark_page_accessed")
b.attach_kprobe(event=mark, fn_name="mark_used")
print("Tracing %s, %s, %s... Hit Ctrl-C to end." % (readahead.decode(), alloc.decode(), mark.decode()), flush=True)
try:
    while True:
        b.kprobe_poll(1000)
except KeyboardInterrupt:
    print()
print("pages read ahead: %d, used: %d, unused: %d" % (b["totals"][0].value, b["totals"][1].value, len(b["birth"])))
b["age"].print_log2_hist("age (ms)")

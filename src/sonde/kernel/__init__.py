"""The kernel engine: bpf(2), perf events, links, ring buffers, the feature table."""

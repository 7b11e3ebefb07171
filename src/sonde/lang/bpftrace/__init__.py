"""The bpftrace language, 0.17 to 0.27."""

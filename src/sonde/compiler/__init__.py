"""The compiler: typed IR in, eBPF object out. It knows no source language and touches no live machine."""

"""ELF objects as clang and libbpf know them: `read_object` turns bytes into plain records, `write_object` the records into bytes.

Follows libbpf 1.7 (src/libbpf.c), Documentation/bpf/btf.rst and llvm_reloc.rst. Nothing here knows a running kernel; see `model` for the records.
"""

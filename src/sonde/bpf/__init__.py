"""The BPF machine: instruction set, assembler, disassembler, helper table."""

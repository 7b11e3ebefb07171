"""Bytes to facts: ELF, BTF, tracefs formats, USDT notes, kallsyms, /proc maps; the C type model."""

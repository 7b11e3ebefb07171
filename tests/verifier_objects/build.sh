#!/bin/sh
# Compile the objects that the verifier's tests read. Needs Debian's clang-14, llvm-14 and libbpf-dev; run it where the sources are changed.
set -eu
cd "$(dirname "$0")"
include="-I/usr/include/$(uname -m)-linux-gnu"
for source in *.bpf.c; do
    name="${source%.bpf.c}"
    clang -g -O2 -target bpfel "$include" -fdebug-prefix-map="$PWD=." -c "$source" -o "$name.o"
    llvm-strip -g "$name.o"
done

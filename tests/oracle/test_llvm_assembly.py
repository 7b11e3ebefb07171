"""Our assembler reads what llvm-objdump prints, and makes the same bytes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sonde.bpf.asm import assemble
from sonde.bpf.isa import decode

pytestmark = pytest.mark.oracle

PROGRAM = r"""
typedef unsigned long long u64; typedef unsigned int u32; typedef unsigned short u16; typedef unsigned char u8;
static void *(*lookup)(void *, const void *) = (void *)1;
static u64 (*ktime)(void) = (void *)5;
int global;
__attribute__((section("tracepoint/x"))) int f(u64 *ctx) {
  u64 k[4] = {ctx[1], ctx[2], ktime(), 0x123456789abcULL};
  u64 *v = lookup(0, k);
  if (!v) return -1;
  __sync_fetch_and_add(v, 1);
  *(u16 *)v = __builtin_bswap16(*(u16 *)(v + 3));
  *(u8 *)v = -3;
  *(u32 *)(v + 1) = __builtin_bswap32(*(u32 *)v);
  for (int i = 0; i < (int)k[0]; i++) v[i & 3] ^= i * 7 + (k[1] >> i) % 13;
  if (((long)ctx[3] > 5 && ctx[4] < 9) || (int)ctx[5] < -3) return (u8)ctx[2] / 5u;
  return (long)v[1] >> 3 | global;
}
"""


@pytest.mark.parametrize("cpu", ["v1", "v2", "v3"])
def test_disassembly_of_compiled_c(cpu: str, tmp_path: Path) -> None:
    clang, objdump = shutil.which("clang"), shutil.which("llvm-objdump")
    if not clang or not objdump:
        pytest.skip("needs clang and llvm-objdump")
    (tmp_path / "f.c").write_text(PROGRAM)
    flags = ["-target", "bpf", f"-mcpu={cpu}", "-O2", "-Wno-everything"]
    subprocess.run([clang, *flags, "-c", "f.c", "-o", "f.o"], cwd=tmp_path, check=True)
    listing = subprocess.run(
        [objdump, f"--mcpu={cpu}", "-d", "f.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    seen = 0
    for code, text in re.findall(r"\d+:\s+((?:[0-9a-f]{2} ?)+)\t(.*)", listing):
        if len(bytes.fromhex(code)) % 8 == 0 and "unknown" not in text:
            text = re.sub(r"<[A-Za-z_]\w*(\+0x\w+)?>$", "", text)
            assert assemble(text) == decode(bytes.fromhex(code)), text
            seen += 1
    assert seen > 50

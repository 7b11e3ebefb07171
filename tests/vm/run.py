"""Run one command in a guest: `python tests/vm/run.py 6.1 -- bpftrace -l 'kprobe:vfs_r*'`."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vm.guest import Guest
from vm.kernels import get_kernel


def main() -> int:
    """Boot, run, print, and pass the exit status on."""
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        print("usage: run.py SERIES -- COMMAND [ARG…]", file=sys.stderr)
        return 2
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    env = {"PYTHONPATH": os.path.join(root, "src")}
    with Guest(get_kernel(sys.argv[1])) as guest:
        result = guest.run(sys.argv[3:], timeout_s=300, env=env, cwd=os.getcwd())
    sys.stdout.write(result.out)
    sys.stderr.write(result.err)
    return result.status


if __name__ == "__main__":
    sys.exit(main())

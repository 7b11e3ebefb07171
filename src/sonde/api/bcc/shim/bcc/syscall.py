"""`bcc.syscall`: the same module as `sonde.api.bcc.syscall`."""

import sys

from sonde.api.bcc import syscall

sys.modules[__name__] = syscall

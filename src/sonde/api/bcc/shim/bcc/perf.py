"""`bcc.perf`: the same module as `sonde.api.bcc.perf`."""

import sys

from sonde.api.bcc import perf

sys.modules[__name__] = perf

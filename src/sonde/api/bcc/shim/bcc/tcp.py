"""`bcc.tcp`: the same module as `sonde.api.bcc.tcp`."""

import sys

from sonde.api.bcc import tcp

sys.modules[__name__] = tcp

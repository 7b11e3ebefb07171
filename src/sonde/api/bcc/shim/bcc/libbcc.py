"""`bcc.libbcc`: the same module as `sonde.api.bcc.libbcc`."""

import sys

from sonde.api.bcc import libbcc

sys.modules[__name__] = libbcc

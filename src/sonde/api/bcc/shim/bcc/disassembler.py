"""`bcc.disassembler`: the same module as `sonde.api.bcc.disassembler`."""

import sys

from sonde.api.bcc import disassembler

sys.modules[__name__] = disassembler

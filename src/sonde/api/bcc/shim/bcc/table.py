"""`bcc.table`: the same module as `sonde.api.bcc.tables`."""

import sys

from sonde.api.bcc import tables

sys.modules[__name__] = tables

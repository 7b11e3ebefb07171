"""`bcc.usdt`: the same module as `sonde.api.bcc.usdt`."""

import sys

from sonde.api.bcc import usdt

sys.modules[__name__] = usdt

"""`bcc.version`: the same module as `sonde.api.bcc.version`."""

import sys

from sonde.api.bcc import version

sys.modules[__name__] = version

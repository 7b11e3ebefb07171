"""`bcc.containers`: the same module as `sonde.api.bcc.containers`."""

import sys

from sonde.api.bcc import containers

sys.modules[__name__] = containers

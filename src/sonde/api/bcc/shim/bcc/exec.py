"""`bcc.exec`: the same module as `sonde.api.bcc.commands`."""

import sys

from sonde.api.bcc import commands

sys.modules[__name__] = commands

"""`bcc.utils`: the same module as `sonde.api.bcc.utils`."""

import sys

from sonde.api.bcc import utils

sys.modules[__name__] = utils

"""In place of BCC's library, which the recorder does not need."""

from . import Anything

lib = Anything()

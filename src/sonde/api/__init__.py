"""The public verbs: compile a script, trace with it, list probes, ask for features.

import sonde
spec = sonde.compile("tracepoint:syscalls:sys_enter_openat { @[comm] = count(); }")
sonde.trace("interval:s:1 { time(); exit(); }")
"""

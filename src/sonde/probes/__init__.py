"""The probes: their grammar, which ones a machine has, and what a program attached to one can reach.

`catalogue` is the door for front ends (parse_attach_point, expand, context_of), `listing` the one for `sonde list`. Each
probe type is described in one file, imported when a script or a listing names it.
"""

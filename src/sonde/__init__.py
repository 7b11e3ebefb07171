"""sonde: dynamic tracing for Linux, in Python."""

__version__ = "0.1.0"

"""The version of BCC whose interface this follows."""

__version__ = "0.37.0"

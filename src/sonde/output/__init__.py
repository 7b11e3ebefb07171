"""Printers: rows and snapshots to text and JSON."""

"""aarch64: what a probe displaces, and where that goes."""

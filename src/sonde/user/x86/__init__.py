"""x86-64: what a probe displaces, and where that goes."""

"""Front ends: program text to IR. Each language has a folder; none imports another."""

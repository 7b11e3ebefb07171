"""The user engine: programs run inside the traced process, through trampolines that sonde puts there. See docs/design/0008-user-engine.md."""

"""A session: load, attach, poll, decode, symbolise, detach."""

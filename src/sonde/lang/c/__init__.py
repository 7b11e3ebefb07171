"""The C front end: restricted C, in BCC's dialect and in libbpf's style, to an ObjectSpec."""

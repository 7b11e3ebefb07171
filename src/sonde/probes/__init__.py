"""The probe grammar and catalogue: parse, list, expand wildcards, say what a probe offers."""

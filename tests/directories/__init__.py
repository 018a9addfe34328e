"""Directories for the tests: a real slapd, a scripted server that misbehaves, an authority for their certificates."""

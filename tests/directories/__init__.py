"""Directories for the tests: a real slapd, a scripted server that misbehaves, and an authority for their certificates."""

"""The tests. This package exists because a bare folder tests/auth would shadow the package `auth`."""

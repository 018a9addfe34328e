"""Tests of `trioproxy.engine`."""

"""Tests of `trioproxy.policy`."""

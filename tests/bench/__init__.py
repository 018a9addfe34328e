"""trioproxy beside other SOCKS servers, measured in one go: `make bench`. What is measured is in `measures`."""

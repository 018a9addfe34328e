"""`python -m trioproxy` is the command `trioproxy`."""

from trioproxy.cli import main

if __name__ == "__main__":
    main()

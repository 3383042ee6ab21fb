"""`python -m r2r`, the same as the command `r2r`."""

from r2r.cli import entry

entry()

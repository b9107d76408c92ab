"""`python -m colorized` is the command `colorized`."""

from colorized.cli import main

main()

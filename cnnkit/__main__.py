"""`python -m cnnkit` is `cnnkit`."""

from cnnkit.cli import main

main()

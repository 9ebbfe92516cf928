"""`python -m lodestream.cli` is `lodestream`."""

from lodestream.cli import main

main()

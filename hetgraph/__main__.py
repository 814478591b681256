"""``python -m hetgraph``."""

from .cli import main

main()

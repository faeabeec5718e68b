"""`python -m avatar_client` is the command `avatar`."""

import sys

from ._cli import main

if __name__ == "__main__":
    sys.exit(main())

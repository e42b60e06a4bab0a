"""``python -m balancedfact``, the same as the command ``balancedfact``."""

import sys

from balancedfact.cli import main

if __name__ == "__main__":
    sys.exit(main())

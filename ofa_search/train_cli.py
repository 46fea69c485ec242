"""`ofa-train` as a module: torchrun commands name it (`torchrun ... -m ofa_search.train_cli`)."""

from __future__ import annotations

import sys

from ofa_search.cli.train import main

if __name__ == "__main__":
    sys.exit(main())

"""`ofa-prune` as a module: torchrun commands name it (`torchrun ... -m ofa_search.prune_cli`)."""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, which take a while
    from ofa_search.cli.start import end_quietly, leave

    end_quietly()

import sys

from ofa_search.cli.prune import main

if __name__ == "__main__":
    sys.exit(leave(main()))

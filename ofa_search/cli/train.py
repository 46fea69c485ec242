"""`ofa-train`: train a supernet, a single network or an accuracy predictor."""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, which take a while
    from ofa_profiler.cli.start import end_quietly, leave

    end_quietly()

import sys
from collections.abc import Sequence

from ofa_profiler.base.extras import need
from ofa_profiler.cli.options import Parser
from ofa_search.cli import train_predictor, train_subnet, train_supernet
from ofa_search.cli.processes import run_in_processes

PROG = "ofa-train"

_DESCRIPTION = "Train a supernet, a single network or an accuracy predictor, on a CPU, one GPU or several processes."
_EXAMPLES = """\
examples:
  ofa-train supernet --data cifar10/ --out out/supernet
  ofa-train subnet --supernet out/supernet/supernet.safetensors --architecture out/search/search.json \\
      --data cifar10/ --out out/network
  ofa-train supernet --help                                  the options of one command
  torchrun --nproc-per-node 2 -m ofa_search.train_cli supernet --data cifar10/ --out out/supernet

exit codes: 0 done, 2 bad usage or bad input, 130 or 143 interrupted
"""
_COMMANDS = {"supernet": train_supernet, "subnet": train_subnet, "predictor": train_predictor}
_RESUME = "interrupted; run the same command again to resume from the last saved step (at most a minute back)"


def _parser() -> Parser:
    parser = Parser(PROG, _DESCRIPTION, _EXAMPLES)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION, epilog=module.EXAMPLES)
        module.add_arguments(command)
    return parser


def _train(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    need("torch", extra="train", purpose=arguments.command)
    return int(_COMMANDS[arguments.command].run(arguments))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (`docs/contracts.md` lists them)."""
    return run_in_processes(PROG, lambda: _train(argv), interrupted=lambda: _RESUME)


if __name__ == "__main__":
    sys.exit(leave(main()))

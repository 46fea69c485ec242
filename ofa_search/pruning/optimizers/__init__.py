"""The optimizers that prune while they train, one per file. They need torch."""

from ofa_search.pruning.optimizers.base import PruningOptimizer
from ofa_search.pruning.optimizers.cric import HESSOCRIC
from ofa_search.pruning.optimizers.dhspg import DHSPG
from ofa_search.pruning.optimizers.hesso import HESSO
from ofa_search.pruning.optimizers.registry import (
    get_pruning_optimizer,
    pruning_optimizer_names,
    register_pruning_optimizer,
)
from ofa_search.pruning.optimizers.saliency import EQUAL, SCORES, VALUE
from ofa_search.pruning.optimizers.steps import END, PERIODS, START, Chooser, PruningSteps, pruning_steps

__all__ = [
    "DEFAULT_PRUNING_OPTIMIZER",
    "DHSPG",
    "END",
    "EQUAL",
    "HESSO",
    "HESSOCRIC",
    "PERIODS",
    "SCORES",
    "START",
    "VALUE",
    "Chooser",
    "PruningOptimizer",
    "PruningSteps",
    "get_pruning_optimizer",
    "pruning_optimizer_names",
    "pruning_steps",
    "register_pruning_optimizer",
]

DEFAULT_PRUNING_OPTIMIZER = HESSO.name

register_pruning_optimizer(HESSO)
register_pruning_optimizer(HESSOCRIC)
register_pruning_optimizer(DHSPG)

"""Copies of a block, so that it finds its data where a network leaves them: further away than in the nearest cache."""

import itertools

MANY_WEIGHTS = 32000000  # more than caches hold: weights are read from memory in each run of the network
WEIGHTS_APART = 64000000  # so much lies between two runs on the same copy of the weights
MOST_MODELS, MOST_TENSORS = 16, 64


def of_weights(weight_bytes, n_bytes):
    """Return the number of copies of a model of `n_bytes`, a block of a network with `weight_bytes`."""
    if weight_bytes <= MANY_WEIGHTS:
        return 1
    return max(1, min(MOST_MODELS, min(weight_bytes, WEIGHTS_APART) // max(1, n_bytes)))


def of_tensors(spread_bytes, n_bytes):
    """Return the number of copies of inputs and outputs of together `n_bytes`."""
    return max(1, min(MOST_TENSORS, spread_bytes // max(1, n_bytes)))


def in_turns(runs):
    """Return a function that calls one of `runs` after the other."""
    if len(runs) == 1:
        return runs[0]
    turns = itertools.cycle(runs)

    def run():
        next(turns)()

    return run

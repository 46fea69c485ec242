"""Times of ops that were not measured, from a table of a similar device and a few measured ops.

base.py      what is taken from the table of the similar device, and kept in the journal
choice.py    which ops to measure
features.py  ops as vectors
process.py   a Gaussian process
infer.py     the times, and how far off they may be
"""

from ofa_profiler.tables.transfer.base import Base
from ofa_profiler.tables.transfer.choice import Order, order_of_measuring
from ofa_profiler.tables.transfer.infer import Inference, infer

__all__ = ["Base", "Inference", "Order", "infer", "order_of_measuring"]

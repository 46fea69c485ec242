"""From torch modules to our own layers, and from these to TFLite.

`torch.export` gives the operators of a module. Each becomes a layer of `ofa_profiler.networks.layers` (`operators.py`,
`maps.py`), and layers are merged with those that can include them (`merging.py`, `branches.py`). Exporters then write
the graph as they write the networks of search spaces.
"""

from ofa_search.pruning.conversion.convert import to_graph
from ofa_search.pruning.conversion.tflite import write_tflite

__all__ = ["to_graph", "write_tflite"]

"""From torch modules to our own layers, and from these to TFLite.

`torch.export` gives the operators of a module. Each becomes a layer of `ofa_profiler.networks.layers` (`operators.py`
and the files beside it), and layers that one layer can include are merged (`merging.py`). Exporters then write the graph as
they write the networks of search spaces.
"""

from ofa_search.pruning.conversion.convert import to_graph
from ofa_search.pruning.conversion.tflite import write_tflite

__all__ = ["to_graph", "write_tflite"]

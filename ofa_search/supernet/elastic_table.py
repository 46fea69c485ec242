"""What the elastic network makes of a layer. `elastic.py` fills this table when it is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ofa_profiler.networks.layers import LayerTable

#: Layer type -> `make(choices)`: the elastic layer that can be each of the choices.
ELASTIC_LAYERS: LayerTable[Callable[[Any], Any]] = LayerTable("the elastic network")

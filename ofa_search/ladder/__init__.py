"""Keeps a latency target under changing load: switches between the networks of `ofa-search --ladder`.

ladder = Ladder.load("out/search", target_ms=30)
served = ladder.run(prepared(image, ladder.rung.resolution))
served.outputs, served.rung, served.ms

It needs numpy and the runtime of the models only.
"""

from ofa_search.ladder.rungs import LadderFile, Rung
from ofa_search.ladder.running import Ladder, Served
from ofa_search.ladder.sessions import Session
from ofa_search.ladder.switching import Switch, Switching

__all__ = ["Ladder", "LadderFile", "Rung", "Served", "Session", "Switch", "Switching"]

"""A user's space gets the name of the variable that holds it."""

from __future__ import annotations

import runpy
import sys
import types

import pytest

from ofa_profiler import LatencyTable
from ofa_profiler.base.user_code import name_of
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture import SPACE_CHECKS
from ofa_profiler.spaces import as_space, get_space, registry
from ofa_profiler.spaces.language import choice, conv, global_pool, linear, sequence, space
from ofa_profiler.tables.table import Row
from ofa_search import Macs, search


def written(width: int):
    network = sequence(conv(choice("width", [4, width]), stride=2), global_pool(), linear())
    return space(network, resolutions=[8], classes=3)


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("my_named_space")
    made.SPACE = written(8)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    yield made
    for entries in (registry._SPACES._entries, SPACE_CHECKS._entries):
        entries.pop("my_named_space:SPACE", None)


def test_the_variable_names_the_space(module):
    found = as_space(module.SPACE)
    assert found.name == "my_named_space:SPACE"
    assert found is as_space(module.SPACE) is get_space("my_named_space:SPACE")
    assert as_space(found) is found


def test_a_space_that_is_written_anew_replaces_the_old_one(module):
    assert as_space(module.SPACE).largest.choices == (("width", 8),)
    module.SPACE = written(16)
    assert as_space(module.SPACE).largest.choices == (("width", 16),)
    assert get_space("my_named_space:SPACE").largest.choices == (("width", 16),)


def test_a_space_that_changed_since_it_was_measured_is_said_to_have_changed(module):
    measured = as_space(module.SPACE)
    rows = tuple(Row.from_op(op, batch=1, precision="fp32", samples_ms=[0.1] * 3) for op in measured.unique_ops())
    described = {"spaces": [measured.name], "resolutions": [8]}
    lost = LatencyTable("board", rows[1:], described)
    with pytest.raises(InputFileError, match=r"rows were lost: 1 of the .* run ofa-profile again"):
        search(measured, [(lost, 1.0)], Macs(), fix={"width": 4})
    module.SPACE = written(16)
    with pytest.raises(InputFileError, match=r"the space has changed since it was measured: \d+ of the .* --fresh"):
        search(module.SPACE, [(LatencyTable("board", rows, described), 1.0)], Macs())


def test_a_space_without_a_variable_is_refused():
    with pytest.raises(UsageError, match="variable of a module"):
        as_space(written(8))


def test_the_script_that_runs_has_the_name_of_its_file(tmp_path):
    file = tmp_path / "my_script.py"
    code = "from ofa_profiler.base.user_code import name_of\nTHING = object()\nFOUND = name_of(THING)\n"
    file.write_text(code)
    assert runpy.run_path(str(file), run_name="__main__")["FOUND"] == "my_script:THING"
    assert name_of(object()) is None

"""Where the agent is put on a device: another version never replaces one that may be running there."""

from __future__ import annotations

import pytest

from ofa_profiler.devices.remote import device
from ofa_profiler.protocol.kit import agent_files


def test_every_version_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    files = device._agent()
    (folder,) = {"/".join(path.split("/")[:2]) for path in files}
    assert files == device._agent() == {f"{folder}/{path}": content for path, content in agent_files().items()}
    assert {f"{folder}/agent.py", f"{folder}/ofa_agent/main.py", f"{folder}/ofa_agent/runtimes/litert.py"} <= set(files)

    changed = {**agent_files(), "ofa_agent/main.py": b"another version"}
    monkeypatch.setattr(device, "agent_files", lambda: changed)
    assert not files.keys() & device._agent().keys()

    monkeypatch.setattr(device, "agent_files", lambda: {**changed, "ofa_agent/runtimes/more.py": b"another version"})
    assert len({path.split("/")[1] for path in [*files, *device._agent()]}) == 2

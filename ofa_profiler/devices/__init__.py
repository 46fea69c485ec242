"""The devices that can be measured, and how each is reached."""

from __future__ import annotations

from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.devices.elsewhere import ElsewhereDevice
from ofa_profiler.devices.fake import FakeDevice
from ofa_profiler.devices.local import LocalDevice
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.registry import DeviceKind, device_kinds, open_device, register_device_kind

__all__ = [
    "Agent",
    "Device",
    "DeviceKind",
    "DeviceOptions",
    "ElsewhereDevice",
    "FakeDevice",
    "LocalDevice",
    "device_kinds",
    "open_device",
    "register_device_kind",
]

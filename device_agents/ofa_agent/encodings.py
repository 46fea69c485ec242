"""Which encoding of int8 suits this processor. The rule is that of the host (ofa_profiler/protocol/encodings.py)."""


def encoding_for(device):
    """Return the name of an encoding, from a `device` record."""
    if (device.get("machine") or "").lower().startswith(("aarch64", "arm")):
        return "s8s8"
    return "u8s8" if device.get("vnni") is True else "u8s7"

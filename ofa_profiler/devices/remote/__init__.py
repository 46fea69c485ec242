"""Devices at the other end of a shell."""

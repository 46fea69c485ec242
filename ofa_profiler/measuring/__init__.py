"""Measuring on a device: from ops to a journal, and from the journal to a table."""

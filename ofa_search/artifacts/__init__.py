"""Files that hold weights: those that ship, those that are published, and how they are read."""

"""Training: supernets by schedules of phases, and single networks."""

"""The commands of the profiler. Only here are arguments parsed, is text printed, and do processes exit."""

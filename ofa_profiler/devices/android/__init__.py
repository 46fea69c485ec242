"""Android phones."""

#: The only folder of a phone where its shell user may write and run programs.
ROOT = "/data/local/tmp/ofa-profiler"

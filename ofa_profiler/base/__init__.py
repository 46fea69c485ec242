"""What everything else stands on: files, units, parallel jobs, downloads, progress. Knows nothing of networks."""

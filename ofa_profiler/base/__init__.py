"""Basic tools: files, locks, units, parallel jobs, downloads, retries, plugins. They do not depend on networks."""

"""The search: a problem, an objective, engines."""

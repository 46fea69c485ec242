"""Upper bounds: no network of a problem has a higher score."""

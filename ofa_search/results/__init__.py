"""What a search found: documents, model files, reports, and the measurement of the winner."""

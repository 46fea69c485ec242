"""What host and agent exchange: settings, kits, records, and the journal that the records make up."""

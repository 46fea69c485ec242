"""What host and agent say to each other: settings, kits, records and the journal that they make up."""

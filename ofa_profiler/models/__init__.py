"""Models of users: opens a file, describes its inputs, and cuts it into blocks."""

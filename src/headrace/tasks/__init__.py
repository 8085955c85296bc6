"""What is learned from a text: one file, one task."""

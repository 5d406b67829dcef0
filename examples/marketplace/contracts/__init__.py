"""What the eight services say to each other; nothing else is shared."""

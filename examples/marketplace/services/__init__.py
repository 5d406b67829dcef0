"""The eight services: each could live in a repository of its own."""

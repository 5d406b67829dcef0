"""Online Marketplace: eight services, the benchmark of Laigner et al. (SIGMOD 2025), on holdfast."""

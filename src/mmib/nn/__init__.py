"""Building blocks of the network, independent of tasks and files; callers pass their width."""

"""Building blocks of the network; each takes its width from its caller and knows nothing of tasks or files."""

"""Training: the trainer's command line, its error messages, and the summary of a run."""

"""Training: the command line of the trainer, its error messages, and the summary of a run."""

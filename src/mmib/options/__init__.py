"""Fast checks and `--help` of the trainer commands' options, without importing the classes that define them."""

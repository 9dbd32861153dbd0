"""Options of the trainer commands without the classes that take them: checked, and listed by `--help`, at once."""

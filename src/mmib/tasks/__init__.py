"""Tasks: one file each, with all that is particular to it; `mmib.schema.Task` is their interface."""

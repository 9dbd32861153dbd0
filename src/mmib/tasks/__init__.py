"""Tasks, one module each, with all task-specific code; they implement `mmib.schema.Task`."""

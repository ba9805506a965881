"""Room 1, what was written: task records, readers, splits, the embedded task."""

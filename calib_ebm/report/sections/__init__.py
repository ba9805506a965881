"""What the page of one run says: a file for each section, each from the run's files to blocks."""

"""7. What may be claimed: the files of a run, and the page made from them alone."""

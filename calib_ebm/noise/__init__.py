"""What could have been written: masking, filters, the noise LM, and the bank on disk."""

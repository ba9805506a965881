"""The same as ids: encoding, collating, and loaders that count every example once."""

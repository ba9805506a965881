"""One number per text: the heads, the network and the encoder. Low energy = looks like data."""

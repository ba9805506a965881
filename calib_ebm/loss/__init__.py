"""One number per batch: noise-contrastive estimation, and its sum with cross-entropy."""

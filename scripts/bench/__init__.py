"""The parts of `scripts/bench.py`; each measures something of ours against what others would do."""

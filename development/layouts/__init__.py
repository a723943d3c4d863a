"""Records what other versions of the savers write, for tests that can't have those versions installed."""

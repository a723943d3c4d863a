"""Records the keys of other versions of the savers, for tests without those versions."""

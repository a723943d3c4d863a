"""Local servers, demo and benchmarks: nothing here is part of the package."""

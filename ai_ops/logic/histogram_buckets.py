"""The buckets of the histograms for Prometheus: durations of runs, and latencies of checks."""

# Upper bounds of the ranges, in seconds. A pass of the supervisor takes milliseconds, a large cleanup an hour. Each
# histogram has eight, since `ai_ops.models.totals.Total` has a column for each.
RUN_BUCKETS = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
CHECK_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

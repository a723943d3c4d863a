"""The page "Overview": its decisions, queries, panels and view."""

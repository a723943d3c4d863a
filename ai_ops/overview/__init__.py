"""The page that answers first whether all is well: its decisions, its queries, its panels and its view."""

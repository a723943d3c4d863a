"""The edge to Redis: one client library, no Django; values of `logic` in and out."""

"""Edges to the outside: one client library a module, core types in and out."""

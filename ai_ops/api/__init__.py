"""REST API of AI Ops."""

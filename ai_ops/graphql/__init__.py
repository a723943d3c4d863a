"""GraphQL of AI Ops."""

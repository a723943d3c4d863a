"""Checkpoints of LangGraph in Redis: their retention, their deletion, and the connection that agents use."""

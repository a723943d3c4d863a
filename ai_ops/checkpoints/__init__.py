"""LangGraph checkpoints in Redis: their retention, deletion, and the connection of agents."""

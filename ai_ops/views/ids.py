"""The format of ids in the addresses of pages."""

# Only a UUID is an id. Without this "add" would be looked up as an id, and fail.
ID_PATTERN = "[0-9a-fA-F-]{32,36}"

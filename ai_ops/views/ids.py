"""The ids in addresses of pages."""

# Only ids are records: without this "add" would be looked up as one, and fail.
ID_PATTERN = "[0-9a-fA-F-]{32,36}"

"""The ids in addresses of pages."""

# What is no id is no record: without this "add" would be looked up as one, and fail.
ID_PATTERN = "[0-9a-fA-F-]{32,36}"

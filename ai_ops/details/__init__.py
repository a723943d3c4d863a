"""The panels and buttons of the detail pages, a module for each subject."""

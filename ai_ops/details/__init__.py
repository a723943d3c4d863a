"""Detail pages: the panels and buttons of each, a module for each subject."""

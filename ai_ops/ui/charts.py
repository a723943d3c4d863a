"""Colours of the app's charts."""

# Nautobot's own green, red and grey, as its status labels have them.
GREEN, RED, GREY = "#2f9e44", "#e03131", "#868e96"

# For the name of an axis: the colour that Nautobot gives it can't be read on a light page.
READABLE_NAME = {"nameTextStyle": {"color": GREY}}
AMBER, BLUE = "#f08c00", "#1c7ed6"

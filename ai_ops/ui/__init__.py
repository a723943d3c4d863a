"""Small parts that several pages have in common: times, bars, colours of charts."""

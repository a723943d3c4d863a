"""Parts that several pages share: times, bars and charts."""

"""One short file per contestant, each written as its own documentation recommends."""

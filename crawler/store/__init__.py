"""The store: blocks in a folder or a bucket, written by compare-and-swap, and read back."""

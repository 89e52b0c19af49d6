"""Exports: what a store holds as one file, a table, or another store."""

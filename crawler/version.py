"""The version, in one place."""

VERSION = "2.0.0"

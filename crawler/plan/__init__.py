"""The plan: a range less what the store has settled, as numbers to ask for, in order."""

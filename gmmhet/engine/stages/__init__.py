"""The eight verbs, a file each, and the runner that calls them."""

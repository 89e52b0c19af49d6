"""The coverage page: a picture of what has been crawled, from a listing and the last runs."""

"""The command `mmib serve`: a page and a JSON API over a trained model."""

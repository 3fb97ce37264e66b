"""Interruption as a kind of test: signals, forks, closes from elsewhere, and resources that run out, on every face."""

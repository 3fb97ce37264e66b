"""The engine and its public faces on Windows, macOS and FreeBSD, as strict fakes model them."""

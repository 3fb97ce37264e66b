"""From what a socket holds to Datagrams, in three forms that behave alike."""

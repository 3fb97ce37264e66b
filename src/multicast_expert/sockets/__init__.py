"""The public classes: receivers and senders, blocking and asynchronous."""

"""What every other room speaks of: addresses, interfaces, datagrams, memberships and plans. Pure."""

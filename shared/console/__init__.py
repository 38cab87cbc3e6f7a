"""The operators' console: HTML made on the server, readable without JavaScript."""

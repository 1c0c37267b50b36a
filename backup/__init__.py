"""`python -m backup`: backups looked at, pulled off the servers, and laid ready for a restore."""

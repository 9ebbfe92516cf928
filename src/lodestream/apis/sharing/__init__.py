"""Delta Sharing: tables as files, for clients that others wrote."""

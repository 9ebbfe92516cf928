"""Who may see what of the lake: users, grants, policies, tags, and the record of all that was asked."""

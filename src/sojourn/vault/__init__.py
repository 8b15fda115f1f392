"""A vault: sessions as a process holds them, and every verb on them as one plain function call."""

"""What a finished run shows to users: pages, exported files, and the replay of one answer."""

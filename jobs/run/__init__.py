"""What every stage of a run shares: store, terminal, host. Knows no teacher, student or arm."""

"""Code that all stages of a run share: store, terminal, host. It knows no teacher, student or arm."""

"""Where models live and work runs: session, hosting actors, the pool, loading, rendering, sampling."""

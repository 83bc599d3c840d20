"""Ray and models: the session, hosting actors, the pool; loading, rendering and sampling."""

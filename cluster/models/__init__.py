"""Models: loading, rendering, sampling, and what proves on the model at hand that a shortcut is right."""

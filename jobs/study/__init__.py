"""A study: many experiments that share one store and one Ray, and the tables of their results."""

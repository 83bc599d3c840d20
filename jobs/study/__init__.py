"""A study: many experiments over one store and one Ray, and the tables that come of them."""

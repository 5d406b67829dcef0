"""A small shop: order, stock, payment and shipping, each a service with its own store."""

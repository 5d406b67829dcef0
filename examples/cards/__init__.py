"""Seats are sold and cards are charged at a payment provider that is not ours, and not to be relied on."""

"""Networks, their parts, and many networks of one kind computed together."""

"""What training did and what networks cost: curves, multiply-adds."""

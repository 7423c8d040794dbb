"""What is trained when, on which weights, and what is published."""

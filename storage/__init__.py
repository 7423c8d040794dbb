"""What is remembered: records, the append-only journal, and the queries that screens and learners read."""

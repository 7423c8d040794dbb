"""Judgements out of the database, in the formats that trainers read, and judgements from elsewhere into it."""

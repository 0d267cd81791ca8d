"""The store: what stations said, verbatim, and the tables that are derived from it. SQLite or PostgreSQL."""

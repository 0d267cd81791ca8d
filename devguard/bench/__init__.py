"""The bench: taps and hostile hosts, to show what an attack gets. Never part of a push."""

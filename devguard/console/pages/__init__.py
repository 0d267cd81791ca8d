"""One module per page: it reads, or starts a command, and renders a template. Rights are in `console.table`."""

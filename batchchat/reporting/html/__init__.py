"""report.html: the report as one page that needs no network, no server and no JavaScript."""

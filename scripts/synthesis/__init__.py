"""Making data, at length and with kills: to be run by hand, all of it by `make synthesis`."""

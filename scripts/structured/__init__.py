"""What answers in a form cost, to be run by hand, and how many schemas can be kept, a part of `make synthesis`."""

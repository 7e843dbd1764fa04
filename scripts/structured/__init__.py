"""What answers in a form cost, and how many schemas can be kept: to be run by hand."""

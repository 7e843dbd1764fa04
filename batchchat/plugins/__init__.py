"""What comes along and what is added from outside: built-in recipes and samples, functions named in a recipe."""

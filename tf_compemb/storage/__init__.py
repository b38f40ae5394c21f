"""How the rows of a table are stored: the one door through which every method reads rows."""

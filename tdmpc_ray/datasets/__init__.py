"""Episodes that others recorded: how they are read, from files of several formats, and checked."""
